"""What the pages of all studies share: tables in Markdown, plots of one look, means with their spread."""

import io
import pathlib
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from training.reproduce.trial import Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette, which colour-blind readers can distinguish.
BLUE, VERMILION, GREEN, PURPLE, ORANGE = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00"

_DARK = """
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  [style*="stroke: #000000"] { stroke: #e6edf3 !important }
  [style*="stroke: #dddddd"] { stroke: #30363d !important }
  [style*="fill: #ffffff"] { fill: #0d1117 !important }
  [style*="stroke: #0072b2"] { stroke: #56b4e9 !important }
  [style*="fill: #0072b2"] { fill: #56b4e9 !important }
}
"""

NONE = "-"  # in a table, for what there is not


def finished(records: Iterable[Record]) -> list[Record]:
    """The records of runs that did not fail."""
    return [record for record in records if "failed" not in record]


def markdown(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


def new_figure(width: float, height: float) -> "Figure":
    """A figure of a size in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained", dpi=100)


def save(figure: "Figure", path: pathlib.Path) -> None:
    """Writes a plot as SVG, which browsers show on a dark ground where pages are dark. Its text stays text."""
    import matplotlib as mpl

    drawn = io.StringIO()
    fixed = {"svg.hashsalt": path.name, "svg.fonttype": "none"}  # the same file each time
    with mpl.rc_context(fixed):
        figure.savefig(drawn, format="svg", metadata={"Date": None}, facecolor="white")
    path.write_text(drawn.getvalue().replace("</style>", f"{_DARK}</style>", 1))


def tidy(axes: "Axes") -> None:
    """Leaves of a plot's frame what is read."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", linewidth=0.6, color="#DDDDDD")
    axes.set_axisbelow(True)


def legend_above(figure: "Figure", looks: Mapping[str, Mapping[str, Any]]) -> None:
    """Names the lines of all panels above them.

    Args:
        figure: Has a constrained layout.
        looks: The keywords of a line, by its name.
    """
    from matplotlib.lines import Line2D

    lines = [Line2D([], [], label=name, **look) for name, look in looks.items()]
    figure.legend(handles=lines, loc="outside upper center", ncols=len(lines), frameon=False)


def mean_and_std(values: Sequence[float], digits: int) -> str:
    """`12.3 ± 0.4`: the mean over seeds and the standard deviation of one; the mean alone of a single value."""
    mean = f"{statistics.mean(values):z.{digits}f}"  # never -0.0
    return f"{mean} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean


def cost_table(records: Sequence[Record]) -> str:
    """A table of what trials took: CPU time of their whole processes, machines and versions.

    Args:
        records: Of one trial or more; failed ones count, too.
    """
    seconds = [record["cpu_seconds"] for record in records]
    row: list[Any] = [len(records), sum("failed" in record for record in records)]
    row += [f"{sum(seconds) / 60:.1f}", f"{statistics.median(seconds):.1f}"]
    row += ["; ".join(sorted({record["machine"] for record in records}))]
    row += [", ".join(sorted({record["versions"][name] for record in records})) for name in ("tensorflow", "keras")]
    header = ["runs", "failed", "CPU minutes in all", "median CPU seconds per run", "machine", "TensorFlow", "Keras"]
    return markdown(header, [row])
