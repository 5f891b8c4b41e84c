"""The documentation says what is true: its code runs and prints what stands there, its names and commands exist."""

import ast
import contextlib
import hashlib
import importlib
import io
import json
import os
import re
import shlex
import subprocess
import tomllib
from functools import cache
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

import vaebench
from vaebench.cli import app

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
WRITTEN = [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
FENCE = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```", re.DOTALL | re.MULTILINE)
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?")
LIBRARIES = ("pyro", "numpyro", "tensorboard")  # pages that need one of these are run where it is installed


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, *languages: str) -> list[tuple[str, str]]:
    return [(kind, text) for kind, text in FENCE.findall(page.read_text("utf-8")) if kind in languages]


def files_of(page: Path) -> dict[str, str]:
    """Python blocks whose paragraph above says which file they are, as "`mine.py`, all that is needed"."""
    text, found = page.read_text("utf-8"), {}
    for block in FENCE.finditer(text):
        named = re.findall(r"`(\w+\.py)`", text[: block.start()].rstrip().rpartition("\n\n")[2])
        if named and block[1] == "python":
            found[named[-1]] = block[2]
    return found


def same(printed: str, shown: str) -> bool:
    """Whether two texts differ in their numbers only, and those by less than 5 %: processors round differently."""
    texts = [NUMBER.sub("#", text).split() for text in (printed, shown)]
    numbers = [[float(number) for number in NUMBER.findall(text)] for text in (printed, shown)]
    return texts[0] == texts[1] and numbers[0] == pytest.approx(numbers[1], rel=0.05, abs=1e-12)


def commands(page: Path) -> list[list[str]]:
    """Command lines in the page's shell blocks, without their comments and redirections."""
    text = "\n".join(text for _, text in blocks(page, "sh")).replace("\\\n", " ")
    found = [part for line in text.splitlines() for part in re.split(r"&&|\|", line)]
    return [words for part in found if (words := shlex.split(part, comments=True))]


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=name_of)
def test_the_code_runs_and_prints_what_stands_there(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for name, text in files_of(page).items():
        (tmp_path / name).write_text(text)
    found = blocks(page, "python", "text")
    for library in LIBRARIES:
        if any(re.search(rf"^(?:import|from) (?:torch\.utils\.)?{library}\b", text, re.MULTILINE) for _, text in found):
            pytest.importorskip(library)
    names, printed = {"__name__": "page"}, ""
    for number, (kind, text) in enumerate(found):
        if kind == "text":
            assert same(printed, text), f"block {number} shows\n{text}\nbut\n{printed}\nwas printed"
            continue
        with contextlib.redirect_stdout(io.StringIO()) as output:
            exec(compile(text, f"{name_of(page)}, block {number}", "exec"), names)
        printed = output.getvalue()


def test_what_a_page_calls_a_file_stands_alone(tmp_path):
    """Each such block is imported by itself, as a reader copies it: nothing in it comes from a block above."""
    page = ROOT / "docs" / "certificates.md"
    assert set(files_of(page)) == {"mine.py", "box.py", "trainer.py"}
    for name, text in files_of(page).items():
        names = {"__name__": name}
        exec(compile(text, name, "exec"), names)
        for made in ("data", "model", "rows", "linear", "box", "step", "nets", "images"):
            if made in names:
                assert names[made]() is not None


def test_a_number_that_is_off_is_no_match():
    assert same("variance 2.51e-04 at 3", "variance 2.5e-04\nat 3")
    assert not same("a 1.10", "a 1.00")
    assert not same("a 1", "b 1")


@pytest.mark.parametrize("page", WRITTEN, ids=name_of)
def test_commands_and_their_options_exist(page):
    root = typer.main.get_command(app)
    for words in commands(page):
        if words[0].rpartition("/")[2] != "vaebench":
            continue
        command, rest = root, words[1:]
        while hasattr(command, "commands") and rest and not rest[0].startswith("-"):
            assert rest[0] in command.commands, f"there is no vaebench {rest[0]}"
            command, rest = command.commands[rest[0]], rest[1:]
        known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
        assert {word for word in rest if word.startswith("-")} <= known, " ".join(words)


@pytest.mark.parametrize("page", WRITTEN, ids=name_of)
def test_make_targets_exist(page):
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    named = set(re.findall(r"`(?:[A-Z_]+=\S+ )*make ([\w-]+)", page.read_text("utf-8")))
    named |= {words[1] for words in commands(page) if words[0] == "make" and len(words) > 1}
    assert named <= targets


def spans(page: Path) -> list[str]:
    return re.findall(r"(?<!`)`([^`\n]+)`(?!`)", page.read_text("utf-8"))


@pytest.mark.parametrize("page", WRITTEN, ids=name_of)
def test_named_functions_exist(page):
    for name in (span for span in spans(page) if re.fullmatch(r"vaebench(\.\w+)+", span)):
        assert exists(name), f"there is no {name}"


def exists(name: str) -> bool:
    """Whether a dotted name is a module, or something in one; entry-point groups count."""
    if name in {"vaebench.estimators", "vaebench.optimizers", "vaebench.presets", "vaebench.probes"}:
        return True
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        with contextlib.suppress(ModuleNotFoundError):
            found = importlib.import_module(".".join(parts[:end]))
            for part in parts[end:]:
                found = getattr(found, part, None)
            return found is not None
    return False


def test_names_that_do_not_exist_are_seen():
    assert exists("vaebench.theory.envelopes.uniform_log")
    assert not exists("vaebench.theory.envelopes.uniform_lag")
    assert not exists("vaebench.theories")


def functions_in(path: Path) -> set[str]:
    return {node.name for node in ast.parse(path.read_text("utf-8")).body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("page", WRITTEN, ids=name_of)
def test_named_files_and_tests_exist(page):
    for span in spans(page):
        if match := re.fullmatch(r"((?:tests|benchmarks|reports|docs|\.github|\.ci)/[\w./-]+?)(?:::(\w+))?", span):
            path, test = ROOT / match[1], match[2]
            assert path.exists(), f"there is no {match[1]}"
            assert test is None or test in functions_in(path), f"there is no {span}"


LINK = re.compile(r"(?<!`)\[[^]]*\]\(([^)\s]+)\)")
SITE = {ROOT / "docs" / name.lower(): ROOT / name for name in ("CHANGELOG.md", "CONTRIBUTING.md")}


@cache
def kept() -> set[Path]:
    """Files of the repository, those that are not yet committed too."""
    asked = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    return {ROOT / name for name in listed.splitlines()}


def headings(page: Path) -> set[str]:
    """What a heading is linked by: its words in small letters, joined by hyphens."""
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    words = (re.sub(r"[^\w\s-]", "", title.lower()).strip() for title in re.findall(r"^#+ (.*)$", text, re.MULTILINE))
    return {re.sub(r"\s+", "-", title) for title in words}


def leads_nowhere(page: Path, link: str) -> bool:
    path, _, heading = link.partition("#")
    if "://" in link or path.startswith("mailto:"):
        return False
    target = Path(os.path.normpath(page.parent / path)) if path else page
    if target.is_relative_to(ROOT / "docs" / "reports"):  # the site has the reports beside its pages
        target = ROOT / "reports" / target.relative_to(ROOT / "docs" / "reports")
    target = SITE.get(target, target)
    if target.is_relative_to(ROOT / "docs" / "reference") and target not in kept():  # a page made from docstrings
        module = ROOT / "vaebench" / target.relative_to(ROOT / "docs" / "reference")
        target = module.parent / "__init__.py" if module.name == "index.md" else module.with_suffix(".py")
    return target not in kept() or bool(heading and target.suffix == ".md" and heading not in headings(target))


REPORTS = sorted(page for page in kept() if page.suffix == ".md" and page.is_relative_to(ROOT / "reports"))


@pytest.mark.parametrize("page", [*WRITTEN, *REPORTS], ids=name_of)
def test_links_lead_to_files_and_headings(page):
    nowhere = [link for link in LINK.findall(page.read_text("utf-8")) if leads_nowhere(page, link)]
    assert not nowhere


@pytest.mark.parametrize(
    "link", ["nothing.md", "../reports/FINDINGS.md#nothing", "reports/html/index.html", "#nothing"]
)
def test_links_that_lead_nowhere_are_seen(link):
    assert leads_nowhere(ROOT / "docs/index.md", link)
    assert not leads_nowhere(ROOT / "docs/index.md", "reports/FINDINGS.md#and-beta")


def test_the_script_by_which_pages_search_is_the_one_of_npm():
    settings = (ROOT / "mkdocs.yml").read_text("utf-8")
    named = re.findall(r"sha256 ([0-9a-f]{64})", settings)
    assert [hashlib.sha256((ROOT / "docs/iframe-worker/shim.js").read_bytes()).hexdigest()] == named


def test_every_statement_of_the_paper_names_what_has_it_and_what_asserts_it():
    text = (ROOT / "docs/paper.md").read_text("utf-8")
    statements = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    assert len(statements) >= 10
    for statement in statements:
        title = statement.splitlines()[0]
        for label in ("Function", "Asserted by", "Control", "Figure", "Conditional on"):
            assert f"**{label}.**" in statement, f"{title} has no {label!r}"
        assert re.search(r"`vaebench\.\w+", statement), f"{title} names no function"
        assert re.search(r"`tests/[\w./]+::test_\w+`", statement), f"{title} names no test"


def written(verdict: dict) -> str:
    """A verdict as the first page has it in its table."""
    claim, found = verdict["claim"].replace("|", r"\|"), f"{verdict['smallest']:.4g} {verdict['unit']}"
    numbers = f"{verdict['statistic']:.4g} | {verdict['threshold']:.4g}"
    return f"| {verdict['outcome']} | {verdict['gate']} | {claim} | {numbers} | {found} |"


def test_what_the_first_command_says_is_what_it_says_today(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = shlex.split("check --estimator pathwise --steps 1500 --json")
    assert command[:-1] in [words[1:] for words in commands(ROOT / "README.md")]
    found = json.loads(CliRunner().invoke(app, command).stdout)["verdicts"]
    assert len(found) == 20 and all(verdict["passed"] for verdict in found)
    verdicts = {verdict["gate"]: verdict for verdict in found}
    home, readme = ((ROOT / name).read_text("utf-8") for name in ("docs/index.md", "README.md"))
    rows = [row for row in home.splitlines() if row.startswith("| pass ")]
    short = re.findall(r"^pass  (.+?)  .* (-?[\d.]+) +at most ([\d.]+)$", readme, re.MULTILINE)
    assert len(rows) == len(short) == 5
    for row, (gate, measured, allowed) in zip(rows, short, strict=True):
        verdict = verdicts[gate.strip()]
        assert same(written(verdict), row)
        assert same(f"{verdict['statistic']:.4g} {verdict['threshold']:.4g}", f"{measured} {allowed}")
    (entry,) = [json.loads(text) for _, text in blocks(ROOT / "docs/index.md", "json")]
    assert same(*(json.dumps([one[key] for key in entry]) for one in (verdicts[entry["gate"]], entry)))


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 120


def test_one_version_everywhere():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    citation = re.search(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text("utf-8"), re.MULTILINE)
    released = re.search(r"^## (\d\S+) - \d{4}-\d\d-\d\d$", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert citation and released
    assert {vaebench.__version__, project["version"], citation[1], released[1]} == {vaebench.__version__}
