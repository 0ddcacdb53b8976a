"""Saves a run's state while training continues, and restores it from the newest checkpoint that is whole.

A checkpoint is one file, `<step>.npz`, which any NumPy reads: an array for each variable, under its part and its place
in it (`model/0/conv1_1/kernel`), each with a checksum, and `num_arrays`, how many they are. It appears whole or not at
all, and holds nothing of the devices it came from.
"""

import os
import pathlib
import struct
import sys
import zipfile
import zlib
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any

import keras
import numpy as np

from training.errors import InputError, NotFiniteError, TrainingError
from training.interrupts import removed_if_interrupted

# What reading a truncated or altered archive may raise, whichever of its bytes is wrong.
_DAMAGE = (OSError, EOFError, ValueError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error, struct.error)

BEST = "best.npz"


class Checkpoints:
    """The checkpoints of one run.

    Args:
        folder: Where they lie.
        model: Built model.
        keep: How many stay, newest first.
        writes: Whether this process is the one that writes. Where several workers train, every one of them must call
            `save` nevertheless, for a variable may have to be gathered from all.
        **parts: What else belongs to the state, by its name: anything with `variables`, such as a built optimizer.
            Only what is named here is restored: a reader may take the model alone.
    """

    def __init__(
        self, folder: pathlib.Path, model: keras.Model, *, keep: int = 3, writes: bool = True, **parts: Any
    ) -> None:
        self._folder = folder
        self._keep = keep
        self._writes = writes
        self._parts = {name: list(part.variables) for name, part in ({"model": model} | parts).items()}
        self._step = 0  # of the newest checkpoint that is known to be whole
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._writing: Future[None] | None = None

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._thread.shutdown()  # a write that is going on is finished, whatever ends the run
        if error is None:
            self.wait()

    def save(self, step: int, *, due: bool = True, best: bool = False) -> None:
        """Copies the state of a step and has it written in the background.

        Args:
            step: Steps done.
            due: Whether it becomes `<step>.npz`, unless that step is saved already.
            best: Whether it becomes `best.npz`, in place of what was the best before.

        Raises:
            NotFiniteError: Weights are not finite; nothing is written.
            TrainingError: The checkpoint before could not be written.
        """
        due = due and step != self._step
        # The best first: a run that resumes from `<step>.npz` relies on its best being kept.
        names = [BEST] * best + [f"{step}.npz"] * due
        if not names:
            return
        self.wait()
        values = {
            f"{part}/{index}/{_path(variable)}": variable.numpy()
            for part, variables in self._parts.items()
            for index, variable in enumerate(variables)
        }
        if not all(np.isfinite(value).all() for value in _of_part(values, "model").values()):
            raise NotFiniteError(step)
        if self._writes:
            self._writing = self._thread.submit(self._write, names, step, values)
        if due:
            self._step = step

    @property
    def is_writing(self) -> bool:
        """Whether a checkpoint is being written."""
        return self._writing is not None and not self._writing.done()

    def check(self) -> None:
        """Raises what `save` would, if a write has failed by now."""
        if not self.is_writing:
            self.wait()

    def wait(self) -> None:
        """Waits until nothing is being written, and raises what `save` would."""
        writing, self._writing = self._writing, None
        if writing is None:
            return
        try:
            writing.result()
        except OSError as error:
            raise TrainingError(
                f"no checkpoint can be written to {self._folder}: {error.strerror}; those before it are whole, and "
                "the same command resumes from them"
            ) from None

    def restore_best(self) -> int:
        """Fills the state from `best.npz` and returns its step, or 0 where there is none.

        Raises:
            InputError: It cannot be read, or is of another network.
        """
        path = self._folder / BEST
        if not path.exists():
            return 0
        values = _read(path)
        self._fill(values, path)
        return int(values["step"])

    def restore(self) -> int:
        """Fills the state from the newest checkpoint that can be read, and returns its step, or 0 without any.

        A damaged one is passed over, with a line on standard error.

        Raises:
            InputError: There are checkpoints, but none can be read; or it is of another network.
        """
        damaged: list[str] = []
        for path in self._newest_first():
            try:
                values = _read(path)
            except _DamagedError as error:
                damaged.append(f"{path.name} ({error.reason})")
                continue
            self._fill(values, path)
            self._step = int(path.stem)
            if damaged:
                print(f"training: damaged: {', '.join(damaged)}; going on from {path.name}", file=sys.stderr)
            return self._step
        if damaged:
            raise InputError(f"no checkpoint in {self._folder} can be read: {', '.join(damaged)}; restore one of them")
        return 0

    def _write(self, names: list[str], step: int, values: dict[str, Any]) -> None:
        unfinished = self._folder / "unfinished"  # one name for all: what a killed process left is written over
        with removed_if_interrupted(unfinished):
            self._folder.mkdir(parents=True, exist_ok=True)
            for name in names:
                with unfinished.open("wb") as file:
                    np.savez(file, **values, step=step, num_arrays=len(values) + 1)
                    file.flush()
                    os.fsync(file.fileno())
                unfinished.replace(self._folder / name)
        _sync(self._folder)
        # One beyond this step was damaged, or this run would have gone on from it.
        kept = [path for path in self._newest_first() if int(path.stem) <= step][: self._keep]
        for path in set(self._newest_first()) - set(kept):
            path.unlink()

    def _newest_first(self) -> list[pathlib.Path]:
        paths = [path for path in self._folder.glob("*.npz") if path.stem.isdigit()]
        return sorted(paths, key=lambda path: int(path.stem), reverse=True)

    def _fill(self, values: dict[str, np.ndarray], path: pathlib.Path) -> None:
        wanted = {part: _of_part(values, part) for part in self._parts}
        for part, variables in self._parts.items():
            _refuse_another(path, part, wanted[part], variables)
        for part, variables in self._parts.items():
            for variable, value in zip(variables, wanted[part].values(), strict=True):
                variable.assign(value)


