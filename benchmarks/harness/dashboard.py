"""Make ``asv publish`` write pages that need no network and that read well from the first commit on.

asv loads this module through ``plugins`` in asv.conf.json and calls `Dashboard.publish` after it has
copied its own pages to ``html_dir``. Every edit must fit exactly once: a template that has changed
stops the publication instead of leaving a page that works only online.
"""

import re
import shutil
from pathlib import Path

from asv.publishing import OutputPublisher
from asv.util import UserError

ASSETS = Path(__file__).with_name("assets")

# How the addresses in asv's page end, and the vendored file that stands in for each.
VENDORED = {
    "/jquery-3.3.1.min.js": "jquery.min.js",
    "/flot/0.8.3/jquery.flot.min.js": "jquery.flot.js",
    "/flot/0.8.3/jquery.flot.time.min.js": "jquery.flot.time.js",
    "/flot/0.8.3/jquery.flot.selection.min.js": "jquery.flot.selection.js",
    "/flot/0.8.3/jquery.flot.categories.min.js": "jquery.flot.categories.js",
    "/flot-orderbars@1.0.0/js/jquery.flot.orderBars.js": "jquery.flot.orderBars.js",
    "/stupidtable/1.0.1/stupidtable.min.js": "stupidtable.min.js",
    "/blueimp-md5/2.19.0/js/md5.min.js": "md5.min.js",
    "/bootstrap@3.1.1/dist/js/bootstrap.min.js": "bootstrap.min.js",
    "/bootstrap@3.1.1/dist/css/bootstrap.min.css": "bootstrap.min.css",
}

REMOTE = re.compile(r'(<(?:script|link|img)\b[^>]*?\b(?:src|href)=)"((?:https?:)?//[^"]+)"([^>]*)')
PINS = re.compile(r' (?:integrity|crossorigin|referrerpolicy)="[^"]*"')

# For each page: what asv wrote, and what a reader needs.
EDITS = {
    "index.html": [
        # Leave the room in the bar to the name of the benchmark, which otherwise wraps over the panels.
        (
            'alt="swallow"></img>airspeed velocity</a>\n            of an unladen',
            'alt="airspeed velocity"></a>',
        ),
    ],
    "summarygrid.js": [
        # A single commit draws no line: show its point.
        ("[{data: data}], options", "[{data: data, points: {show: data.length < 2}}], options"),
    ],
    "summarylist.js": [
        # Sort by the order of the parameters, where 4 comes before 16.
        (
            "var name_td = $('<td/>');",
            "var name_td = $('<td/>').attr('data-sort-value', row.name + ('' + row.idx).padStart(6, '0'));",
        ),
        (
            "value_td.attr('data-sort-value', -1e99);",
            "value_td.attr('data-sort-value', -1e99).text('\u2014');",
        ),
    ],
    "graphdisplay.js": [
        # Without a public host for commits there is no page to open.
        (
            "if (previous_hash !== commit_hash) {",
            "if (previous_hash !== commit_hash && !$.asv.main_json.show_commit_url.startsWith('#')) {",
        ),
        # Against a parameter, x is no commit: name the curve instead.
        (
            "var commit_hash = get_commit_hash(item.datapoint[0]);\n                    if (commit_hash) {",
            "var commit_hash = x_coordinate_axis == 0 ? get_commit_hash(item.datapoint[0])\n"
            "                        : item.series.label || 'last commit';\n"
            "                    if (commit_hash) {",
        ),
        # Against names, flot-orderbars takes them for numbers and draws nothing: place the bars here.
        ("options.xaxis.mode = 'categories';", "options.xaxis.ticks = [];"),
        (
            """point[0] = $("<span>").text('' + point[0]).html();""",
            """options.xaxis.ticks[j] = [j, $("<span>").text('' + point[0]).html()];\n"""
            "                        point[0] = j + 0.6 * ((i + 0.5) / graphs.length - 0.5);\n"
            "                        graph.bars = {};\n"
            "                        options.xaxis.min = -0.5;\n"
            "                        options.xaxis.max = graph.data.length - 0.5;",
        ),
        # Legend: "K=8", and the commit only where several are shown.
        ('parts.push(key + "-" + value);', 'parts.push(key + "=" + value);'),
        ('different["commit"] = true;', 'if (param_selection[0].length > 1) different["commit"] = true;'),
        # Axis: from zero and with headroom in any unit, in the unit of the largest value, without exponents.
        (
            "if (unit_list !== null) {",
            "if (!zoom_y_axis && min >= 0) {\n"
            "                options.yaxis.min = 0.0;\n"
            "                options.yaxis.max = max * 1.3 || 1;\n"
            "            }\n\n"
            "            if (unit_list !== null) {",
        ),
        ("if (min < unit_list[i+1][2]) {", "if (max < unit_list[i+1][2]) {"),
        (
            "return (v / multiplier).toPrecision(3);",
            "return (v / multiplier).toLocaleString('en', {maximumSignificantDigits: 3});",
        ),
    ],
    "asv.js": [
        # Counters are exact: print every digit. Bytes say that they are bytes.
        ("return '' + x.toPrecision(3) + ' ' + unit;", "return pretty_number(x) + ' ' + unit;"),
        ("return '' + x.toPrecision(3);", "return pretty_number(x);"),
        (
            "function pretty_unit(x, unit) {",
            "function pretty_number(x) {\n"
            "        return Number.isInteger(x) ? x.toLocaleString('en') : x.toPrecision(3);\n"
            "    }\n\n"
            "    function pretty_unit(x, unit) {",
        ),
        ("return x + '';", "return x + ' B';"),
        (
            "return (x / mem_units[i][2]).toFixed(3) + mem_units[i][0];",
            "return (x / mem_units[i][2]).toFixed(3) + ' ' + mem_units[i][0] + 'B';",
        ),
    ],
    "asv_ui.js": [
        (
            '"Perhaps web server has gone down."',
            '"The pages need a web server: python3 -m http.server --directory reports/html"',
        ),
    ],
    "error.html": [
        (
            "Make sure you have an active internet connection and enable 3rd-party scripts\n"
            "      in your browser the first time you load airspeed velocity.",
            "They belong in assets/, beside this page: <code>make dashboard</code> writes them again.",
        ),
    ],
}

