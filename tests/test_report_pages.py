"""The page of a study of five arms and five seeds, and what it says where something failed or diverged."""

import io
import json
import math
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from tests.studies import LABELS, study
from vaebench.report import panels, write, write_contents, write_index
from vaebench.report.bands import Band, on_log_axis
from vaebench.report.figures import AxisScale, Curve, below_zero, draw, svg
from vaebench.report.study import results
from vaebench.report.tables import csv
from vaebench.report.wording import estimate

HOSTILE = "_<script>alert('$x_{')</script> & \"s\"=$2"
NAMESPACES = {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}


class Page(HTMLParser):
    """Text, ids and addresses of a page."""

    def __init__(self, text: str):
        super().__init__()
        self.words, self.ids, self.addresses = [], [], []
        self.feed(text)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.ids += [found["id"]] if "id" in found else []
        self.addresses += [found[name] for name in ("href", "src") if name in found]

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """Five arms of five seeds: one fails a check, of one two seeds diverged, and one label is hostile."""
    given = study(*LABELS[:4], HOSTILE, failing=LABELS[2], diverging=LABELS[1])
    return given, write(*given, tmp_path_factory.mktemp("full") / "report")


@pytest.fixture(scope="module")
def page(full):
    return Page(full[1].read_text("utf-8"))


@pytest.fixture
def undrawn(monkeypatch):
    """Reports without drawing, which takes its time."""
    monkeypatch.setattr(panels, "svg", lambda *_: "<svg><g/></svg>")
    monkeypatch.setattr("vaebench.report.page.png", lambda _: b"")


def words(path: Path) -> str:
    return Page(path.read_text("utf-8")).text


def test_a_page_needs_nothing_but_what_lies_beside_it(full, page):
    texts = [path.read_text("utf-8") for path in full[1].parent.rglob("*") if path.suffix in (".html", ".svg")]
    assert set(re.findall(r"https?://[^\"'< )]*", "".join(texts))) == NAMESPACES
    for address in page.addresses:
        if address.startswith("#"):
            assert address[1:] in page.ids
        else:
            assert address == "data:," or (full[1].parent / address).is_file(), address
    assert len(set(page.ids)) == len(page.ids)


def test_five_arms_of_five_seeds_take_less_than_a_megabyte(full):
    assert sum(path.stat().st_size for path in full[1].parent.rglob("*") if path.is_file()) < 1e6


def test_every_number_is_on_the_page_and_in_the_tables(full, page):
    (asked, _, summaries), path = full
    table = pd.read_csv(path.parent / "tables" / "arms.csv", index_col="arm")
    for arm in asked.arms:
        summary = summaries[arm.hash]
        for name, found in summary.final.items():
            assert estimate(found) in page.text
            assert table.loc[arm.label, name] == pytest.approx(found.value, rel=1e-7)
            assert table.loc[arm.label, f"{name}, standard error"] == pytest.approx(found.error, rel=1e-7)
        assert f"{summary.cost['operations per step']:.0f}" in page.text
    curves = pd.read_csv(next((path.parent / "tables").glob("relu-*.csv"))).set_index("quantity")
    np.testing.assert_allclose(curves.loc["|grad|^2", "low"], summaries[asked.arms[0].hash].gradient.low, rtol=1e-7)


def test_counts_of_checks_and_seeds_are_in_the_tables(full):
    """Five arms: 2 of 10 checks failed, and 2 of 25 runs diverged."""
    table = pd.read_csv(full[1].parent / "tables" / "arms.csv", index_col="arm")
    sums = table[["checks", "failed checks", "seeds", "kept seeds"]].sum()
    assert sums.tolist() == [10, 2, 25, 23]


