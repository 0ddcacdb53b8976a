"""`assets.extra/export.json`: what a published version is, for people and for programs."""

import dataclasses
import hashlib
import json
import pathlib

import keras

from keras_prelu.tables import text_table
from training.exports.classifier import Classifier
from training.exports.formats import FORMATS
from training.exports.parity import TOLERANCE, Agreement
from training.runs.run import Run, versions

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