BAR = '<li id="nav-li-regressions"><a href="#/regressions">Regressions</a></li>'
REPORTS = (BAR, f'{BAR}<li id="nav-li-reports"><a href="reports/index.html">Reports</a></li>')


def localize(html: str) -> str:
    """Load a page's assets from beside it, and drop the attributes that pin what a network may send."""
    missing = dict(VENDORED)

    def local(match: re.Match) -> str:
        tag, url, rest = match.groups()
        ending = next((ending for ending in missing if url.endswith(ending)), None)
        if ending is None:
            raise UserError(f"asv's page loads {url}, which is not vendored: add it to {ASSETS.name}/.")
        return f'{tag}"{ASSETS.name}/{missing.pop(ending)}"{PINS.sub("", rest)}'

    html = REMOTE.sub(local, html)
    if missing:
        raise UserError(f"asv's page no longer loads {', '.join(missing)}: adapt VENDORED in {__name__}.")
    return html


def substitute(page: Path, old: str, new: str) -> None:
    """Replace the one occurrence of a text in a page."""
    text = page.read_text("utf-8")
    if (count := text.count(old)) != 1:
        raise UserError(f"asv's {page.name} has {old!r} {count} times, not once: adapt EDITS in {__name__}.")
    page.write_text(text.replace(old, new), "utf-8")


def improve(html_dir: Path) -> None:
    """Turn a copy of asv's template into the dashboard."""
    shutil.copytree(ASSETS, html_dir / ASSETS.name, ignore=shutil.ignore_patterns(".*"))
    index = html_dir / "index.html"
    index.write_text(localize(index.read_text("utf-8")), "utf-8")
    for page, edits in EDITS.items():
        for old, new in edits:
            substitute(html_dir / page, old, new)


def add_reports(source: Path, html_dir: Path) -> None:
    """Put the written reports beside the dashboard, and a link to them into its bar."""
    reports = sorted(path.parent for path in source.glob("*/report.json"))
    if not reports:
        return
    for report in reports:
        shutil.copytree(report, html_dir / "reports" / report.name)
    shutil.copy(source / "index.html", html_dir / "reports" / "index.html")
    substitute(html_dir / "index.html", *REPORTS)


class Dashboard(OutputPublisher):
    """The publisher that asv finds and calls."""

    name = "dashboard"
    button_label = "Dashboard"
    description = "Serve every asset from the pages themselves"

    @classmethod
    def publish(cls, conf, repo, benchmarks, graphs, revisions):
        """Improve the pages that asv has just written."""
        html_dir = Path(conf.html_dir)
        improve(html_dir)
        add_reports(html_dir.parent, html_dir)
