"""The heat map of the race: a colour and a number for each point and library."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure

from vaebench.report.figures import styled

COLOURS = "RdBu"  # red where the peer is faster, blue where ours is
LIMIT = 8.0  # ratio at the end of the colours, and its reciprocal at the other


def column(peer: str) -> str:
    """A peer's column: its library, and whether it takes the KL term in closed form."""
    library = peer.split()[0]
    return f"{library}\nclosed KL" if "MeanField" in peer else library


def figure(costs: pd.DataFrame) -> Figure:
    """Ratios to ours as colours and numbers: a panel a net, a row a point, a column a library."""
    costs = costs.assign(column=costs["peer"].map(column), K=costs["K"].astype(int), B=costs["B"].astype(int))
    nets, columns = list(costs["net"].unique()), list(dict.fromkeys(costs["column"]))
    with styled():
        picture = Figure(figsize=(7.4, 2.0 + 1.9 * len(nets) ** 0.5 * 1.4))
        panels = picture.subplots((len(nets) + 1) // 2, min(len(nets), 2), squeeze=False).ravel()
        for panel in panels[len(nets) :]:
            panel.set_axis_off()
        for panel, net in zip(panels, nets, strict=False):
            found = costs[costs["net"] == net].pivot_table(index=["K", "B"], columns="column", values="ratio")
            draw_cells(panel, found.reindex(columns=columns))
            panel.set_title(net)
    return picture


def draw_cells(panel: Axes, ratios: pd.DataFrame) -> None:
    """A matrix of ratios; a point that a library was not measured at is blank."""
    values = np.log2(ratios.to_numpy(float))
    high = np.log2(LIMIT)
    panel.imshow(values, cmap=COLOURS, norm=TwoSlopeNorm(0.0, -high, high), aspect="auto")
    for (row, place), value in np.ndenumerate(values):
        if np.isfinite(value):
            dark = "white" if abs(value) > high / 2 else "black"
            panel.text(place, row, f"{2**value:.2g}", ha="center", va="center", fontsize=7, color=dark)
    panel.set_xticks(range(len(ratios.columns)), ratios.columns, fontsize=7)
    panel.set_yticks(range(len(ratios)), [f"K={k} B={b}" for k, b in ratios.index], fontsize=7)
    panel.grid(visible=False)
