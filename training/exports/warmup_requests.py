"""Real requests that a server replays when it loads a version, so that the first caller does not wait."""

import pathlib

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import classification_pb2, predict_pb2, prediction_log_pb2


def write_warmup_requests(path: pathlib.Path, encoded: bytes, pixels: np.ndarray, dense: bool) -> None:
    """Writes a request for each signature, with one image.

    Args:
        path: The file, `tf_serving_warmup_requests` in `assets.extra`.
        encoded: The image.
        pixels: The same as the network sees it, `[height, width, channels]`.
        dense: Whether there are dense signatures.
    """
    images, image_bytes = pixels[np.newaxis], [encoded]
    logs = [_predict("serving_default", "images", images), _predict("image_bytes", "image_bytes", image_bytes)]
    if dense:
        logs += [_predict("dense", "images", images), _predict("dense_bytes", "image_bytes", image_bytes)]
    with tf.io.TFRecordWriter(str(path)) as writer:
        for log in (*logs, _classify(encoded)):
            writer.write(log.SerializeToString())


def make_example(encoded: bytes) -> tf.train.Example:
    """What the signature `classify` takes for an encoded image."""
    example = tf.train.Example()
    example.features.feature["image/encoded"].bytes_list.value.append(encoded)
    return example


def _predict(signature: str, name: str, values: list[bytes] | np.ndarray) -> prediction_log_pb2.PredictionLog:
    request = predict_pb2.PredictRequest()
    request.model_spec.signature_name = signature
    request.inputs[name].CopyFrom(tf.make_tensor_proto(values))
    return prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=request))


def _classify(encoded: bytes) -> prediction_log_pb2.PredictionLog:
    request = classification_pb2.ClassificationRequest()
    request.model_spec.signature_name = "classify"
    request.input.example_list.examples.append(make_example(encoded))
    return prediction_log_pb2.PredictionLog(classify_log=prediction_log_pb2.ClassifyLog(request=request))
