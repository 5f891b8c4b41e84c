"""Make the pages that asv has just written whole without a network, and easier to read.

asv's own page becomes ``benchmarks.html``, beside the first page ``index.html``. What can be set from outside is set in
``vaebench.js`` and ``vaebench.css``, which are loaded last; only what cannot is edited in asv's text, and every edit
must fit exactly once: a template that has changed stops the publication instead of leaving a page that works only
online. The assets are vendored, not fetched: see ``assets/NOTICE.md``.
"""

import re
import shutil
from pathlib import Path

from asv.util import UserError

HERE = Path(__file__).parent
ASSETS = HERE / "assets"
OURS = ("vaebench.js", "vaebench.css")

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
    "benchmarks.html": [
        (
            '<link rel="alternate" type="application/atom+xml"',
            '<link href="vaebench.css" rel="stylesheet">\n    <script src="vaebench.js"></script>\n'
            '    <meta name="viewport" content="width=device-width, initial-scale=1">\n'
            '    <link rel="alternate" type="application/atom+xml"',
        ),
        (
            '<li id="nav-li-" class="active">',
            '<li><a href="index.html">Overview</a></li>\n\t<li id="nav-li-" class="active">',
        ),
    ],
    "summarylist.js": [
        # Sort by the order of the parameters, where 4 comes before 16.
        (
            "var name_td = $('<td/>');",
            "var name_td = $('<td/>').attr('data-sort-value', row.name + ('' + row.idx).padStart(6, '0'));",
        ),
    ],
    "graphdisplay.js": [
        # Against a parameter, x is no commit: name the curve instead.
        (
            "var commit_hash = get_commit_hash(item.datapoint[0]);\n                    if (commit_hash) {",
            "var commit_hash = x_coordinate_axis == 0 ? get_commit_hash(item.datapoint[0])\n"
            "                        : item.series.label || 'last commit';\n"
            "                    if (commit_hash) {",
        ),
    ],
}

BROKEN = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>vaebench: a page is not whole</title></head>
<body><p>A file that belongs in <code>assets/</code>, beside this page, is not there:
<code>make dashboard</code> writes all of them again.</p></body></html>
"""


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
    """Turn a copy of asv's template into the pages behind the first one."""
    shutil.copytree(ASSETS, html_dir / ASSETS.name, ignore=shutil.ignore_patterns(".*"))
    for name in OURS:
        shutil.copy(HERE / name, html_dir / name)
    asvs = (html_dir / "index.html").rename(html_dir / "benchmarks.html")
    asvs.write_text(localize(asvs.read_text("utf-8")), "utf-8")
    (html_dir / "error.html").write_text(BROKEN, "utf-8")
    for page, edits in EDITS.items():
        for old, new in edits:
            substitute(html_dir / page, old, new)
