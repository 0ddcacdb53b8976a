"""Ratios as bars."""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.ratios import Row


def plot_ratios(tables: dict[str, list[Row]], path: Path) -> None:
    """Draws the tables side by side: one bar per ratio, with a mark at its target."""
    figure = Figure(figsize=(6 * len(tables), 0.5 * max(map(len, tables.values())) + 1.2), layout="constrained")
    for axes, (title, rows) in zip(figure.subplots(1, len(tables), squeeze=False)[0], tables.items(), strict=True):
        _plot(axes, title, rows)
    figure.savefig(path, metadata={"Date": None})


def _plot(axes: Axes, title: str, rows: list[Row]) -> None:
    labels = [f"{row.what}\n{row.name} / {row.base}" for row in rows]
    colors = ["#0072b2" if row.target else "#b0b0b0" for row in rows]
    bars = axes.barh(labels, [row.ratio for row in rows], color=colors)
    axes.bar_label(bars, fmt="%.2f", label_type="center", color="white", fontsize=8)
    for index, row in enumerate(rows):
        if row.target is not None:
            axes.plot([row.target, row.target], [index - 0.45, index + 0.45], color="#d55e00", linewidth=2)
    axes.plot([], [], color="#d55e00", linewidth=2, label="target")
    axes.legend(loc="lower right", frameon=False)
    axes.axvline(1, color="black", linewidth=0.6)
    axes.invert_yaxis()
    axes.tick_params(labelsize=8)
    axes.set_xlabel("ratio")
    axes.set_title(title)
    axes.spines[["top", "right"]].set_visible(False)
