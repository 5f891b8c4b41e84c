"""Put what is written beside the dashboard: reports, those in Markdown as pages too, certificates, documentation."""

import re
import shutil
from html import unescape
from pathlib import Path
from typing import NamedTuple

from markdown_it import MarkdownIt
from markupsafe import Markup

LEFT_OUT = {"html", "dashboard.png"}
MACHINES = ("*-env-*.json", "machine.json", "benchmarks.json", "conditions.jsonl")
PAGE = Markup("""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><link rel="stylesheet" href="{up}overview.css"></head>
<body><p><a href="{up}index.html">Overview</a></p><main class="written">
{body}</main></body></html>
""")
LINK = re.compile(r'(href="(?![a-z]+:)[^"#]*?)(README)?\.md(?=["#])')


PICTURE = re.compile(r'<img src="([^"]+)"[^>]*>')
HEADING = re.compile(r"<h([2-4])>(.*?)</h\1>")


class Report(NamedTuple):
    """A page or picture: its title, and where it lies in the dashboard."""

    title: str
    address: str


class Written(NamedTuple):
    """What the first page links.

    Attributes:
        reports: their pages.
        certificates: of estimators.
        pictures: of the findings.
        documentation: its first page; None where it has not been built.
    """

    reports: list[Report]
    certificates: list[Report]
    pictures: list[Report]
    documentation: Report | None


def _anchored(heading: re.Match) -> str:
    """A heading that can be linked by its words, as other viewers of Markdown have it."""
    words = re.sub(r"[^\w\s-]", "", unescape(re.sub(r"<[^>]*>", "", heading[2])).lower()).strip()
    name = re.sub(r"\s+", "-", words)
    return f'<h{heading[1]} id="{name}">{heading[2]}</h{heading[1]}>'


def _to_html(text: str, title: str, up: str) -> str:
    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(text)
    body = PICTURE.sub(r'<a href="\1">\g<0></a>', HEADING.sub(_anchored, body))
    body = LINK.sub(lambda match: match[1] + ("index" if match[2] else "") + ".html", body)
    body = body.replace("<table>", '<div class="wide"><table>').replace("</table>", "</table></div>")
    return PAGE.format(title=title, up=up, body=Markup(body))


def _title(path: Path) -> str:
    text = path.read_text("utf-8")
    found = re.search(r"<title>([^<]*)</title>|^# (.+)$", text, re.MULTILINE)
    words = next((group for group in found.groups() if group), "") if found else ""
    return unescape(words).replace("`", "").strip() or path.stem


def copy(root: Path, html_dir: Path) -> Written:
    """Copy all that is written to the dashboard, render what is in Markdown, and say what there is.

    Args:
        root: of the repository, with reports/ and, where it has been built, site/.
        html_dir: of the dashboard.
    """
    target, site = html_dir / "reports", html_dir / "documentation"
    for path in sorted((root / "reports").iterdir()):
        if path.name in LEFT_OUT or path.resolve() == html_dir.resolve():
            continue
        if path.is_dir():
            shutil.copytree(path, target / path.name, ignore=shutil.ignore_patterns(*MACHINES))
        elif path.suffix in {".html", ".md"}:
            target.mkdir(exist_ok=True)
            shutil.copy(path, target / path.name)
    if (root / "site" / "index.html").is_file():
        shutil.copytree(root / "site", site)
    _render(target, html_dir)

    def found(*patterns: str) -> list[Report]:
        pages = [page for pattern in patterns for page in sorted(target.glob(pattern))]
        return [Report(_title(page), page.relative_to(html_dir).as_posix()) for page in pages]

    return Written(
        found("*.html", "*/index.html", "history/*/index.html"),
        found("certificates/*/index.html"),
        found("findings/*.svg"),
        Report("Documentation", "documentation/index.html") if site.is_dir() else None,
    )


def _render(target: Path, html_dir: Path) -> None:
    for path in sorted(target.rglob("*.md")):
        page = path.with_name("index.html") if path.stem == "README" else path.with_suffix(".html")
        if not page.exists():
            up = "../" * (len(path.relative_to(html_dir).parts) - 1)
            page.write_text(_to_html(path.read_text("utf-8"), _title(path), up), "utf-8")
