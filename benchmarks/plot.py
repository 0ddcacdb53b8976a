"""Ratios as bars."""

from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

if TYPE_CHECKING:
    from benchmarks.layer import Row


def plot_ratios(rows: list["Row"], path: Path) -> None:
    """Draws a bar a ratio, with a mark where it has to stay below."""
    figure = Figure(figsize=(9, 0.5 * len(rows) + 1.2), layout="constrained")
    axes = figure.subplots()
    labels = [f"{row.what}\n{row.name} / {row.base}" for row in rows]
    bars = axes.barh(labels, [row.ratio for row in rows], color=["#0072b2" if row.bar else "#b0b0b0" for row in rows])
    axes.bar_label(bars, fmt="%.2f", label_type="center", color="white", fontsize=8)
    for index, row in enumerate(rows):
        if row.bar is not None:
            axes.plot([row.bar, row.bar], [index - 0.45, index + 0.45], color="#d55e00", linewidth=2)
    axes.plot([], [], color="#d55e00", linewidth=2, label="at most")
    axes.legend(loc="lower right", frameon=False)
    axes.axvline(1, color="black", linewidth=0.6)
    axes.invert_yaxis()
    axes.tick_params(labelsize=8)
    axes.set_xlabel("ratio")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})
