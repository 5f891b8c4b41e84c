"""The published pages: what is called a regression, what the first page says, and all of it without a network."""

import hashlib
import html.parser
import json
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path

import asv
import pytest
from asv.util import UserError

from benchmarks.harness.conditions import Conditions, record
from benchmarks.harness.dashboard import changes, charts, overview, pages, reports, runs, standing
from benchmarks.harness.dashboard.charts import Curve, Point
from benchmarks.harness.dashboard.history import Reading, unreadable
from tests.histories import COMMITS, History, git

ROOT = Path(__file__).parents[1]
TEMPLATE = Path(asv.__file__).with_name("www")
RESOURCE = re.compile(r'<(?:script|link|img)\b[^>]*?\b(?:src|href)="([^"]+)"')


@pytest.fixture
def template(tmp_path):
    return Path(shutil.copytree(TEMPLATE, tmp_path / "html"))


def test_pages_load_only_what_lies_beside_them(template):
    pages.improve(template)
    text = (template / "benchmarks.html").read_text("utf-8")
    resources = set(RESOURCE.findall(text)) - {"regressions.xml"}  # asv writes the feed itself
    assert len(resources) > len(pages.VENDORED) + len(pages.OURS)
    assert [name for name in resources if not (template / name).is_file()] == []
    assert "integrity=" not in text and "//" not in (template / "error.html").read_text("utf-8")


def test_ours_is_loaded_after_asvs(template):
    pages.improve(template)
    text = (template / "benchmarks.html").read_text("utf-8")
    assert text.index("vaebench.js") > max(
        text.index(f"{name}.js") for name in ("graphdisplay", "asv_ui", "regressions")
    )


def test_few_texts_of_asv_are_edited():
    assert sum(map(len, pages.EDITS.values())) <= 4


def test_a_new_remote_asset_is_refused():
    text = (TEMPLATE / "index.html").read_text("utf-8")
    with pytest.raises(UserError, match=r"loads //example\.org/new\.js, which is not vendored"):
        pages.localize(text + '<script async src="//example.org/new.js"></script>')


def test_a_moved_asset_is_refused():
    text = (TEMPLATE / "index.html").read_text("utf-8")
    with pytest.raises(UserError, match="which is not vendored"):
        pages.localize(text.replace("jquery-3.3.1", "jquery-3.7.1"))


def test_a_dropped_asset_is_refused():
    with pytest.raises(UserError, match="no longer loads"):
        pages.localize("<html></html>")


def test_an_edit_that_does_not_fit_is_refused(template):
    with pytest.raises(UserError, match=r"error\.html has 'nowhere' 0 times"):
        pages.substitute(template / "error.html", "nowhere", "somewhere")


def test_assets_are_the_ones_that_the_notice_names():
    notice = (pages.ASSETS / "NOTICE.md").read_text("utf-8")
    named = dict(re.findall(r"^\| (\S+\.(?:js|css)) \|.*\| ([0-9a-f]{64}) \|$", notice, re.MULTILINE))
    assert named.keys() == set(pages.VENDORED.values())
    for name, sha256 in named.items():
        assert hashlib.sha256((pages.ASSETS / name).read_bytes()).hexdigest() == sha256, name


def test_reports_are_copied_and_those_in_markdown_become_pages(tmp_path):
    written = tmp_path / "reports"
    for folder in ("peers", "findings", "history/compare", "history/machine", "certificates/mine", "../site"):
        (written / folder).mkdir(parents=True)
    (written / "peers/README.md").write_text(
        "# Peers, `ours`\n\n![cost](cost.svg)\n\n| a |\n|---|\n| 1 |\n\n[all](../FINDINGS.md#one) <script>x</script>\n"
    )
    (written / "findings/beta.svg").write_text("<svg/>")
    (written / "FINDINGS.md").write_text(
        "# Findings\n\n[peers](peers/README.md) [away](https://example.org/a.md)\n\n## Is `a` one?\n"
    )
    (written / "index.html").write_text("<title>All reports</title>")
    (written / "history/compare/README.md").write_text("# Errors of comparisons\n")
    (written / "history/machine/machine.json").write_text("{}")
    (written / "certificates/mine/index.html").write_text("<title>mine is certified</title>")
    (tmp_path / "site/index.html").write_text("<title>Home</title>")
    site = written / "html"
    site.mkdir()
    found = reports.copy(tmp_path, site)
    assert found.reports == [
        ("Findings", "reports/FINDINGS.html"),
        ("All reports", "reports/index.html"),
        ("Peers, ours", "reports/peers/index.html"),
        ("Errors of comparisons", "reports/history/compare/index.html"),
    ]
    assert found.certificates == [("mine is certified", "reports/certificates/mine/index.html")]
    assert found.pictures == [("beta", "reports/findings/beta.svg")]
    assert found.documentation == ("Documentation", "documentation/index.html")
    everything = [*found.reports, *found.certificates, *found.pictures, found.documentation]
    assert all((site / one.address).is_file() for one in everything)
    page = (site / "reports/peers/index.html").read_text("utf-8")
    assert '<a href="cost.svg"><img src="cost.svg" alt="cost" /></a>' in page  # small ones can be looked at alone
    assert "<td>1</td>" in page and 'href="../FINDINGS.html#one"' in page and "<script>" not in page
    assert 'href="../../overview.css"' in page
    findings = (site / "reports/FINDINGS.html").read_text("utf-8")
    assert 'href="peers/index.html"' in findings and 'href="https://example.org/a.md"' in findings
    assert '<h2 id="is-a-one">Is <code>a</code> one?</h2>' in findings
    assert not list(site.rglob("machine.json"))


