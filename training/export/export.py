"""The writer's half of the contract between training and serving: publishes a run's network as a version."""

import contextlib
import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf

from keras_prelu.tables import text_table
from training.classifier import Classifier, load_classifier, readable_images
from training.data.datasets import open_images_of
from training.data.image_set import ImageSet
from training.errors import InputError, TrainingError
from training.export import parity
from training.export.formats import FORMATS, check_formats
from training.export.parity import Agreement, Sample
from training.export.publishing import publish, remove_old, unfinished_folder
from training.export.signatures import make_dense_signatures, make_signatures, save_model, write_warmup_requests
from training.run.folder import Run, versions

COMPARED = 32  # images of the test split
CALIBRATION = 100  # images of the training split
EXTRA = "assets.extra"  # no server looks for a model in there; a model.tflite beside the graph some would serve
_FACTS = pathlib.Path(EXTRA) / "export.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """What is exported, and where.

    Attributes:
        output: The folder of the versions; None for the run's own.
        checkpoint: `last` or `best`.
        dense: Whether there are signatures for images of any size.
        formats: Names in `training.export.formats.FORMATS`.
        keep: The number of versions that stay, newest first; 0 for all.
        data_dir: The folder of the data; empty for where it was in training.
    """

    output: pathlib.Path | None = None
    checkpoint: str = "last"
    dense: bool = False
    formats: tuple[str, ...] = ()
    keep: int = 0
    data_dir: str = ""

    def __post_init__(self) -> None:
        if self.keep < 0:
            raise InputError(f"keep is {self.keep}, but must be at least 1, or 0 for all")


def export(run: Run, options: ExportOptions | None = None) -> pathlib.Path:
    """Publishes a run's network as the next version, once that gives the Keras model's scores; returns its folder.

    Raises:
        InputError: The folder holds no such checkpoint; a format that is not available here; a network that can have
            no dense signature; or a folder that cannot be written.
        TrainingError: The disk is full, or a score differs from the Keras model's; nothing was published.
    """
    options = options or ExportOptions()
    check_formats(options.formats)
    classifier = load_classifier(run, options.checkpoint).in_float32()
    images = open_images_of(classifier.config, options.data_dir)
    samples = list(readable_images(classifier, images, classifier.config.test_split, COMPARED))
    base = options.output or run.exports
    with unfinished_folder(base) as unfinished:
        with _writing(base), parity.exact_products():
            folder = unfinished / "model"
            agreements = _write_saved_model(folder, classifier, samples, options.dense)
            (folder / EXTRA).mkdir()
            write_warmup_requests(folder / EXTRA / "tf_serving_warmup_requests", *samples[0], dense=options.dense)
            agreements |= _write_formats(folder / EXTRA, classifier, samples, options.formats, images)
            _write_facts(folder, run, classifier, len(samples), agreements)
            version = publish(folder, base)
        if options.keep:
            try:
                remove_old(base, options.keep, unfinished)
            except OSError as error:
                raise TrainingError(
                    f"{version} is published, but an older version cannot be removed: {error.strerror}"
                ) from None
    return version


def describe(version: pathlib.Path) -> str:
    """A version's agreement with the Keras model as a table."""
    found = json.loads((version / _FACTS).read_text())["parity"]
    header = [f"{found['images']} images of {found['split']}", "largest difference", "same best class"]
    rows = [(name, each["largest_difference"], each["top1"]) for name, each in found["agreements"].items()]
    return text_table(header, rows)


def weights_sha256(model: keras.Model) -> str:
    """A fingerprint of all weights, in the model's order."""
    digest = hashlib.sha256()
    for weights in model.get_weights():
        digest.update(weights.tobytes())
    return digest.hexdigest()


def _write_saved_model(
    folder: pathlib.Path, classifier: Classifier, samples: Sequence[Sample], with_dense: bool
) -> dict[str, Agreement]:
    signatures, networks = make_signatures(classifier), [classifier.network]
    dense = classifier.dense() if with_dense else None
    if dense:
        signatures |= make_dense_signatures(dense)
        networks.append(dense.network)
    labels = folder.parent / "labels.txt"
    labels.write_text("".join(f"{label}\n" for label in classifier.labels))
    save_model(folder, signatures, networks, labels)
    loaded = tf.saved_model.load(str(folder)).signatures
    agreements = parity.compare_signatures(loaded, classifier, samples)
    if dense:
        agreements |= parity.compare_dense(loaded, dense, samples)
    parity.check(agreements)
    return agreements


def _write_formats(
    folder: pathlib.Path, classifier: Classifier, samples: Sequence[Sample], names: Sequence[str], images: ImageSet
) -> dict[str, Agreement]:
    calibration: list[np.ndarray] = []
    if any(FORMATS[name].calibrated for name in names):
        found = readable_images(classifier, images, classifier.config.train_split, CALIBRATION)
        calibration = [pixels for _, pixels in found]
    pixels = [pixels for _, pixels in samples]
    expected = parity.in_batches(classifier.scores, pixels)
    agreements = {}
    for name in names:
        each = FORMATS[name]
        path = folder / each.file
        each.write(classifier, path, calibration)
        agreements[name] = parity.compare(expected, each.run(path, np.stack(pixels)))
        if not each.calibrated:  # in eight bits scores cannot agree; the share of equal best classes is shown
            parity.check({name: agreements[name]})
    return agreements


def _write_facts(
    folder: pathlib.Path, run: Run, classifier: Classifier, num_images: int, agreements: dict[str, Agreement]
) -> None:
    evaluations = [e for e in run.events() if e["event"] == "evaluation" and e["step"] <= classifier.step]
    formats = {}
    for name in (name for name in FORMATS if name in agreements):
        file = f"{EXTRA}/{FORMATS[name].file}"
        formats[name] = {"file": file, "bytes": (folder / file).stat().st_size, **FORMATS[name].facts}
    facts = {
        "config": dataclasses.asdict(classifier.config),
        "checkpoint": classifier.checkpoint,
        "step": classifier.step,
        "metrics": evaluations[-1] if evaluations else {},
        "versions": versions(),
        "weights_sha256": weights_sha256(classifier.network),
        "preprocessing": classifier.preprocessing(),
        "formats": formats,
        "parity": {
            "split": classifier.config.test_split,
            "tolerance": parity.TOLERANCE,
            "images": num_images,
            "agreements": {name: dataclasses.asdict(each) for name, each in agreements.items()},
        },
    }
    (folder / _FACTS).write_text(json.dumps(facts, indent=2) + "\n")


@contextlib.contextmanager
def _writing(base: pathlib.Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise TrainingError(f"{base} cannot be written: {error.strerror}; nothing was published") from None
