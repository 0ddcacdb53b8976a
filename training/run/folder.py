"""A run's folder: its config, checkpoints, TensorBoard logs, metrics and exports, and the lock of its process."""

import contextlib
import dataclasses
import json
import os
import pathlib
import platform
import shutil
import socket
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from typing import Any

from filelock import FileLock, Timeout

from training.config import Config, from_dict
from training.errors import InputError
from training.interrupts import removed_if_interrupted
from training.kernels import onednn_in_use

_LIBRARIES = ("keras_prelu", "tensorflow", "keras", "tensorflow-datasets", "numpy")


@dataclasses.dataclass(frozen=True)
class Run:
    """The folder of one run.

    | path | what it holds |
    |---|---|
    | `config.json` | the resolved config, the labels, the image's shape, versions, devices, whether oneDNN is used |
    | `checkpoints/` | `<step>.npz` (see `training.run.checkpoint`); the lock of the process that trains here |
    | `trackers.json` | the id of this run for each experiment tracker that it was sent to |
    | `tensorboard/` | what TensorBoard shows |
    | `metrics.jsonl` | one object per line (see docs/metrics.md) |
    | `model.keras`, `best.keras` | the network at the end and at its best evaluation, once the run has ended |
    | `mean.npy` | the training images' mean, where the network subtracts it |
    | `network.keras` | a copy of the Keras file that the network was made of, where it was |
    | `export/<version>/` | SavedModels |
    """

    folder: pathlib.Path

    @property
    def checkpoints(self) -> pathlib.Path:
        """Where checkpoints go."""
        return self.folder / "checkpoints"

    @property
    def has_checkpoint(self) -> bool:
        """Whether the run has saved a checkpoint to resume from."""
        return any(path.stem.isdigit() for path in self.checkpoints.glob("*.npz"))

    @property
    def mean(self) -> pathlib.Path:
        """The training images' mean."""
        return self.folder / "mean.npy"

    @property
    def network(self) -> pathlib.Path:
        """The run's own copy of the `.keras` file that its network was made of, where there is one."""
        return self.folder / "network.keras"

    @property
    def model(self) -> pathlib.Path:
        """The network as a run that has ended leaves it, a Keras file."""
        return self.folder / "model.keras"

    @property
    def best_model(self) -> pathlib.Path:
        """The network at its best evaluation, a Keras file."""
        return self.folder / "best.keras"

    @property
    def tensorboard(self) -> pathlib.Path:
        """Where TensorBoard's events go."""
        return self.folder / "tensorboard"

    @property
    def exports(self) -> pathlib.Path:
        """The base path that a model server is given."""
        return self.folder / "export"

    @property
    def metrics(self) -> pathlib.Path:
        """The lines of figures."""
        return self.folder / "metrics.jsonl"

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Makes the folder, and keeps other processes from training in it; reading it is free.

        Raises:
            InputError: The folder cannot be written, or another process trains in it.
        """
        lock = self.checkpoints / "lock"
        holder = self.checkpoints / "lock.holder"  # a file of its own, for Windows lets none read a locked one
        with contextlib.ExitStack() as stack:
            with self._writing():
                self.checkpoints.mkdir(parents=True, exist_ok=True)
                try:
                    stack.enter_context(FileLock(lock).acquire(timeout=0))
                except Timeout:
                    who = holder.read_text() if holder.exists() else "another process"
                    raise InputError(
                        f"{lock} is held by {who}: wait until it ends, or name another --workdir"
                    ) from None
                holder.write_text(f"process {os.getpid()} on {socket.gethostname()}")
            yield

    def start(
        self, config: Config, labels: tuple[str, ...], image_shape: tuple[int, int, int], devices: Sequence[str]
    ) -> None:
        """Writes the config into the folder, or checks that it already holds this run; copies a network's Keras file.

        Raises:
            InputError: The folder cannot be written, or holds a run of another config.
        """
        if (self.folder / "config.json").exists():
            self._refuse_another(config, labels)
        stored = {
            "config": dataclasses.asdict(config),
            "labels": labels,
            "image_shape": image_shape,
            "versions": versions(),
            "devices": list(devices),
            "onednn": onednn_in_use(),
        }
        with self._writing():
            if config.network.endswith(".keras") and not self.network.exists():
                source = pathlib.Path(config.network).expanduser()
                write_whole(self.network, lambda path: shutil.copyfile(source, path))
            text = json.dumps(stored, indent=2) + "\n"
            write_whole(self.folder / "config.json", lambda path: path.write_text(text))

    def read(self) -> tuple[Config, tuple[str, ...], tuple[int, int, int]]:
        """The config, the labels and the image's shape that the run was started with.

        Raises:
            InputError: The folder holds no run.
        """
        try:
            stored = self._stored()
            height, width, channels = stored["image_shape"]
            return from_dict(stored["config"]), tuple(stored["labels"]), (height, width, channels)
        except (OSError, ValueError, TypeError, KeyError):
            raise InputError(
                f"{self.folder} holds no run (a readable config.json); `fit --workdir {self.folder}` would start one"
            ) from None

    def onednn(self) -> bool | None:
        """Whether the run was last trained with oneDNN's kernels; None where no run says so."""
        try:
            onednn = self._stored()["onednn"]
        except (OSError, ValueError, TypeError, KeyError):
            return None
        return onednn if isinstance(onednn, bool) else None

    def log(self, event: str, step: int, figures: dict[str, float]) -> None:
        """Appends a line to `metrics.jsonl`."""
        with self.metrics.open("a") as file:
            file.write(json.dumps({"event": event, "step": step, **figures}) + "\n")

    def rewind(self, step: int) -> None:
        """Drops the lines of `metrics.jsonl` beyond a step, which a resumed run will write again."""
        kept = [event for event in self.events() if event["step"] <= step]
        text = "".join(json.dumps(event) + "\n" for event in kept)
        write_whole(self.metrics, lambda path: path.write_text(text))

    def last_evaluation(self) -> dict[str, Any]:
        """The newest evaluation's line; empty where there is none."""
        return next((event for event in reversed(self.events()) if event["event"] == "evaluation"), {})

    def surroundings(self) -> list[tuple[str, str]]:
        """Names and versions of the libraries that the run last resumed with, and its devices."""
        stored = self._stored()
        return [*stored["versions"].items(), ("devices", ", ".join(stored["devices"]))]

    def events(self) -> list[dict[str, Any]]:
        """The lines of `metrics.jsonl`."""
        if not self.metrics.exists():
            return []
        lines = self.metrics.read_text().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]  # a process may die within a line

    def _stored(self) -> dict[str, Any]:
        stored: dict[str, Any] = json.loads((self.folder / "config.json").read_text())
        return stored

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise InputError(f"{self.folder} cannot hold a run: {error.strerror}; name another --workdir") from None

    def _refuse_another(self, config: Config, labels: tuple[str, ...]) -> None:
        stored, stored_labels, _ = self.read()
        differing = [
            f"{field.name}={getattr(stored, field.name)!r}, not {getattr(config, field.name)!r}"
            for field in dataclasses.fields(Config)
            if not field.metadata["changeable"] and getattr(stored, field.name) != getattr(config, field.name)
        ]
        if differing or labels != stored_labels:
            what = "; ".join(differing) or f"the classes {', '.join(stored_labels)}"
            raise InputError(f"{self.folder} holds a run with {what}: resume with the same, or name another --workdir")


def write_whole(path: pathlib.Path, write: Callable[[pathlib.Path], Any]) -> None:
    """Writes a file whole or not at all: `write` gets another name with the same ending."""
    temporary = path.with_name(f"unfinished-{path.name}")
    with removed_if_interrupted(temporary):
        write(temporary)
        temporary.replace(path)


def versions() -> dict[str, str]:
    """The versions of Python and of the libraries that decide a run's numbers."""
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in _LIBRARIES}