def test_no_cell_begins_a_formula():
    """Each of the six that a spreadsheet takes for the beginning of one stands behind an apostrophe; no other text."""
    cells = ["=1", "+1", "-1", "@a", "\ta", "\ra", "a=1"]
    found = pd.read_csv(io.BytesIO(csv(pd.DataFrame({"text": cells, "number": [-1.0] * 7}))), lineterminator="\n")
    assert found["text"].tolist() == [*(f"'{cell}" for cell in cells[:6]), "a=1"]
    assert found["number"].tolist() == [-1.0] * 7


def test_the_first_screen_says_what_was_asked_what_came_out_and_whether_to_trust_it(page):
    first = page.text[: page.text.index("All arms side by side")]
    assert "Does a smoother activation make the gradient of a VAE vanish faster?" in first
    assert "is lowest with ReLU" in first and "a clear difference (5 equal arms" in first
    assert "✗ 8 of 10 checks passed, 2 FAILED, 2 of 25 runs diverged" in first
    assert "SoftClip s=2 fails “envelope”. Claimed: Tₙ stays below the bound. Measured 20.6, at most 7.17" in first


def test_a_failed_check_lies_open_and_a_passed_one_is_one_click_below(full):
    html = full[1].read_text("utf-8")
    found = re.findall(r"<details( open)?>\s*<summary><span class=\"(\w+)\">.*?</span> (\w+)</span>", html, re.DOTALL)
    assert sorted(set(found)) == [("", "good", "Passed"), (" open", "bad", "FAILED")]
    assert [state for _, state, _ in found].count("bad") == 2 and len(found) == 10


def test_a_diverged_arm_is_shown_and_said(page):
    assert "2 of 5 seeds diverged: seed 1 seen at step 401; seed 3 seen at step 403. All means" in page.text


def test_hostile_labels_are_text(full, page):
    assert HOSTILE in page.text
    for path in full[1].parent.rglob("*.*"):
        if path.suffix in (".html", ".svg"):
            assert "<script>alert" not in path.read_text("utf-8")
        if path.suffix == ".svg":
            ElementTree.parse(path)
    assert "".join(ElementTree.parse(full[1].parent / "figures" / "overview.svg").getroot().itertext()).count("$") == 2


def test_estimates_below_zero_are_left_out_of_a_logarithmic_axis():
    step, mean = np.array([0, 1, 2, 3, 4]), np.array([5.0, 2.0, -1.0, 0.5, math.nan])
    curve = Curve("a", Band(step, mean, mean - 3, mean + 1), 0)
    drawn = svg(draw([curve], AxisScale("b")), "a")
    assert "nan" not in drawn.lower() and "no value to draw" not in drawn
    assert below_zero([curve], AxisScale("b")) == 1 and below_zero([curve], AxisScale("b", False)) == 0
    nothing = draw([Curve("a", Band(step, -np.abs(mean), mean, mean), 0)], AxisScale("b"))
    assert "no value to draw" in svg(nothing, "a")


def test_a_band_on_a_logarithmic_axis_never_reaches_zero():
    mean = np.array([10.0, 1.0, -1.0, 2.0])
    width = np.array([1.0, 5.0, 1.0, 0.0])
    found = on_log_axis(Band(np.arange(4), mean, mean - width, mean + width))
    # 10 exp(0.1) and 10 exp(-0.1); exp(5) and exp(-5), where the band itself reaches down to -4
    np.testing.assert_allclose(found.high, [11.0517092, 148.4131591, np.nan, 2.0], rtol=1e-8)
    np.testing.assert_allclose(found.low, [9.0483742, 0.0067379470, np.nan, 2.0], rtol=1e-7)
    np.testing.assert_allclose(found.mean, [10.0, 1.0, np.nan, 2.0])


def test_a_smoke_run_draws_no_conclusion(undrawn, tmp_path):
    asked, *rest = study("ReLU", "Tanh")
    page = words(write(asked, *rest, tmp_path / "a"))
    path = write(replace(asked, scale="smoke"), *rest, tmp_path / "b")
    assert "a clear difference" in page and "Smoke run" not in page
    smoke = words(path)
    assert "Smoke run: it tries the machinery. No conclusion is drawn" in smoke
    for text in (
        smoke,
        words(write_index(tmp_path)).split("No conclusion.")[1],
        path.with_name("report.json").read_text(),
    ):
        assert "clear difference" not in text and "is lowest with" not in text


