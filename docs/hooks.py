"""What the site takes from elsewhere: the reference from docstrings, reports, changelog and contributing guide."""

import ast
import re
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "vaebench"
ROOMS = (
    "gradients", "models", "data", "measures", "training", "theory", "gates", "experiments", "report", "support", "cli",
)  # fmt: skip
SHOWN = {".md", ".svg", ".png", ".csv", ".html", ".py"}
COPIED = {"changelog.md": "CHANGELOG.md", "contributing.md": "CONTRIBUTING.md"}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the reference's pages, a room a section, into the navigation."""
    rooms = [{room: [page for _, page in _pages(room)]} for room in ROOMS]
    entries: list[Any] = config.nav or []
    for entry in entries:
        if "Reference" in entry:
            entry["Reference"] = [entry["Reference"], *rooms]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what is written by hand elsewhere and what is generated."""
    for room in ROOMS:
        for module, page in _pages(room):
            title = module.rpartition(".")[2]
            text = f"---\ntitle: {title}\n---\n\n::: {module}\n{_options(module)}{_exports(module)}"
            files.append(File.generated(config, page, content=text))
    for page, source in COPIED.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / source)))
    for path in sorted((ROOT / "reports").rglob("*")):
        if path.suffix in SHOWN and "html" not in path.relative_to(ROOT / "reports").parts[:-1]:
            uri = path.relative_to(ROOT).as_posix()
            files.append(File.generated(config, uri, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Link the names of functions, classes and modules in prose to the reference."""
    if page.file.src_uri.startswith("reference/"):
        return markdown
    if page.file.src_uri.startswith("reports/"):
        markdown = _with_lists(markdown)
    return re.sub(r"(?<![`\[])`(vaebench\.[\w.]+\w)`(?![`\]])", lambda name: _linked(name[1]), markdown)


def on_post_build(config: MkDocsConfig) -> None:
    """Keep what pages offer to download as it was written."""
    for kept in (ROOT / "reports").glob("certificates/*/certificate.*"):
        shutil.copy(kept, Path(config.site_dir, kept.relative_to(ROOT)))


def _with_lists(markdown: str) -> str:
    """Lists of reports, written for viewers that need neither a blank line before nor four spaces within."""
    apart = re.sub(r"(?m)^(?!\s*[*-] |\s*$|\|)(.+)\n(?=[*-] )", r"\1\n\n", markdown)
    return re.sub(r"(?m)^(  )(?=[*-] )", r"\1\1", apart)


def _linked(name: str) -> str:
    module, _, last = name.rpartition(".")
    if _is_module(name):
        return f"[`{name}`][{name}]"
    origin = _origins(module).get(last, module) if _is_module(module) else ""
    return f"[`{name}`][{origin}.{last}]" if last in _described(origin) else f"`{name}`"


def _is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def _pages(room: str) -> Iterator[tuple[str, str]]:
    """Public modules of a room and their pages: the room itself first, packages before what is in them."""
    paths = [path for path in (PACKAGE / room).rglob("*.py") if path.name == "__init__.py" or path.name[0] != "_"]
    for path in sorted(paths, key=lambda path: (path.parent, path.name != "__init__.py", path.name)):
        parts = path.relative_to(ROOT).with_suffix("").parts
        package = parts[-1] == "__init__"
        name = {"__init__": "index", "index": "index_"}.get(parts[-1], parts[-1])
        yield ".".join(parts[:-1] if package else parts), "/".join(["reference", *parts[1:-1], f"{name}.md"])


def _options(module: str) -> str:
    """A package's page describes what is written in it, not what it exports: that has a page of its own."""
    if not ROOT.joinpath(*module.split("."), "__init__.py").is_file():
        return ""
    own = sorted(name for name in _described(module) if not name.startswith("_"))
    return f"    options:\n      members: {own or 'false'}\n"


def _exports(module: str) -> str:
    """The public names of a package; modules, functions and classes with links to where they are described."""
    origins = _origins(module)
    tree = _tree(module) if origins else ast.Module([], [])
    listed = [ast.literal_eval(n.value) for n in tree.body if isinstance(n, ast.Assign) and _names(n) == ["__all__"]]
    links = [_link(name, origins[name]) for names in listed for name in names if name in origins]
    return f"\nNames that `{module}` exports: {', '.join(links)}.\n" if links else ""


def _link(name: str, origin: str) -> str:
    known = _is_module(f"{origin}.{name}") or name in _described(origin)
    return f"[`{name}`][{origin}.{name}]" if known else f"`{name}`"


@cache
def _tree(module: str) -> ast.Module:
    path = ROOT.joinpath(*module.split("."))
    return ast.parse((path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text("utf-8"))


def _origins(package: str) -> dict[str, str]:
    """Where a package has its names from."""
    if not ROOT.joinpath(*package.split("."), "__init__.py").is_file():
        return {}
    imports = [node for node in _tree(package).body if isinstance(node, ast.ImportFrom) and node.module]
    return {name.name: str(node.module) for node in imports for name in node.names}


def _described(module: str) -> set[str]:
    """Functions and classes of a module."""
    return {node.name for node in _tree(module).body if hasattr(node, "name")} if _is_module(module) else set()


def _names(assignment: ast.Assign) -> list[str]:
    return [ast.unparse(target) for target in assignment.targets]


class PlainDocstrings(griffe.Extension):
    """Docstrings are plain text with code in backticks: what Markdown would read into the rest is escaped."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Escape one docstring, and fence its doctests."""
        if obj.docstring is not None and not obj.is_alias:
            obj.docstring.value = _markdown(obj.docstring.value)


def _markdown(text: str) -> str:
    """Prose escaped, doctests fenced, indented paragraphs left as the code that they are."""
    paragraphs = re.split(r"\n[ ]*\n", text)
    return "\n\n".join(_paragraph(paragraph) for paragraph in paragraphs)


def _paragraph(text: str) -> str:
    if text.startswith("    "):
        return text
    if text.startswith(">>>"):
        return f"```pycon\n{text}\n```"
    return "\n".join(_escaped(line) for line in text.splitlines())


def _escaped(line: str) -> str:
    parts = line.split("`")
    parts[::2] = [part.replace("*", r"\*").replace("<", "&lt;") for part in parts[::2]]
    return "`".join(parts)
