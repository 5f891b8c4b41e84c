"""The page of a certificate: one file that opens from a disk, in light and dark, on paper and on a phone."""

import re
from typing import NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from vaebench.experiments.certifying import Findings
from vaebench.report.certificate.amounts import interval
from vaebench.report.certificate.figures import FIGURES, drawn
from vaebench.report.certificate.words import SAID, STATES, headline, of_section, tiles
from vaebench.report.figures import COLOURS, inline, svg
from vaebench.report.wording import number, symbol

ICONS = {"good": "✓", "bad": "✗", "unknown": "?"}
INK = "#000000"
CAPTIONS = {
    "gates": (
        "Every gate's statistic over its threshold",
        "Every gate: what was measured over what is allowed. Left of the line it passes; what lies beyond an edge "
        "stands at it. ● passes, ✕ fails, ◆ has no power.",
    ),
    "cost": (
        "Time of one gradient over that of {beside}",
        "Time of one gradient over that of {beside}, over K and over B, on your model and on reference nets. Medians "
        "of interleaved pairs with 95 % intervals; at 1 it costs the same.",
    ),
    "noise": (
        "Variance of the gradient",
        "Variance of one gradient on a fixed batch, over K and over B, with 95 % intervals; the encoder's above the "
        "decoder's, where they are apart. Lower is better.",
    ),
    "snr": (
        "Signal-to-noise ratio",
        "Signal-to-noise ratio of the same gradients. Higher is better; a bar to the bottom is one that contains 0.",
    ),
    "tradeoff": (
        "Variance against time",
        "Variance against time of one gradient, at your B. The line joins the estimators that no other beats in both: "
        "the frontier.",
    ),
    "theory": (
        "The run on a reference bed beside theory",
        "A run on a bed with an exact gradient: what was measured, what bounds it, and what predicts it. The band is "
        "95 % over seeds.",
    ),
    "decay": (
        "Squared gradient on the model",
        "‖∇f‖² on the model as it trains, estimated without bias, beside a built-in estimator of the same bound. "
        "Bands are 95 % over seeds.",
    ),
}


class Plate(NamedTuple):
    """A figure on the page.

    Attributes:
        title: for those who do not see it.
        caption: how to read it.
        html: the drawing.
    """

    title: str
    caption: str
    html: Markup


def page(found: Findings) -> str:
    """The whole page.

    Args:
        found: the findings.

    Returns:
        HTML; the bytes depend on nothing but the findings.
    """
    q, about = found.question, dict(found.about)
    versions = about.pop("versions", {})
    provenance = about | versions | {f"{name}, seconds": round(took, 1) for name, took in found.seconds.items()}
    return _environment().get_template("certificate.html.j2").render(
        name=q.name,
        said=SAID[found.outcome],
        state=STATES[found.outcome],
        headline=headline(found),
        made_by=found.made_by,
        question=q,
        parameters=sum(p.numel() for p in q.model.parameters()),
        rows=len(q.data),
        tiles=tiles(found),
        panels={name: _plate(name, FIGURES[name](found), q.beside) for name in drawn(found)},
        right=of_section(found, "right"),
        guaranteed=of_section(found, "guarantee"),
        left_out=found.left_out,
        cost=found.cost,
        noise=found.noise,
        about=found.about,
        provenance=provenance,
        states=STATES,
        icons=ICONS,
    )  # fmt: skip


def summary(found: Findings) -> str:
    """The first screen as a fragment of HTML, without styles of its own, for notebooks.

    Args:
        found: the findings.

    Returns:
        HTML.
    """
    rows = "".join(
        f"<tr><th>{escape(tile.question)}</th><td>{escape(tile.answer)}</td><td>{escape(tile.text)}</td></tr>"
        for tile in tiles(found)
    )
    return f"<p><strong>{escape(headline(found))}</strong></p><table>{rows}</table>"


def _plate(name: str, figure: Figure, beside: str) -> Plate:
    title, caption = (text.format(beside=beside) for text in CAPTIONS[name])
    return Plate(title, caption, Markup(themed(inline(svg(figure, name), str(escape(f"{title}. {caption}"))))))


def themed(drawing: str) -> str:
    """A drawing in the page's own colours: ink, lines and series are variables, which dark mode sets anew.

    Args:
        drawing: of `inline`.

    Returns:
        The same with colours by name.
    """
    drawing = drawing.replace(INK, "currentColor").replace("#dddddd", "var(--line)")
    for place, colour in enumerate(COLOURS):
        if colour != INK:
            drawing = re.sub(colour, f"var(--series-{place})", drawing, flags=re.IGNORECASE)
    return drawing


def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("vaebench.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters |= {"number": _number, "symbol": symbol, "interval": interval, "counted": _counted}
    return made


def _counted(value: int | None) -> str:
    return "–" if value is None else number(value)


def _number(value: object) -> str:
    return number(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else str(value)