class _DamagedError(InputError):
    def __init__(self, path: pathlib.Path, reason: str) -> None:
        super().__init__(f"{path} cannot be read: {reason}")
        self.reason = reason


def _read(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()  # before NumPy takes a size from a damaged header
        if broken:
            raise _DamagedError(path, f"the checksum of {broken} is wrong")
        with np.load(path) as file:
            arrays = dict(file)
        num_arrays = arrays.pop("num_arrays")
    except _DAMAGE as error:
        raise _DamagedError(path, str(error).strip() or type(error).__name__) from None
    if num_arrays != len(arrays):  # what lists the arrays has no checksum: damaged, it may end too soon
        raise _DamagedError(path, f"only {len(arrays)} arrays are left in it")
    return arrays


def _of_part(values: dict[str, np.ndarray], part: str) -> dict[str, np.ndarray]:
    return {name: value for name, value in values.items() if name.startswith(f"{part}/")}


def _refuse_another(path: pathlib.Path, part: str, stored: dict[str, np.ndarray], variables: list[Any]) -> None:
    advice = "resume with the config that it was trained with, or name another --workdir"
    if len(stored) != len(variables):
        raise InputError(
            f"{path} is of another network: it holds {len(stored)} variables of the {part}, which has "
            f"{len(variables)}; {advice}"
        )
    for (name, value), variable in zip(stored.items(), variables, strict=True):
        if value.shape != tuple(variable.shape):
            raise InputError(
                f"{path} is of another network or another number of classes: {name} has shape {value.shape}, "
                f"but is {tuple(variable.shape)} here; {advice}"
            )


def _path(variable: Any) -> str:
    return str(variable.path if isinstance(variable, keras.Variable) else variable.name.partition(":")[0])


def _sync(folder: pathlib.Path) -> None:
    """Makes a new name in a folder outlast a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