def test_seconds_that_were_measured_beside_other_work_are_marked(undrawn, tmp_path):
    asked, trajectories, summaries = study("ReLU", "Tanh")
    summaries = {name: replace(one, cost={"seconds per step": 0.0123}) for name, one in summaries.items()}
    alone = words(write(asked, trajectories, summaries, tmp_path / "a"))
    assert "0.0123" in alone and "†" not in alone and "beside other work" not in alone
    busy, unknown = (trajectories[arm.hash].metadata for arm in asked.arms)
    busy["load"] = 2.4
    del unknown["load"]
    page = words(write(asked, trajectories, summaries, tmp_path / "b"))
    assert page.count("0.0123 †") == 2 and "† Seconds were measured beside other work, or nobody knows" in page
    assert "(measured beside other work: the load average was 2.4, its own share 1)" in page
    assert "(whether other work ran beside it was not recorded)" in page


def test_the_page_says_how_long_training_took_on_what(undrawn, tmp_path):
    asked, trajectories, summaries = study("ReLU", "Tanh")
    for one in trajectories.values():
        one.metadata["cost"] = {"seconds per step": 90.0}  # two arms of 60 steps
    text = words(write(asked, trajectories, summaries, tmp_path / "a"))
    assert "training took 3 hours on cpu (x86_64), one arm after the other; measuring is not counted" in text
    assert "digits, mlp_vae, adam, 60 steps, step sizes 0.03 / √n, float64" in text


def test_where_the_envelope_was_fitted_is_shaded_and_said():
    asked, trajectories, summaries = study("ReLU")
    (one,) = results(asked, trajectories, summaries)
    fitted = replace(one.summary, envelope=one.summary.envelope._replace(fitted=800))
    with_ground = next(panel for panel in panels.of_arm(replace(one, summary=fitted)) if panel.name.endswith("running"))
    without = next(panel for panel in panels.of_arm(one) if panel.name.endswith("running"))
    assert "On the grey ground it does so by construction" in with_ground.caption and "#ececec" in with_ground.svg
    assert "grey ground" not in without.caption and "#ececec" not in without.svg


def test_an_arm_that_diverged_wholly_is_said_everywhere(undrawn, tmp_path):
    text = words(write(*study("ReLU", "Tanh", lost="Tanh"), tmp_path / "report"))
    assert "Tanh: 5 of 5 seeds diverged, first seed 0, seen at step 400. It has no numbers." in text
    assert "with ReLU, the only arm with a finite result" in text
    assert "Not drawn, because every seed diverged: Tanh." in text
    only = words(write(*study("Tanh", lost="Tanh"), tmp_path / "only"))
    assert "No arm has a finite result." in only and "✗ No checks were made, 5 of 5 runs diverged" in only


def test_no_checks_is_not_good(undrawn, tmp_path):
    asked, trajectories, summaries = study("ReLU")
    summaries = {key: replace(summary, verdicts=()) for key, summary in summaries.items()}
    path = write(asked, trajectories, summaries, tmp_path / "report")
    assert "? No checks were made" in words(path)
    assert json.loads((path.parent / "report.json").read_text("utf-8"))["state"] == "unknown"


def test_arms_from_different_or_changed_code_are_said(undrawn, tmp_path):
    asked, trajectories, summaries = study("ReLU", "Tanh")
    trajectories[asked.arms[1].hash].metadata["commit"] = "deadbeef+"
    text = words(write(asked, trajectories, summaries, tmp_path / "report"))
    assert "different commits: caaf8641 and deadbeef+." in text and "had been changed since" in text
    assert "vaebench run activations --scale default" in text and "cpu (x86_64)" in text


