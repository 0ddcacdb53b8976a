"""Takes the trials of a study that are not on record yet, several at a time, each in a process of its own."""

import json
import os
import pathlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed

from tqdm import tqdm

from training.errors import InputError, TrainingError
from training.reproduce.studies import STUDIES
from training.reproduce.study import Study
from training.reproduce.trial import Record, Trial


def take_missing(name: str, workdir: pathlib.Path, jobs: int) -> list[Record]:
    """Takes a study's trials that are not on record yet, and puts each on record as it ends.

    Args:
        name: The study.
        workdir: Holds the records, `*.jsonl`, and a folder for each trial.
        jobs: Trials to take at a time, each with one thread.

    Returns:
        The records of all trials, in the study's order.

    Raises:
        TrainingError: A trial ended without a record. Those that are on record stay, and one that was training goes on
            from its newest checkpoint.
    """
    study = STUDIES[name]
    _make(workdir)
    trials, on_record = study.trials(), records_of(study, workdir)
    missing = [trial for trial in trials if not any(map(trial.is_that_of, on_record))]
    running: list[subprocess.Popen[bytes]] = []
    with (
        ThreadPoolExecutor(jobs if study.parallel else 1) as pool,
        tqdm(total=len(trials), initial=len(trials) - len(missing), unit=" trials", desc=name) as bar,
    ):
        futures = {pool.submit(_take, name, trial, workdir, running): trial for trial in missing}
        try:
            for future in as_completed(futures):
                with (workdir / futures[future].file).open("a") as file:
                    file.write(json.dumps(future.result()) + "\n")
                bar.update()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in running:
                process.terminate()  # saves a run that is training
    return records_of(study, workdir)


def records_of(study: Study, workdir: pathlib.Path) -> list[Record]:
    """The records of a study's trials with the settings that they have now, in the study's order."""
    trials = study.trials()
    by_name = {
        record["trial"]: record for file in sorted({trial.file for trial in trials}) for record in _read(workdir / file)
    }
    return [record for trial in trials if (record := by_name.get(trial.name)) and trial.is_that_of(record)]


def _read(path: pathlib.Path) -> list[Record]:
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]  # a process may die within a line


def _make(workdir: pathlib.Path) -> None:
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{workdir} cannot hold trials: {error.strerror}; name another --workdir") from None


def _take(name: str, trial: Trial, workdir: pathlib.Path, running: list["subprocess.Popen[bytes]"]) -> Record:
    folder = workdir / trial.name
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
            f"the trial {trial.name} ended with status {status}: {said[-1] if said else 'it said nothing'}; "
            f"{log} has the rest, and the same command goes on"
        )
    found: Record = json.loads(record.read_text())
    return found