def test_every_link_of_the_published_reports_leads_to_a_file_and_a_heading(tmp_path):
    shutil.copytree(ROOT / "reports", tmp_path / "reports", ignore=shutil.ignore_patterns("html"))
    site = tmp_path / "html"
    site.mkdir()
    (site / "index.html").write_text("<title>Overview</title>")
    shutil.copy(ROOT / "benchmarks/harness/dashboard/overview.css", site)
    found = reports.copy(tmp_path, site)
    assert len(found.reports) > 5 and found.certificates and len(found.pictures) > 5 and found.documentation is None
    pages = [*(site / "reports").glob("*.html"), *(site / "reports").rglob("index.html")]
    for page in pages:
        for path, _, heading in (address.partition("#") for address in addresses(page)):
            target = page.parent / path if path else page
            assert target.is_file(), f"{page.relative_to(site)} links {path}"
            assert not heading or f'id="{heading}"' in target.read_text("utf-8"), f"{page} links {path}#{heading}"


def addresses(page):
    """Those that lead to other files of the site."""
    found = Links()
    found.feed(page.read_text("utf-8"))
    return [address for address in found.addresses if not re.match(r"[a-z]+:", address)]


class Links(html.parser.HTMLParser):
    """Collects addresses."""

    def __init__(self):
        super().__init__()
        self.addresses = []

    def handle_starttag(self, tag, attrs):
        self.addresses += [value for name, value in attrs if name in {"href", "src"}]


@pytest.fixture
def history(tmp_path):
    return History(tmp_path)


def test_timings_of_a_busy_machine_are_no_regressions_and_are_marked(history):
    for number in range(COMMITS):
        busy = number >= COMMITS - 2
        history.measure(number, "one", others=1.8 if busy else 0.0, time_step=[0.065 if busy else 0.01])
    assert history.regressions() == []
    assert history.page.count("other processes used 1.8 cores") == 2


def test_timings_of_runs_of_which_nothing_is_known_are_no_regressions(history):
    for number in range(COMMITS):
        history.measure(number, "one", conditions=False, time_step=[0.01 * 1.5**number])
    assert history.regressions() == []
    assert "no timing is believed" in history.page


def test_an_exact_rise_is_listed_once_for_all_machines_and_says_where(history):
    for number in range(4):
        for machine in ("one", "two"):
            history.measure(number, machine, track_ops=[100, 200 + 30 * (number >= 2)])
    ((case, graph, params, index, last, best, jumps),) = history.regressions()
    assert (case, index, last, best) == ("models.Model.track_ops('conv')", 1, 230, 200)
    assert (history.folder / "reports/html" / graph).is_file() and params["machine"] in {"one", "two"}
    ((since, until, before, after),) = jumps
    places = json.loads((history.folder / "reports/html/index.json").read_text())["revision_to_hash"]
    assert places[str(until)] == history.commits[2] and places[str(since)] == history.commits[1]
    assert (before, after) == (200, 230)
    assert "rises that nobody has explained" in history.page


def test_a_rise_with_a_reason_is_no_regression_and_the_reason_is_told(history):
    for number in range(4):
        history.measure(number, "one", track_ops=[100, 200 + 30 * (number >= 2)])
    entry = f'[[moved]]\ncommit = "{history.commits[2][:9]}"\nbenchmarks = ["models.*"]\nreason = "Faster & dearer."\n'
    (history.folder / "benchmarks").mkdir()
    (history.folder / "benchmarks" / "triage.toml").write_text(entry)
    assert history.regressions() == []
    assert "Faster &amp; dearer." in history.page and "200 operations → 230 operations" in history.page


def test_a_reason_for_a_commit_that_is_not_here_is_told(history):
    history.measure(0, "one")
    (history.folder / "benchmarks").mkdir()
    entry = '[[moved]]\ncommit = "0123456789"\nbenchmarks = ["models.*"]\nreason = "Faster."\n'
    (history.folder / "benchmarks" / "triage.toml").write_text(entry)
    assert history.regressions() == []
    assert "gives reasons for 0123456789, which is no commit here" in history.page


