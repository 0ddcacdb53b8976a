"""Takes one trial, in a process and a folder of its own.

`python -m training.reproduce.take STUDY TRIAL WORKDIR` leaves the record in the trial's folder.
"""

import json
import math
import pathlib
import re
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

from training.errors import InputError, NotFiniteError, StoppedError
from training.interrupts import STOPPED_STATUS
from training.machine import cpu_info, cpu_name
from training.reproduce.studies import STUDIES
from training.reproduce.trial import RECORD, Trial
from training.run.folder import versions, write_whole


def main(argv: list[str]) -> int:
    """Takes a trial, and returns the exit status of its process."""
    study, name, workdir = STUDIES[argv[0]], argv[1], pathlib.Path(argv[2])
    trial = next(each for each in study.trials() if each.name == name)
    try:
        _record(trial, study.take, workdir / name)
    except InputError as error:
        print(error)
        return 2
    except StoppedError as error:
        print(error)
        return STOPPED_STATUS
    return 0


def _record(trial: Trial, take: Callable[[dict[str, Any], pathlib.Path], dict[str, Any]], folder: pathlib.Path) -> None:
    started = time.perf_counter()
    try:
        found = take(trial.settings, folder)
    except NotFiniteError as error:  # a network that diverges is a result
        found = {"failed": str(error)}
    usage = resource.getrusage(resource.RUSAGE_SELF)
    record = {
        "trial": trial.name,
        "settings": trial.settings,
        **found,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "clock_seconds": time.perf_counter() - started,
        "peak_mebibytes": usage.ru_maxrss / 1024,
        "machine": machine(),
        "versions": versions(),
    }
    text = json.dumps(rounded(record), allow_nan=False) + "\n"
    write_whole(folder / RECORD, lambda path: path.write_text(text))


def machine() -> str:
    """The CPU's name, its threads, and the instructions that decide how fast it multiplies matrices."""
    text = cpu_info()
    fast = [feature for feature in ("amx_bf16", "avx512_bf16", "avx512f", "avx2") if f" {feature} " in f"{text} "]
    return f"{cpu_name()}, {len(re.findall('^processor', text, re.MULTILINE))} threads" + (
        f", {fast[0]}" if fast else ""
    )


def rounded(value: Any) -> Any:
    """Numbers with five digits, and those that JSON lacks as text; lists and dicts of such."""
    if isinstance(value, dict):
        return {key: rounded(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(each) for each in value]
    if isinstance(value, float):
        return float(f"{value:.5g}") if math.isfinite(value) else str(value)
    return value


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
