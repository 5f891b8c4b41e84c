"""Put the written reports beside the dashboard, those in Markdown as pages too."""

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


class Report(NamedTuple):
    """A page: its title, and where it lies in the dashboard."""

    title: str
    address: str


def _to_html(text: str, title: str, up: str) -> str:
    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(text)
    body = LINK.sub(lambda match: match[1] + ("index" if match[2] else "") + ".html", body)
    body = body.replace("<table>", '<div class="wide"><table>').replace("</table>", "</table></div>")
    return PAGE.format(title=title, up=up, body=Markup(body))


def _title(path: Path) -> str:
    text = path.read_text("utf-8")
    found = re.search(r"<title>([^<]*)</title>|^# (.+)$", text, re.MULTILINE)
    words = next((group for group in found.groups() if group), "") if found else ""
    return unescape(words).replace("`", "").strip() or path.stem


def copy(source: Path, html_dir: Path) -> list[Report]:
    """Copy all reports to the dashboard, render those in Markdown, and say what there is.

    Args:
        source: the directory of the reports; the dashboard in it is left out.
        html_dir: of the dashboard.
    """
    target = html_dir / "reports"
    for path in sorted(source.iterdir()):
        if path.name in LEFT_OUT or path.resolve() == html_dir.resolve():
            continue
        if path.is_dir():
            shutil.copytree(path, target / path.name, ignore=shutil.ignore_patterns(*MACHINES))
        elif path.suffix in {".html", ".md"}:
            target.mkdir(exist_ok=True)
            shutil.copy(path, target / path.name)
    for path in sorted(target.rglob("*.md")):
        page = path.with_name("index.html") if path.stem == "README" else path.with_suffix(".html")
        if not page.exists():
            up = "../" * (len(path.relative_to(html_dir).parts) - 1)
            page.write_text(_to_html(path.read_text("utf-8"), _title(path), up), "utf-8")
    pages = [*sorted(target.glob("*.html")), *sorted(target.glob("*/index.html"))]
    pages += sorted(target.glob("history/*/index.html"))
    return [Report(_title(page), page.relative_to(html_dir).as_posix()) for page in pages]