def test_machines_with_different_counts_are_not_taken_for_a_change(history):
    """The second machine is first measured at the last commit."""
    for number in range(4):
        history.measure(number, "one")
    history.measure(3, "two", track_ops=[100, 260])
    assert history.regressions() == []


def test_results_of_the_last_digits_are_not_taken_for_a_change(history):
    for number in range(4):
        history.measure(number, "one", track_envelope_ratio=[0.93 + 1e-9 * number, 0.88])
    assert history.regressions() == [] and "None has moved" in history.page


def test_a_counter_that_fell_is_told_and_is_no_regression(history):
    for number in range(3):
        history.measure(number, "one", track_ops=[100, 200 - 50 * (number == 2)])
    assert history.regressions() == []
    assert "200 operations → 150 operations" in history.page and "-25 %" in history.page and "fell" in history.page


def test_a_commit_that_is_measured_again_counts_by_its_last_run(history):
    for number in range(3):
        history.measure(number, "one")
    history.measure(2, "one", others=2.0, time_step=[0.09])
    (again,) = [one for one in history.readings() if one.benchmark.endswith("time_step") and one.revision == 2]
    assert again.value == 0.09 and again.doubt == "other processes used 2.0 cores"


def test_a_timing_is_doubted_if_any_run_that_went_on_then_was_busy(history):
    history.measure(0, "one")
    record(Conditions(history.commits[0], 0.0, 3600.0, (0.1, 1.0), 1.5, 0.01), history.results / "one")
    assert {one.doubt for one in history.readings()} == {"other processes used 1.5 cores"}


def test_what_a_machine_says_of_itself_besides_does_not_begin_another_history(history):
    for number in range(3):
        history.measure(number, "one", about={"swap": f"{number}GiB"})
    assert {one.environment for one in history.readings()} == {("python 3.11",)}


def test_a_benchmark_of_another_version_begins_another_history(history):
    for number in range(4):
        history.measure(number, "one", version="1" if number < 2 else "2")
    assert {one.revision for one in history.readings()} == {0, 1}
    history.list_version("2")
    assert {one.revision for one in history.readings()} == {2, 3}


