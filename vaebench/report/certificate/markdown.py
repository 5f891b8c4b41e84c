"""A certificate for a comment on a pull request, and as a badge."""

from xml.sax.saxutils import escape

from vaebench.experiments.certifying import Findings
from vaebench.report.certificate.words import SAID, STATES, headline, of_section, tiles
from vaebench.support.comments import cell

MARKS = {"good": "✅", "bad": "❌", "unknown": "⚠️", "": "📏"}
COLOURS = {"good": "#0b7a4b", "bad": "#b3122b", "unknown": "#8a6100"}
LETTER = 6.7  # width of a letter of a badge, in pixels


def markdown(found: Findings) -> str:
    """For a pull request: the sentence, four rows, and every gate folded away.

    Args:
        found: the findings.

    Returns:
        Markdown.
    """
    q, state = found.question, STATES[found.outcome]
    lines = [f"### {MARKS[state]} {cell(headline(found))}", ""]
    lines += ["| | | |", "| --- | --- | --- |"]
    lines += [f"| {MARKS[t.state]} **{t.question}** | {cell(t.answer)} | {cell(t.text)} |" for t in tiles(found)]
    lines += ["", "<details><summary>All gates</summary>", ""]
    lines += ["| | place | gate | measured | allowed | smallest found |"]
    lines += ["| --- | --- | --- | --- | --- | --- |"]
    for section in ("right", "guarantee"):
        for one in of_section(found, section):
            v = one.verdict
            smallest = "" if v.smallest is None else f"{v.smallest:.3g} {v.unit}"
            cells = (v.outcome, one.place, v.gate, f"{v.statistic:.3g}", f"{v.threshold:.3g}", smallest)
            lines.append(f"| {' | '.join(map(cell, cells))} |")
    lines += ["", *(f"Left out: {cell(line)}. " for line in found.left_out), "", "</details>", ""]
    about = found.about
    lines.append(
        f"<sub>{cell(q.bound)}, {cell(q.model_name)}, B = {q.batch_size}, {q.optimizer}, seed {q.seed}; "
        f"{cell(found.made_by)}, {cell(str(about['processor']))}, {about['date']}</sub>"
    )
    return "\n".join(lines) + "\n"


def badge(found: Findings) -> str:
    """A small SVG: what was certified, and what came out.

    Args:
        found: the findings.

    Returns:
        SVG.
    """
    left, right = f"vaebench {found.question.name}", SAID[found.outcome]
    widths = [round(LETTER * len(text)) + 14 for text in (left, right)]
    total, label = sum(widths), escape(f"{left}: {right}", {'"': "&quot;"})
    colour = COLOURS[STATES[found.outcome]]
    texts = "".join(
        f'<text x="{x + width / 2:g}" y="14" textLength="{width - 14}">{escape(text)}</text>'
        for x, width, text in ((0, widths[0], left), (widths[0], widths[1], right))
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{total}" height="20" role="img" aria-label="{label}">'
        f'<title>{label}</title><clipPath id="r"><rect width="{total}" height="20" rx="3"/></clipPath>'
        f'<g clip-path="url(#r)"><rect width="{widths[0]}" height="20" fill="#444"/>'
        f'<rect x="{widths[0]}" width="{widths[1]}" height="20" fill="{colour}"/></g>'
        f'<g fill="#fff" text-anchor="middle" font-family="Verdana, DejaVu Sans, sans-serif" font-size="11">{texts}</g>'
        "</svg>\n"
    )
