"""The findings say what their tables say: rows, tests, and that every page in reports/ is what its tables make."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from benchmarks.findings.__main__ import compared, main
from benchmarks.pages.__main__ import main as write_pages

REPORTS = Path(__file__).parents[1] / "reports"
TEXT = (REPORTS / "FINDINGS.md").read_text("utf-8")
COLUMNS = {
    "‖∇f‖²": "|grad|^2",
    "‖∇f‖² at the end": "|grad|^2",
    "Tₙ": "T_n",
    "negative bound, test": "negative bound, test",
    "log-likelihood, test": "log-likelihood, test",
}
STUDIES = {"ReLU": "activations", "SGD": "optimizers", "K": "samples", "B": "batch", "beta": "beta"}


def tables():
    """Header and rows of each table of the page."""
    for block in re.findall(r"(?:^\|.*\n)+", TEXT, re.MULTILINE):
        header, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines())
        yield header, rows


def study_of(header, rows):
    return STUDIES.get(header[0]) or STUDIES[re.split("[ ,]", rows[0][0])[0]]


def test_every_row_is_that_of_the_studys_table():
    checked = 0
    for header, rows in tables():
        arms = pd.read_csv(REPORTS / "findings" / f"{study_of(header, rows)}.csv")
        assert len(arms) == len(rows)
        for row, (_, arm) in zip(rows, arms.iterrows(), strict=True):
            for name, cell in zip(header, row, strict=True):
                if name in COLUMNS:
                    value, error = cell.replace(",", "").split(" ± ")
                    half = 0.5 * 10.0 ** -len(value.partition(".")[2])
                    assert abs(float(value) - arm[COLUMNS[name]]) <= half * 1.01, (name, row)
                    assert abs(float(error) - arm[f"{COLUMNS[name]}, standard error"]) <= half * 1.01, (name, row)
                    checked += 1
    assert checked > 60


def test_what_is_quoted_of_the_tests_is_in_their_table():
    found = pd.read_csv(REPORTS / "findings" / "tests.csv").set_index(["study", "quantity", "arm", "other arm"])
    quoted = {
        ("activations", "negative bound, test", "ReLU", "SoftClip s=1"): 0.013,
        ("activations", "negative bound, test", "SoftClip s=1", "SoftClip s=10"): 0.043,
        ("activations", "log-likelihood, test", "ReLU", "SoftClip s=1"): 0.0001,
        ("activations", "log-likelihood, test", "ReLU", "SoftClip s=2"): 0.0023,
        ("optimizers", "T_n", "amsgrad C=0.003", "rmsprop C=0.001"): 0.018,
        ("batch", "T_n", "B=8", "B=128"): 0.036,
        ("batch", "T_n", "B=8", "B=512"): 0.027,
        ("batch", "T_n", "B=32", "B=512"): 0.0049,
        ("beta", "T_n", "beta=0.25", "beta=4.0"): 0.02,
        ("beta", "T_n", "beta=0.5", "beta=4.0"): 0.032,
        ("beta", "log-likelihood, test", "beta=0.25", "beta=0.5"): 0.00048,
        ("beta", "log-likelihood, test", "beta=0.5", "beta=1.0"): 0.039,
        ("bbvi", "T_n", "pathwise", "leave_one_out"): 0.0019,
    }
    for pair, probability in quoted.items():
        assert found.loc[pair, "p"] == pytest.approx(probability, rel=0.08)
        assert found.loc[pair, "verdict"] == "settled" and f"{probability:g}" in TEXT
    settled = {pair[:2] for pair in found.index[found["verdict"] == "settled"]}
    assert {pair[1] for pair in settled if pair[0] == "activations"} == {"negative bound, test", "log-likelihood, test"}
    assert ("beta", "negative bound, test") not in settled


def test_two_arms_are_compared_by_welchs_test_and_settled_below_a_twentieth():
    x, y = np.random.default_rng(0).standard_normal((2, 5))
    y += 3.0
    columns = {"T_n": [x.mean(), y.mean()], "T_n, standard error": [stats.sem(x), stats.sem(y)]}
    (row,) = compared("any", pd.DataFrame({"arm": ["a", "b"], "kept seeds": [5, 5]} | columns))
    assert float(str(row["p"])) == pytest.approx(stats.ttest_ind(x, y, equal_var=False).pvalue, rel=0.06)
    assert row["verdict"] == "settled"
    (row,) = compared("any", pd.DataFrame({"arm": ["a", "b"], "kept seeds": [5, 5]} | columns | {"T_n": [0.0, 0.1]}))
    assert row["verdict"] == "not settled"


def test_the_tests_are_those_of_the_tables(tmp_path):
    for path in (REPORTS / "findings").glob("*.csv"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "tests.csv").unlink()
    main(tmp_path)
    assert (tmp_path / "tests.csv").read_text() == (REPORTS / "findings" / "tests.csv").read_text()


def test_every_page_is_what_its_tables_make(tmp_path):
    """A page changed by hand, or a writer changed without its page, is seen here; `make pages` writes them again."""
    kept = [path for path in REPORTS.rglob("*") if path.suffix in (".md", ".csv")]
    for path in kept:
        target = tmp_path / path.relative_to(REPORTS)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    write_pages(tmp_path)
    for path in kept:
        assert (tmp_path / path.relative_to(REPORTS)).read_text("utf-8") == path.read_text("utf-8"), path.name


@pytest.mark.parametrize("page", ["FINDINGS.md", "PERFORMANCE.md", "peers/README.md", "faults/README.md"])
def test_a_page_gives_its_answer_first(page):
    lines = (REPORTS / page).read_text("utf-8").splitlines()
    assert lines[0].startswith("# ") and lines[2].startswith("* ")
    assert all(
        (REPORTS / page).parent.joinpath(link).exists() for link in re.findall(r"\]\(([^)#:]+)", "\n".join(lines))
    )