@pytest.mark.parametrize("damage", ["old", "newer", "cut"])
def test_files_that_cannot_be_read_are_left_out_and_counted(history, damage):
    for number in range(3):
        history.measure(number, "one")
    path = history.results / "one" / f"{history.commits[1][:8]}-e.json"
    text = path.read_text()
    named = {"old": '"version": 1', "newer": '"version": 3'}
    path.write_text(text.replace('"version": 2', named[damage]) if damage in named else text[: len(text) // 2])
    assert unreadable(str(history.results)) == 1
    assert {one.revision for one in history.readings()} == {0, 2}


def test_the_first_page_says_what_is_missing_and_how_old_the_guarantee_is(history):
    history.measure(0, "one", track_envelope_ratio=[None, 0.88])
    history.measure(1, "one", track_envelope_ratio=None)
    path = history.results / "one" / f"{history.commits[2][:8]}-e.json"
    path.write_text("{")
    history.regressions()
    assert "1 of 2 settings have no value" in history.page and "the guarantee holds" not in history.page
    assert f'results is <span class="commit">{history.commits[1][:8]}' in history.page
    assert f"Last measured at {history.commits[0][:8]}" in history.page
    assert "files of results that asv cannot read (1)" in history.page


@pytest.mark.parametrize(
    ("values", "worst", "missing"),
    [
        ([0.93, 0.88], 0.93, 0),
        ([math.inf, 0.88], math.inf, 0),
        ([math.nan, 0.88], 0.88, 1),
        ([None, 0.88], 0.88, 1),
        ([None, math.nan], None, 2),
    ],
)
def test_how_the_guarantee_stands_is_what_the_last_commit_says(history, values, worst, missing):
    history.measure(0, "one")
    history.measure(1, "one", track_envelope_ratio=values)
    found = standing.standing(history.readings(), standing.ENVELOPE)
    assert (found.worst, found.missing, found.settings, found.commit) == (worst, missing, 2, history.commits[1])


def test_the_worst_of_two_machines_counts(history):
    history.measure(0, "one", track_envelope_ratio=[1.02, 0.88])
    history.measure(0, "two")
    assert standing.standing(history.readings(), standing.ENVELOPE).worst == 1.02


def test_the_fence_that_is_shown_is_the_one_that_counts(history):
    times = [1.00, 1.01, 0.99, 1.02, 1.00, 0.98, 1.01, 1.00]
    readings = [
        Reading("a.time_b", "a.time_b", None, {}, value, None, "c" * 40, number, "one", ("torch 2",), "")
        for number, value in enumerate([*times, 2.0, 2.0, 2.0])
    ]
    (shown,) = runs.timings(readings, {})
    assert shown.fence == changes.fence(times) and shown.runs == 11
    (short,) = runs.timings(readings[:-1], {})
    assert short.fence is None
    newer = replace(readings[0], environment=("torch 3",), revision=99)
    assert [(one.value, one.runs) for one in runs.timings([*readings, newer], {})] == [(1.0, 1)]


def test_a_lost_benchmark_is_told(history):
    for number in range(3):
        history.measure(number, "one", track_ops=[100, 200 if number < 2 else float("nan")])
    assert history.regressions() == []
    assert "benchmarks that once had a value have none now" in history.page
    assert "models.Model.track_ops(&#39;conv&#39;)" in history.page
    (history.folder / "benchmarks").mkdir()
    entry = '[[gone]]\nbenchmarks = ["*conv*"]\nreason = "It is no model any more."\n'
    (history.folder / "benchmarks" / "triage.toml").write_text(entry)
    history.regressions()
    assert "have none now" not in history.page


@pytest.mark.parametrize(("ratio", "says"), [(0.93, "the guarantee holds"), (1.02, "violated")])
def test_the_first_page_says_how_the_guarantee_stands(history, ratio, says):
    for number in range(3):
        history.measure(number, "one", track_envelope_ratio=[ratio, 0.88])
    history.regressions()
    assert says in history.page and f"{ratio:.3f}" in history.page
    assert "limit 1" in history.page and "On the frontier" in history.page


class Strict(Links):
    """Every element that is opened is closed, in order."""

    EMPTY = {"meta", "link", "br", "img"}  # noqa: RUF012 - never changed

    def __init__(self):
        super().__init__()
        self.open = []

    def handle_starttag(self, tag, attrs):
        super().handle_starttag(tag, attrs)
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        super().handle_starttag(tag, attrs)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_first_page_is_well_formed_and_loads_and_links_what_is_there(history):
    for number in range(4):
        history.measure(number, "one", track_ops=[100, 200 + number])
    (history.folder / "reports" / "FINDINGS.md").write_text("# What was found\n")
    history.regressions()
    page = Strict()
    page.feed(history.page)
    assert page.open == []
    site = history.folder / "reports" / "html"
    files = {address.partition("#")[0] for address in page.addresses} - {""}
    assert "reports/FINDINGS.html" in files and all((site / name).is_file() for name in files)
    anchors = {address[1:] for address in page.addresses if address.startswith("#")}
    assert anchors <= set(re.findall(r'id="([^"]+)"', history.page))


def test_a_shallow_clone_is_refused(history, tmp_path):
    for number in range(4):
        history.measure(number, "one")
    git(history.folder, "add", "-A")
    git(history.folder, "commit", "-qm", "results")
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", "--depth", "1", history.folder.as_uri(), str(clone))
    done = history.publish(clone)
    assert done.returncode != 0
    assert "This clone is shallow: 4 of 4 commits with results are not in it" in done.stdout + done.stderr


def test_the_frontier_is_what_nothing_beats_in_both():
    points = [Point(1, 5, "a"), Point(2, 3, "b"), Point(2, 4, "c"), Point(3, 3, "d"), Point(4, 1, "e")]
    assert [point.title for point in charts.frontier(points)] == ["a", "b", "e"]


def test_axes_place_their_ends_and_have_round_ticks():
    axis = charts.Axis(1, 100, True, 0, 200)
    assert [axis.at(value) for value in (1, 10, 100)] == pytest.approx([0, 100, 200])
    assert axis.ticks() == pytest.approx([1, 3, 10, 30, 100])
    assert charts.Axis(0, 1.04, False, 0, 1).ticks() == pytest.approx([0, 0.5, 1.0])


def test_names_are_escaped_in_pictures():
    drawn = charts.over_commits([Curve("<b>", [Point(0, 1.0, '"><script>')])], ["c" * 8], "u", False, None)
    assert "<script>" not in drawn and "<b>" not in drawn + charts.legend([Curve("<b>", [Point(0, 1.0, "")])])


@pytest.mark.parametrize(
    ("value", "unit", "written"),
    [
        (788_766_720, "FLOPs", "789 M FLOPs"),
        (330, "operations", "330 operations"),
        (45_210_900, "bytes", "45.2 MB"),
        (0.0123, "seconds", "12.3 ms"),
        (0.92522, "measured / bound", "0.925 measured / bound"),
        (4.2e-5, "", "4.2e-05"),
    ],
)
def test_numbers_are_written_with_their_units(value, unit, written):
    assert overview.of_unit(value, unit) == written