def test_a_report_that_cannot_take_its_place_leaves_the_one_before(undrawn, tmp_path, monkeypatch):
    directory, rename = tmp_path / "report", Path.rename
    before = write(*study("ReLU"), directory).read_bytes()

    def refuse(path, target):
        if path.name.endswith(".new"):
            raise KeyboardInterrupt
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", refuse)
        with pytest.raises(KeyboardInterrupt):
            write(*study("Tanh"), directory)
    assert (directory / "index.html").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["report"]
    assert "Tanh" in words(write(*study("Tanh"), directory))
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


def test_an_arm_without_a_summary_that_did_not_diverge_is_refused(tmp_path):
    asked, trajectories, _ = study("ReLU")
    with pytest.raises(ValueError, match="has no summary, though not every seed diverged"):
        write(asked, trajectories, {}, tmp_path / "report")
    assert not any(tmp_path.iterdir())


def test_the_index_passes_over_what_is_no_report_and_escapes_what_is(undrawn, tmp_path):
    assert "There are no reports yet." in words(write_index(tmp_path))
    write(*study("ReLU", "Tanh", failing="Tanh"), tmp_path / "first")
    asked, *rest = study(HOSTILE)
    write(replace(asked, question=f"{HOSTILE}?"), *rest, tmp_path / "second")
    shutil.copytree(tmp_path / "second", tmp_path / ".second.1.new")
    (tmp_path / "faults").mkdir()
    found = Page(write_index(tmp_path).read_text("utf-8"))
    assert [name for name in found.addresses if name != "data:,"] == ["first/index.html", "second/index.html"]
    assert "✗ 3 of 4 checks passed, 1 FAILED" in found.text and "✓ 2 of 2 checks passed" in found.text
    assert f"{HOSTILE}?" in found.text and "2 arms, 10 runs; commit caaf8641" in found.text


def test_a_directory_with_any_name_is_linked_not_run(tmp_path):
    for name in ("a#b?c", "javascript:alert(1)", "x' onclick='y"):
        write(*study("ReLU", "Tanh"), tmp_path / name)
    text = write_index(tmp_path).read_text("utf-8")
    assert 'href="a%23b%3Fc/index.html"' in text and 'href="javascript%3Aalert%281%29/index.html"' in text
    assert "onclick='" not in text and 'href="javascript:' not in text


def test_the_contents_list_every_page_in_markdown_with_what_it_says_first(tmp_path):
    for name, text in {
        "FINDINGS.md": "# Found\n\n* **A** is\n  [b](c.md).\n* D.\n\nMore.",
        "ABC.md": "# First\n\nx",
    }.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "peers").mkdir()
    (tmp_path / "peers" / "README.md").write_text("# Peers\n\nThey are\nfine.\n")
    (tmp_path / "certificates" / "mine").mkdir(parents=True)
    (tmp_path / "certificates" / "mine" / "certificate.md").write_text("### ✅ mine is certified.\n\n| | |\n")
    text = write_contents(tmp_path).read_text("utf-8")
    assert write_contents(tmp_path).read_text("utf-8") == text
    assert text.index("[Found](FINDINGS.md)") < text.index("[First](ABC.md)") < text.index("[Peers](peers/README.md)")
    assert "## [Certificate of mine](certificates/mine/certificate.md)\n\n✅ mine is certified.\n" in text
    assert "A is b. D." in text and "They are fine." in text and "More." not in text
    assert "Peers" in words(write_index(tmp_path))


def test_letters_have_their_size_in_whatever_style_a_figure_was_made():
    figure = Figure()
    figure.text(0.5, 0.5, "a", size=10)
    figure.text(0.5, 0.2, "b", size=12, family=["DejaVu Sans", "Verdana"])
    sizes = re.findall(r'<text style="([^"]*)"', svg(figure, "letters"))
    assert len(sizes) == 2 and all(re.fullmatch(r"font-size: 1[02]px(; text-anchor: \w+)?", one) for one in sizes)
