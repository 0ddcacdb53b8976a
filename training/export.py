"""The writer's half of the contract between training and serving: a run's network as a SavedModel."""

import dataclasses
import hashlib
import json
import os
import pathlib
import tempfile
from typing import Any

import keras
import tensorflow as tf
from tensorflow_serving.apis import classification_pb2, predict_pb2, prediction_log_pb2

from training.config import Config
from training.datasets import open_image_set
from training.errors import InputError
from training.interrupts import removed_if_interrupted
from training.model import load_network
from training.preprocessing import decode_image
from training.run import Run, versions

TOP = 5  # classes in an answer to Classify, where the set has as many


def export(run: Run) -> pathlib.Path:
    """Publishes the network of a run's newest checkpoint as the next version below `<run>/export`.

    The version's folder appears whole or not at all: it is written beside the others under a name that is not a
    number, which no server takes for a version, and then renamed.

    Returns:
        The version's folder.

    Raises:
        InputError: The folder holds no run, or none that has saved a checkpoint.
    """
    config, labels, image_shape = run.read()
    model = load_network(run)
    encoded = _first_image(config.dataset, config.data_dir, config.test_split)
    try:
        run.exports.mkdir(exist_ok=True)
        unfinished = pathlib.Path(tempfile.mkdtemp(prefix=".unfinished-", dir=run.exports))
    except OSError as error:
        raise InputError(f"{run.exports} cannot be written: {error.strerror}") from None
    with removed_if_interrupted(unfinished):
        _write_saved_model(unfinished, model, labels, image_shape)
        _write_extra(unfinished, run, config, model, encoded)
        unfinished.chmod(0o755)  # mkdtemp lets only its owner in, and a server may run as another
        return _publish(unfinished, run.exports)


def make_signatures(
    model: keras.Model, labels: tuple[str, ...], image_shape: tuple[int, int, int]
) -> dict[str, tf.types.experimental.GenericFunction]:
    """Puts the contract's three signatures around a network that returns logits."""
    names = tf.constant(labels)
    top = min(TOP, len(labels))

    def scores(images: tf.Tensor) -> tf.Tensor:
        return tf.nn.softmax(tf.cast(model(images, training=False), tf.float32))

    def decode(encoded: tf.Tensor) -> tf.Tensor:
        shape = tf.TensorSpec(image_shape, tf.float32)
        return tf.map_fn(lambda one: decode_image(one, image_shape), encoded, fn_output_signature=shape)

    def predict(images: tf.Tensor) -> dict[str, tf.Tensor]:
        values = scores(images)
        return {"scores": values, "classes": tf.argmax(values, axis=-1, output_type=tf.int64)}

    def predict_bytes(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        return predict(decode(image_bytes))

    def classify(inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        parsed = tf.io.parse_example(inputs, {"image/encoded": tf.io.FixedLenFeature([], tf.string)})
        values, indices = tf.math.top_k(scores(decode(parsed["image/encoded"])), top)
        return {"classes": tf.gather(names, indices), "scores": values}

    strings = tf.TensorSpec([None], tf.string)
    return {
        "serving_default": _signature(predict, "images", tf.TensorSpec([None, *image_shape], tf.float32)),
        "image_bytes": _signature(predict_bytes, "image_bytes", strings),
        "classify": _signature(classify, "inputs", strings),
    }


def _signature(function: Any, name: str, spec: tf.TensorSpec) -> Any:
    return tf.function(function, input_signature=[tf.TensorSpec(spec.shape, spec.dtype, name)])


def _write_saved_model(
    folder: pathlib.Path, model: keras.Model, labels: tuple[str, ...], image_shape: tuple[int, int, int]
) -> None:
    module = tf.Module()  # what it holds is saved with the graph: the weights and the labels
    # The variables themselves: of the Keras objects around them TensorFlow would save second copies, and a session,
    # which is what TensorFlow Serving runs, would fill those and leave the graph's own empty.
    module.weights = [variable.value for variable in model.variables]
    with tempfile.TemporaryDirectory() as scratch:
        text = pathlib.Path(scratch) / "labels.txt"
        text.write_text("".join(f"{label}\n" for label in labels))
        module.labels = tf.saved_model.Asset(str(text))
        tf.saved_model.save(module, str(folder), signatures=make_signatures(model, labels, image_shape))


def _write_extra(folder: pathlib.Path, run: Run, config: Config, model: keras.Model, encoded: bytes) -> None:
    """Writes what TensorFlow Serving looks for, and keeps for people, under assets.extra."""
    extra = folder / "assets.extra"
    extra.mkdir()
    with tf.io.TFRecordWriter(str(extra / "tf_serving_warmup_requests")) as writer:
        for log in _warmup_requests(encoded):
            writer.write(log.SerializeToString())
    facts = {
        "config": dataclasses.asdict(config),
        "metrics": run.last_evaluation(),
        "versions": versions(),
        "weights_sha256": weights_sha256(model),
    }
    (extra / "export.json").write_text(json.dumps(facts, indent=2) + "\n")


def _warmup_requests(encoded: bytes) -> list[prediction_log_pb2.PredictionLog]:
    """Real requests, one of each kind that has strings to decode, replayed by the server before it answers anyone."""
    predict = predict_pb2.PredictRequest()
    predict.model_spec.signature_name = "image_bytes"
    predict.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto([encoded]))
    classify = classification_pb2.ClassificationRequest()
    classify.model_spec.signature_name = "classify"
    example = classify.input.example_list.examples.add()
    example.features.feature["image/encoded"].bytes_list.value.append(encoded)
    return [
        prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=predict)),
        prediction_log_pb2.PredictionLog(classify_log=prediction_log_pb2.ClassifyLog(request=classify)),
    ]


def weights_sha256(model: keras.Model) -> str:
    """A fingerprint of all weights, in the model's order."""
    digest = hashlib.sha256()
    for weights in model.get_weights():
        digest.update(weights.tobytes())
    return digest.hexdigest()


def _first_image(dataset: str, data_dir: str, split: str) -> bytes:
    (encoded, _) = next(iter(open_image_set(dataset, data_dir).encoded(split)))
    image: bytes = encoded.numpy()
    return image


def _publish(unfinished: pathlib.Path, exports: pathlib.Path) -> pathlib.Path:
    version = 1 + max((int(entry.name) for entry in exports.iterdir() if entry.name.isdigit()), default=0)
    target = exports / str(version)
    os.rename(unfinished, target)
    return target
