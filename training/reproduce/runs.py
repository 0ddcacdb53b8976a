"""Takes the trials of a study that are not on record yet, several at a time, each in a process of its own."""

import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed

from tqdm import tqdm

from training.errors import InputError, TrainingError
from training.reproduce.studies import STUDIES
from training.reproduce.trial import Record, Trial

_STOP = 15  # seconds that a trial has to save itself


def take_missing(name: str, workdir: pathlib.Path, jobs: int) -> list[Record]:
    """Takes a study's trials that `<workdir>/<name>.jsonl` does not hold, and appends a line to it as each ends.

    Args:
        name: The study.
        workdir: Has the file, and a folder of the study with a folder for each of its trials.
        jobs: Trials to take at a time, each with one thread.

    Returns:
        The records of all trials, in the study's order.

    Raises:
        TrainingError: A trial ended without a record. Those that are on record stay, and one that was training goes on
            from its newest checkpoint.
    """
    study, path = STUDIES[name], workdir / f"{name}.jsonl"
    _make(workdir)
    missing = [trial for trial in study.trials() if not _recorded(trial, read(path))]
    done = len(study.trials()) - len(missing)
    running: list[subprocess.Popen[bytes]] = []
    with (
        ThreadPoolExecutor(jobs if study.parallel else 1) as pool,
        tqdm(total=done + len(missing), initial=done, unit=" trials", desc=name) as bar,
    ):
        futures = [pool.submit(_take, name, trial, workdir, running) for trial in missing]
        try:
            for record in _as_they_end(futures):
                with path.open("a") as file:
                    file.write(json.dumps(record) + "\n")
                bar.update()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in running:
                process.terminate()  # saves a run that is training
    records = read(path)
    return [record for trial in study.trials() for record in records if trial.is_that_of(record)]


def read(path: pathlib.Path) -> list[Record]:
    """The records of a file; none where there is no file yet."""
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]  # a process may die within a line


def _recorded(trial: Trial, records: list[Record]) -> bool:
    return any(trial.is_that_of(record) for record in records)


def _make(workdir: pathlib.Path) -> None:
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{workdir} cannot hold trials: {error.strerror}; name another --workdir") from None


def _as_they_end(futures: "list[Future[Record]]") -> Iterator[Record]:
    for future in as_completed(futures):
        yield future.result()


def _take(name: str, trial: Trial, workdir: pathlib.Path, running: list["subprocess.Popen[bytes]"]) -> Record:
    folder = workdir / name / trial.name
    folder.mkdir(parents=True, exist_ok=True)
    log, record = folder / "log.txt", folder / "record.json"
    record.unlink(missing_ok=True)  # of other settings
    one_thread = {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
    with log.open("ab") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "training.reproduce.trial", name, trial.name, str(workdir)],
            env=os.environ | one_thread,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
        running.append(process)
        status = process.wait()
        running.remove(process)
    if status or not record.exists():
        said = log.read_text(errors="replace").strip().splitlines()
        raise TrainingError(
            f"the trial {trial.name} of {name} ended with status {status}: {said[-1] if said else 'it said nothing'}; "
            f"{log} has the rest, and the same command goes on"
        )
    found: Record = json.loads(record.read_text())
    return found
