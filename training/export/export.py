"""The writer's half of the contract between training and serving: a run's network as a published version."""

import contextlib
import dataclasses
import errno
import hashlib
import json
import os
import pathlib
from collections.abc import Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf

from keras_prelu.tables import text_table
from training.classifier import Classifier, load_classifier, readable_images
from training.errors import InputError, TrainingError
from training.export.formats import FORMATS, check_formats
from training.export.parity import (
    TOLERANCE,
    Agreement,
    Sample,
    check,
    compare,
    compare_dense,
    compare_signatures,
    exact_products,
    in_batches,
)
from training.export.publishing import publish, remove_old, unfinished_folder
from training.export.signatures import (
    make_dense,
    make_dense_signatures,
    make_signatures,
    save_model,
    write_warmup_requests,
)
from training.run.folder import Run, versions

COMPARED = 32  # images of the test split
CALIBRATION = 100  # images of the training split


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """What is exported, and where.

    Attributes:
        output: The folder of the versions; None for the run's own.
        dense: Whether there are signatures for images of any size.
        formats: Names in `training.export.formats.FORMATS`.
        keep: How many versions stay, newest first; 0 for all.
        data_dir: Where the data lies now; empty for where it lay in training.

    Raises:
        InputError: `keep` is negative.
    """

    output: pathlib.Path | None = None
    dense: bool = False
    formats: tuple[str, ...] = ()
    keep: int = 0
    data_dir: str = ""

    def __post_init__(self) -> None:
        if self.keep < 0:
            raise InputError(f"keep is {self.keep}, but must be at least 1, or 0 for all")


def export(run: Run, options: ExportOptions | None = None) -> pathlib.Path:
    """Publishes the network of a run's newest checkpoint as the next version, once it gives the Keras model's scores.

    The version's folder appears whole or not at all.

    Returns:
        The version's folder.

    Raises:
        InputError: The folder holds no run, or none that has saved a checkpoint; a format that cannot be had here; a
            network that can have no dense signature; or a folder that cannot be written.
        TrainingError: The disk is full, or a score differs from the Keras model's; nothing was published.
    """
    options = options or ExportOptions()
    check_formats(options.formats)
    classifier = load_classifier(run).in_float32()
    samples = list(readable_images(classifier, classifier.config.test_split, COMPARED, options.data_dir))
    base = options.output or run.exports
    with unfinished_folder(base) as unfinished:
        with _writing(base), exact_products():
            folder = unfinished / "model"
            agreements = _write_saved_model(folder, classifier, samples, options.dense)
            (folder / EXTRA).mkdir()
            write_warmup_requests(folder / EXTRA / "tf_serving_warmup_requests", *samples[0], dense=options.dense)
            agreements |= _write_formats(folder / EXTRA, classifier, samples, options)
            write_facts(folder, run, classifier, Parity(len(samples), agreements))
            version = publish(folder, base)
        if options.keep:
            _remove_old(version, options.keep, unfinished)
    return version


def _write_saved_model(
    folder: pathlib.Path, classifier: Classifier, samples: Sequence[Sample], with_dense: bool
) -> dict[str, Agreement]:
    signatures, networks = make_signatures(classifier), [classifier.network]
    dense = make_dense(classifier) if with_dense else None
    if dense:
        signatures |= make_dense_signatures(dense)
        networks.append(dense.network)
    labels = folder.parent / "labels.txt"
    labels.write_text("".join(f"{label}\n" for label in classifier.labels))
    save_model(folder, signatures, networks, labels)
    loaded = tf.saved_model.load(str(folder)).signatures
    agreements = compare_signatures(loaded, classifier, samples)
    if dense:
        agreements |= compare_dense(loaded, dense, samples)
    check(agreements)
    return agreements


def _write_formats(
    folder: pathlib.Path, classifier: Classifier, samples: Sequence[Sample], options: ExportOptions
) -> dict[str, Agreement]:
    formats = {name: FORMATS[name] for name in options.formats}
    calibration: list[np.ndarray] = []
    if any(each.calibrated for each in formats.values()):
        train_split = classifier.config.train_split
        calibration = [pixels for _, pixels in readable_images(classifier, train_split, CALIBRATION, options.data_dir)]
    pixels = [pixels for _, pixels in samples]
    expected = in_batches(classifier.scores, pixels)
    agreements = {}
    for name, each in formats.items():
        path = folder / each.file
        each.write(classifier, path, calibration)
        agreements[name] = compare(expected, each.run(path, np.stack(pixels)))
        if not each.calibrated:  # in eight bits scores cannot agree; how often the best class does is told
            check({name: agreements[name]})
    return agreements


def _remove_old(version: pathlib.Path, keep: int, unfinished: pathlib.Path) -> None:
    try:
        remove_old(version.parent, keep, unfinished)
    except OSError as error:
        raise TrainingError(
            f"{version} is published, but an older version cannot be removed: {error.strerror}"
        ) from None


@contextlib.contextmanager
def _writing(base: pathlib.Path) -> Iterator[None]:
    """Says in one line that the disk is full, whoever found out."""
    try:
        yield
    except (OSError, tf.errors.OpError) as error:
        reason = error.strerror if isinstance(error, OSError) else _disk_error(error.message)
        if reason is None:
            raise
        raise TrainingError(f"{base} cannot be written: {reason}; nothing was published") from None


def _disk_error(message: str) -> str | None:
    """What the operating system said, where that is within what TensorFlow says."""
    texts = map(os.strerror, (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO))
    return next((text for text in texts if text in message), None)


EXTRA = "assets.extra"  # no server looks for a model in there; a model.tflite beside the graph some would serve
_FILE = pathlib.Path(EXTRA) / "export.json"


@dataclasses.dataclass(frozen=True)
class Parity:
    """How near everything that was exported is to the Keras model.

    Attributes:
        images: How many of the test split were compared.
        agreements: By signature and format.
    """

    images: int
    agreements: dict[str, Agreement]


def write_facts(folder: pathlib.Path, run: Run, classifier: Classifier, parity: Parity) -> None:
    """Writes `export.json` into a version's folder."""
    formats = {name: _format_facts(folder, name) for name in FORMATS if name in parity.agreements}
    facts = {
        "config": dataclasses.asdict(classifier.config),
        "metrics": run.last_evaluation(),
        "versions": versions(),
        "weights_sha256": weights_sha256(classifier.network),
        "preprocessing": classifier.preprocessing(),
        "formats": formats,
        "parity": {"split": classifier.config.test_split, "tolerance": TOLERANCE, **dataclasses.asdict(parity)},
    }
    (folder / _FILE).write_text(json.dumps(facts, indent=2) + "\n")


def describe(version: pathlib.Path) -> str:
    """A version's agreement with the Keras model as a table."""
    parity = json.loads((version / _FILE).read_text())["parity"]
    header = [f"{parity['images']} images of {parity['split']}", "largest difference", "same best class"]
    rows = [(name, each["largest_difference"], each["top1"]) for name, each in parity["agreements"].items()]
    return text_table(header, rows)


def weights_sha256(model: keras.Model) -> str:
    """A fingerprint of all weights, in the model's order."""
    digest = hashlib.sha256()
    for weights in model.get_weights():
        digest.update(weights.tobytes())
    return digest.hexdigest()


def _format_facts(folder: pathlib.Path, name: str) -> dict[str, str | int]:
    file = f"{EXTRA}/{FORMATS[name].file}"
    return {"file": file, "bytes": (folder / file).stat().st_size, **FORMATS[name].facts}
