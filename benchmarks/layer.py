"""What PReLU costs beside ReLU, Keras's PReLU and PyTorch's: time, memory, inference. Every ratio with its bar.

    python -m benchmarks.layer [--rounds 15] [--write docs]

CPU time of whole processes in turns, median of the ratios within a round; `--write` leaves the table and a plot there.
"""

import argparse
import importlib.util
import platform
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

from benchmarks import steps_keras
from benchmarks.interleaved import Cost, measure, median_peak, median_seconds, time_ratios

DEEP_BATCH = 64
SPREAD = (
    "A ratio is the median of those of {} rounds;\nhalf of the rounds lie between the quartiles. Where these lie on "
    "both sides of `at most`, another run may miss it."
)


@dataclass(frozen=True)
class Row:
    """One ratio: of what, to what, how large it may be, how it varied between quartiles, both figures in their unit."""

    what: str
    name: str
    base: str
    ratio: float
    bar: float | None
    figures: str
    spread: str = ""

    @property
    def verdict(self) -> str:
        """Whether the ratio keeps to its bar."""
        return "" if self.bar is None else ("ok" if self.ratio <= self.bar else "MISSED")


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.layer", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="steps of each candidate, at least 7")
    parser.add_argument("--write", type=Path, help="the folder for layer_benchmark.md and layer_benchmark.svg")
    arguments = parser.parse_args()
    if arguments.rounds < 7:
        parser.error(f"--rounds {arguments.rounds}: medians of fewer than 7 say little")
    rows = measure_all(arguments.rounds)
    text = f"{machine()}\n\n{table(rows)}"
    print(text)
    if arguments.write:
        from benchmarks.plot import plot_ratios

        (arguments.write / "layer_benchmark.md").write_text(
            f"# What PReLU costs\n\n`python -m benchmarks.layer --write docs`. {SPREAD.format(arguments.rounds)}\n"
            f"{text}\n\n![The ratios as bars](layer_benchmark.svg)\n"
        )
        plot_ratios(rows, arguments.write / "layer_benchmark.svg")


def measure_all(rounds: int) -> list[Row]:
    """Everything, one thing after the other."""
    rows = []
    costs = measure(_factories("network_step"), rounds)
    rows += _time_rows("training step of a 9-layer network", costs, {"ours": 1.06, "keras": None}, "relu")
    rows += _torch_rows("training step of a 9-layer network", costs)
    costs = measure(_factories("layer_step"), rounds)
    rows += _time_rows("the layer alone, forward and backward", costs, {"ours": 0.5, "relu": None}, "keras")
    rows += _torch_rows("the layer alone, forward and backward", costs)
    costs = measure({name: partial(steps_keras.inference_step, name) for name in steps_keras.RECTIFIERS}, rounds)
    rows += _time_rows("inference of the exported network", costs, {"ours": 1.0}, "keras")
    rows += _time_rows("inference of the exported network", costs, {"ours": None}, "relu")
    costs = {}
    for name in steps_keras.RECTIFIERS:  # one by one: three of them together need 12 GB
        costs |= measure({name: partial(steps_keras.deep_network_step, name, DEEP_BATCH)}, rounds=7)
    rows += _memory_rows("peak memory of a training step, 30 layers", costs, {"ours": 1.05, "keras": None}, "relu")
    rows += _memory_rows("peak memory of a training step, 30 layers", costs, {"ours": 1.0}, "keras")
    return rows


def _factories(step: str) -> dict[str, partial]:
    factories = {name: partial(getattr(steps_keras, step), name) for name in steps_keras.RECTIFIERS}
    if importlib.util.find_spec("torch"):
        from benchmarks import steps_torch

        factories |= {f"torch {name}": partial(getattr(steps_torch, step), name) for name in steps_torch.RECTIFIERS}
    return factories


def _time_rows(what: str, costs: dict[str, list[Cost]], bars: dict[str, float | None], base: str) -> list[Row]:
    def milliseconds(name: str) -> str:
        return f"{median_seconds(costs[name]) * 1e3:.1f}"

    rows = []
    for name, bar in bars.items():
        low, median, high = time_ratios(costs[name], costs[base])
        figures = f"{milliseconds(name)} / {milliseconds(base)} ms"
        rows.append(Row(what, name, base, median, bar, figures, f"{low:.3f}-{high:.3f}"))
    return rows


def _torch_rows(what: str, costs: dict[str, list[Cost]]) -> list[Row]:
    return _time_rows(what, costs, {"torch prelu": None}, "torch relu") if "torch relu" in costs else []


def _memory_rows(what: str, costs: dict[str, list[Cost]], bars: dict[str, float | None], base: str) -> list[Row]:
    def mebibytes(name: str) -> str:
        return f"{median_peak(costs[name]) / 2**20:.0f}"

    return [
        Row(
            what,
            name,
            base,
            median_peak(costs[name]) / median_peak(costs[base]),
            bar,
            f"{mebibytes(name)} / {mebibytes(base)} MiB",
        )
        for name, bar in bars.items()
    ]


def table(rows: list[Row]) -> str:
    """The rows in Markdown."""
    lines = ["| measured | of | over | ratio | quartiles | at most | | figures |", "|---|---|---|---|---|---|---|---|"]
    for row in rows:
        bar = "" if row.bar is None else f"{row.bar:.2f}"
        lines.append(
            f"| {row.what} | {row.name} | {row.base} | {row.ratio:.3f} | {row.spread} | {bar} | {row.verdict} "
            f"| {row.figures} |"
        )
    return "\n".join(lines)


def machine() -> str:
    """What ran, on what."""
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.machine(),
    )
    threads = len([line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("processor")])
    names = ["tensorflow", "keras", *(["torch"] if importlib.util.find_spec("torch") else [])]
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    return f"{model}, {threads} threads, Python {platform.python_version()}, {versions}"


if __name__ == "__main__":
    main()
