'use strict';

/* Loaded after asv's scripts: what they leave to be set from outside. */
$(document).ready(function () {
    /* Counters are exact: every digit is printed. Bytes say that they are bytes. */
    function number(x) {
        return Number.isInteger(x) ? x.toLocaleString('en') : x.toPrecision(3);
    }

    var seconds = $.asv.pretty_unit;
    $.asv.pretty_unit = function (x, unit) {
        if (unit === 'seconds') {
            return seconds(x, unit);
        }
        if (unit === 'bytes' && Math.abs(x) >= 1000) {
            var i = Math.min(Math.floor(Math.log10(Math.abs(x)) / 3), 4);
            return (x / Math.pow(1000, i)).toFixed(3) + ' ' + ['', 'k', 'M', 'G', 'T'][i] + 'B';
        }
        return number(x) + (unit && unit !== 'unit' ? ' ' + (unit === 'bytes' ? 'B' : unit) : '');
    };

    $.asv.ui.network_error = function () {
        $('#error-message').text('The pages need a web server: make dashboard says which command starts one.');
        $('#error').modal('show');
    };

    /* Of "K-8; machine-x; commit-last" what all curves share is left out, and names that values make plain. */
    function shorten(graphs) {
        var parts = graphs.map(function (graph) { return (graph.label || '').split('; '); });
        graphs.forEach(function (graph, i) {
            var own = parts[i].filter(function (part) {
                return graphs.length === 1 ? false : !parts.every(function (one) { return one.indexOf(part) >= 0; });
            });
            return graph.label = own.map(function (part) {
                var cut = part.indexOf('-'), name = part.slice(0, cut), value = part.slice(cut + 1);
                return isNaN(value) ? value : name + '=' + value;
            }).join(', ') || null;
        });
    }

    /* Against names, flot-orderbars takes them for numbers and draws nothing: the bars are placed here. */
    function place(graphs, xaxis) {
        xaxis.mode = null;
        xaxis.ticks = graphs[0].data.map(function (point, j) { return [j, point[0]]; });
        xaxis.min = -0.5;
        xaxis.max = xaxis.ticks.length - 0.5;
        graphs.forEach(function (graph, i) {
            graph.bars = {};
            graph.data = graph.data.map(function (point, j) {
                return [j + 0.6 * ((i + 0.5) / graphs.length - 0.5), point[1]];
            });
        });
    }

    /* From zero and with headroom, without exponents, unless the reader chose another scale. */
    function scale(graphs, yaxis, room) {
        var values = [].concat.apply([], graphs.map(function (graph) {
            return graph.data.map(function (point) { return point[1]; });
        })).filter(function (value) { return value !== null; });
        var chosen = $.asv.parse_hash_string(window.location.hash).params['y-axis-scale'];
        if (chosen || !values.length || Math.min.apply(null, values) < 0 || yaxis.transform) {
            return;
        }
        var most = Math.max.apply(null, values);
        yaxis.min = 0;
        yaxis.max = most / (1 - room) || 1;
        yaxis.tickFormatter = function (v) { return v.toLocaleString('en', {maximumSignificantDigits: 3}); };
        var bench = $.asv.main_json.benchmarks[$.asv.parse_hash_string(window.location.hash).location[0]];
        var units = {seconds: $.asv.time_units, bytes: $.asv.mem_units}[bench && bench.unit];
        if (units) {
            var fitting = units.filter(function (unit) { return unit[2] <= most; }).pop() || units[0];
            yaxis.axisLabel = fitting[1];
            yaxis.tickFormatter = function (v) {
                return (v / fitting[2]).toLocaleString('en', {maximumSignificantDigits: 3});
            };
        }
    }

    /* The legend stands above the curves, its labels on one line each; on a phone it stands below the graph. Returns the
       share of the height that it takes. */
    function legend(graphs, settings, where) {
        var longest = Math.max.apply(null, graphs.map(function (graph) { return (graph.label || '').length; }));
        settings.noColumns = Math.max(1, Math.floor((where.width() - 60) / (7 * longest + 40)));
        $('#legend-below').remove();
        if (where.width() < 600) {
            settings.noColumns = 1;
            settings.container = $('<div id="legend-below"></div>').prependTo('#graphdisplay-navigation');
            return 0.1;
        }
        var rows = Math.ceil(graphs.length / settings.noColumns);
        return settings.show ? Math.min(0.6, (20 * rows + 20) / where.height()) : 0.1;
    }

    var plot = $.plot;
    $.plot = $.extend(function (where, data, options) {
        var graphs = data.map(function (graph) { return $.extend({}, graph); });
        options.grid = $.extend(options.grid, {borderWidth: 1, borderColor: '#bbb'});
        graphs.forEach(function (graph) {
            /* A single commit draws no line: its point is shown. */
            if (graph.data && graph.data.length < 2) {
                graph.points = {show: true};
            }
        });
        if ($(where).is('#main-graph')) {
            shorten(graphs);
            if (options.xaxis.mode === 'categories' && graphs.length) {
                place(graphs, options.xaxis);
            }
            scale(graphs, options.yaxis, legend(graphs, options.legend, $(where)));
        } else if (options.yaxis.max === undefined) {
            /* A flat line does not lie on the frame. */
            options.yaxis.autoscaleMargin = 0.25;
        }
        return plot(where, graphs, options);
    }, plot);
});
