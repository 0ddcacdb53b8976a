"""What PReLU costs beside ReLU, Keras's PReLU and PyTorch's: time, memory, inference, with oneDNN on and off.

    python -m benchmarks.layer [--rounds 15] [--write docs]

CPU time of whole processes in turns, median of the ratios within a round; `--write` leaves the tables there.
"""

import argparse
import importlib.util
import os
import platform
from functools import partial
from importlib.metadata import version
from pathlib import Path

from benchmarks import steps_keras
from benchmarks.interleaved import Cost, measure, median_peak, median_seconds, time_ratios
from benchmarks.ratios import Row, table
from training.machine import cpu_name

DEEP_BATCH = 64
SPREAD = (
    "A ratio is the median of those of {} rounds;\nhalf of the rounds lie between the quartiles. Where these lie on "
    "both sides of the target, another run may miss it."
)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.layer", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="steps of each candidate, at least 7")
    parser.add_argument("--write", type=Path, help="the folder for layer_benchmark.md")
    arguments = parser.parse_args()
    if arguments.rounds < 7:
        parser.error(f"--rounds {arguments.rounds}: medians of fewer than 7 say little")
    print(machine())
    tables = {}
    for setting in ("on", "off"):
        os.environ["TF_ENABLE_ONEDNN_OPTS"] = str(int(setting == "on"))  # read by the processes that measure
        tables[f"oneDNN {setting}"] = measure_all(arguments.rounds, with_torch=setting == "on")
        print(f"\n## oneDNN {setting}\n\n{table(tables[f'oneDNN {setting}'])}", flush=True)
    if arguments.write:
        _write(tables, arguments)


def _write(tables: dict[str, list[Row]], arguments: argparse.Namespace) -> None:
    command = f"`python -m benchmarks.layer --rounds {arguments.rounds} --write docs`"
    sections = "".join(f"\n## With {name}\n\n{table(rows)}\n" for name, rows in tables.items())
    (arguments.write / "layer_benchmark.md").write_text(
        f"# What PReLU costs\n\n{command}. {SPREAD.format(arguments.rounds)}\n\n{machine()}\n{sections}"
    )


def measure_all(rounds: int, with_torch: bool) -> list[Row]:
    """Everything, one thing after the other."""
    rows = []
    for what, step, targets, base in (
        ("training step of a 9-layer network", "network_step", {"ours": 1.06, "keras": None}, "relu"),
        ("`fit` of that network, four batches", "fit_step", {"ours": 1.06, "keras": None}, "relu"),
        ("the layer alone, forward and backward", "layer_step", {"ours": 0.5, "relu": None}, "keras"),
    ):
        costs = measure(_factories(step, with_torch), rounds)
        rows += _time_rows(what, costs, targets, base)
        if "torch relu" in costs:
            rows += _time_rows(what, costs, {"torch prelu": None}, "torch relu")
    costs = measure(_factories("inference_step"), rounds)
    rows += _time_rows("inference of the exported network", costs, {"ours": 1.0}, "keras")
    rows += _time_rows("inference of the exported network", costs, {"ours": None}, "relu")
    costs = {}
    for name in steps_keras.RECTIFIERS:  # one by one: three of them together need 12 GB
        costs |= measure({name: partial(steps_keras.deep_network_step, name, DEEP_BATCH)}, rounds=7)
    rows += _memory_rows("peak memory of a training step, 30 layers", costs, {"ours": 1.05, "keras": None}, "relu")
    rows += _memory_rows("peak memory of a training step, 30 layers", costs, {"ours": 1.0}, "keras")
    return rows


def _factories(step: str, with_torch: bool = False) -> dict[str, partial]:
    factories = {name: partial(getattr(steps_keras, step), name) for name in steps_keras.RECTIFIERS}
    if with_torch and importlib.util.find_spec("torch"):
        from benchmarks import steps_torch

        if hasattr(steps_torch, step):
            factories |= {f"torch {name}": partial(getattr(steps_torch, step), name) for name in steps_torch.RECTIFIERS}
    return factories


def _time_rows(what: str, costs: dict[str, list[Cost]], targets: dict[str, float | None], base: str) -> list[Row]:
    def milliseconds(name: str) -> str:
        return f"{median_seconds(costs[name]) * 1e3:.1f}"

    rows = []
    for name, target in targets.items():
        low, median, high = time_ratios(costs[name], costs[base])
        figures = f"{milliseconds(name)} / {milliseconds(base)} ms"
        rows.append(Row(what, name, base, median, target, figures, f"{low:.3f}-{high:.3f}"))
    return rows


def _memory_rows(what: str, costs: dict[str, list[Cost]], targets: dict[str, float | None], base: str) -> list[Row]:
    def mebibytes(name: str) -> str:
        return f"{median_peak(costs[name]) / 2**20:.0f}"

    return [
        Row(
            what,
            name,
            base,
            median_peak(costs[name]) / median_peak(costs[base]),
            target,
            f"{mebibytes(name)} / {mebibytes(base)} MiB",
        )
        for name, target in targets.items()
    ]


def machine() -> str:
    """What ran, on what."""
    names = ["tensorflow", "keras", *(["torch"] if importlib.util.find_spec("torch") else [])]
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    return f"{cpu_name()}, {os.cpu_count()} threads, Python {platform.python_version()}, {versions}"


if __name__ == "__main__":
    main()
