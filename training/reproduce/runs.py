"""Takes the trials of a study that are not on record yet, several at a time, each in a process of its own."""

import json
import os
import pathlib
import subprocess
import sys
import time

from tqdm import tqdm

from training.distribute.local_workers import end_with
from training.errors import InputError, StoppedError, TrainingError
from training.interrupts import stop_requests
from training.reproduce.studies import STUDIES
from training.reproduce.study import Study
from training.reproduce.trial import RECORD, Record, Trial

_LOOK_SECONDS = 0.1
_ONE_THREAD = {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}


def take_missing(name: str, workdir: pathlib.Path, jobs: int) -> None:
    """Takes a study's trials that are not on record yet, and puts each on record as it ends.

    Args:
        name: The study.
        workdir: Holds the records, `*.jsonl`, and a folder for each trial.
        jobs: Trials to take at a time, each with one thread; timed ones are taken one by one.

    Raises:
        InputError: The folder cannot be written.
        TrainingError: A trial ended without a record. Those that are on record stay, and one that was training resumes
            from its newest checkpoint.
        StoppedError: SIGTERM has come; the trials that were training are saved.
    """
    study = STUDIES[name]
    trials, records = study.trials(), records_of(study, workdir)
    waiting = [trial for trial in trials if not any(map(trial.is_that_of, records))]
    running: list[tuple[Trial, subprocess.Popen[bytes]]] = []
    with (
        stop_requests() as should_stop,
        tqdm(total=len(trials), initial=len(trials) - len(waiting), unit=" trials", desc=name) as bar,
    ):
        try:
            while waiting or running:
                while waiting and len(running) < (jobs if study.parallel else 1):
                    running.append((trial := waiting.pop(0), _start(name, trial, workdir)))
                time.sleep(_LOOK_SECONDS)
                if should_stop():
                    raise StoppedError(f"stopped; {workdir} holds what is done, and the same command resumes")
                for ended in [each for each in running if each[1].poll() is not None]:
                    running.remove(ended)
                    _put_on_record(*ended, workdir)
                    bar.update()
        finally:
            for _, process in running:
                process.terminate()  # one that is training saves its state
            for _, process in running:
                process.wait()


def records_of(study: Study, workdir: pathlib.Path) -> list[Record]:
    """The records of a study's trials with the settings that they have now, in the study's order."""
    trials = study.trials()
    files = sorted({trial.file for trial in trials})
    by_name = {record["trial"]: record for file in files for record in _read(workdir / file)}
    return [record for trial in trials if (record := by_name.get(trial.name)) and trial.is_that_of(record)]


def _read(path: pathlib.Path) -> list[Record]:
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]  # a process may die within a line


def _start(name: str, trial: Trial, workdir: pathlib.Path) -> subprocess.Popen[bytes]:
    folder = workdir / trial.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / RECORD).unlink(missing_ok=True)  # of other settings
        with (folder / "log.txt").open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "training.reproduce.take", name, trial.name, str(workdir)],
                env=os.environ | _ONE_THREAD,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                process_group=0,  # so that a terminal's Ctrl-C reaches this process alone
                preexec_fn=end_with(os.getpid()),
            )
    except OSError as error:
        raise InputError(f"{folder} cannot hold a trial: {error.strerror}; name another --workdir") from None


def _put_on_record(trial: Trial, process: subprocess.Popen[bytes], workdir: pathlib.Path) -> None:
    folder = workdir / trial.name
    if process.returncode:
        said = (folder / "log.txt").read_text(errors="replace").strip().splitlines()
        raise TrainingError(
            f"the trial {trial.name} ended with status {process.returncode}: {said[-1] if said else 'it said nothing'}"
            f"; {folder / 'log.txt'} has all it said, and the same command resumes"
        )
    try:
        with (workdir / trial.file).open("a") as file:
            file.write((folder / RECORD).read_text())
    except OSError as error:
        raise TrainingError(
            f"{workdir} cannot be written any more: {error.strerror}; the same command resumes"
        ) from None
