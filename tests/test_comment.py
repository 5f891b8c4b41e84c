"""Comments on pull requests: what failed comes first, what was said fits and breaks nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vaebench.support.comments import LONGEST, SHOWN, Section, cell, comment

SCRIPT = Path(__file__).parents[1] / ".github/comment.py"


def run(directory, **outcomes):
    done = subprocess.run(
        [sys.executable, SCRIPT], cwd=directory, env=os.environ | outcomes, capture_output=True, text=True, check=True
    )
    return done.stdout


def test_outcomes_come_first_and_bad_news_is_unfolded(tmp_path):
    (tmp_path / "gate.md").write_text("### 17 counters\n\n| a |\n|---|\n| 1 |\n")
    (tmp_path / "gate.txt").write_text("17 counters, none rose")
    (tmp_path / "compare.txt").write_text("conv: slower, ````` and a fence")
    text = run(tmp_path, GATE="success", COMPARE="failure", CERTIFICATE="skipped")
    assert "| Exact counters | passed |\n| Times beside the base | **failed** |\n| Certificate | **failed** |" in text
    assert "<details><summary>Exact counters</summary>\n\n### 17 counters\n\n| a |" in text and "none rose" not in text
    assert "<details open><summary>Times beside the base</summary>" in text
    assert "``````text\nconv: slower, ````` and a fence\n``````" in text
    assert text.index("Nothing was printed.") > text.index("<details open><summary>Certificate")


def test_of_what_was_printed_the_end_is_kept(tmp_path):
    (tmp_path / "gate.txt").write_text("x" * 100_000 + "the error")
    text = run(tmp_path, GATE="failure", COMPARE="success", CERTIFICATE="success")
    assert 14_000 < text.count("x") < 16_000 and "the error" in text


HEADER = ("what", "before")


def test_a_long_list_is_cut_and_folded():
    text = comment("c", [Section("Worse", HEADER, [(f"m{n}", "1") for n in range(SHOWN + 5)])])
    assert f"**Worse: {SHOWN + 5}**" in text and "<summary>5 more</summary>" in text and f"| m{SHOWN + 4} |" in text


@pytest.mark.parametrize("folded", [False, True])
def test_a_comment_fits_and_says_how_much_is_left_out(folded):
    few = Section("Worse", HEADER, [("rose", "1")])
    text = comment("c", [few, Section("Rest", HEADER, [(f"m{n}", "1") for n in range(5000)], folded)])
    shown = text.count("| m")
    assert LONGEST / 3 < len(text) <= LONGEST and "| rose | 1 |" in text
    assert f"{5000 - shown} more are left out." in text and "Rest: 5000" in text
    assert text.count("<details>") == text.count("</details>") == 1


def test_what_has_no_rows_is_left_out():
    assert comment("c", [Section("Worse", HEADER, [])]) == "### c\n"


@pytest.mark.parametrize(
    ("text", "written"),
    [("a|b", "a\\|b"), ("<img src=x>", "&lt;img src=x&gt;"), ("a_b*c`d", "a\\_b\\*c\\`d"), ("two\nlines", "two lines")],
)
def test_no_name_breaks_the_table(text, written):
    assert cell(text) == written
