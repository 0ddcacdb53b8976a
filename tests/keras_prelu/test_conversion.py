"""Exported networks become one PRELU per layer in LiteRT, in float and in int8, and one PRelu in ONNX."""

import subprocess
import sys

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
import tensorflow as tf

from keras_prelu import PReLU
from keras_prelu.onnx import export_onnx

pytestmark = [
    # TensorFlow announces LiteRT's own package, which has no converter
    pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated:UserWarning"),
    # Keras 3.15 looks for a name that NumPy 2 dropped when it prepares tf2onnx
    pytest.mark.filterwarnings("ignore:In the future `np.object` will be defined:FutureWarning"),
]

SLOPES = [{}, {"slope_per": "layer"}, {"slope_per": "group", "groups": 4}, {"slope_per": "element"}]


def network(arguments):
    keras.utils.set_random_seed(0)
    slopes = keras.initializers.RandomUniform(-0.2, 0.8, seed=1)
    return keras.Sequential(
        [
            keras.Input((12, 12, 3)),
            keras.layers.Conv2D(8, 3, padding="same"),
            PReLU(slopes, **arguments),
            keras.layers.Conv2D(8, 3),
            PReLU(slopes, **arguments),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(5),
        ]
    )


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).normal(size=(16, 12, 12, 3)).astype("float32")


def converted(model, images, directory, int8):
    model.export(directory, verbose=False)
    converter = tf.lite.TFLiteConverter.from_saved_model(str(directory))
    if int8:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([image[None]] for image in images)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    return tf.lite.Interpreter(model_content=converter.convert())


def answers(interpreter, images):
    interpreter.allocate_tensors()
    (inputs,), (outputs,) = interpreter.get_input_details(), interpreter.get_output_details()
    results = []
    for image in images:
        interpreter.set_tensor(inputs["index"], image[None])
        interpreter.invoke()
        results.append(interpreter.get_tensor(outputs["index"])[0])
    return np.array(results)


@pytest.mark.slow
@pytest.mark.parametrize("int8", [False, True], ids=["float", "int8"])
@pytest.mark.parametrize("arguments", SLOPES, ids=["channel", "layer", "group", "element"])
def test_litert_has_one_prelu_per_layer(images, tmp_path, arguments, int8):
    model = network(arguments)
    interpreter = converted(model, images, tmp_path / "model", int8)
    operations = [each["op_name"] for each in interpreter._get_ops_details()]
    of_the_model = [name for name in operations if name not in ("QUANTIZE", "DEQUANTIZE", "DELEGATE")]
    assert of_the_model == ["CONV_2D", "PRELU", "CONV_2D", "PRELU", "MEAN", "FULLY_CONNECTED"]
    expected = model(images).numpy()
    tolerance = 0.01 * np.ptp(expected) if int8 else 1e-6  # int8 has 256 steps: 0.4 % of the range each
    np.testing.assert_allclose(answers(interpreter, images), expected, atol=tolerance)


@pytest.mark.slow
@pytest.mark.parametrize("arguments", SLOPES[:3], ids=["channel", "layer", "group"])
def test_onnx_has_one_prelu_per_layer(images, tmp_path, arguments):
    model = network(arguments)
    export_onnx(model, tmp_path / "model.onnx")
    operations = [node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node]
    assert operations.count("PRelu") == 2
    assert not {"Relu", "Neg", "Add"} & set(operations)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    (found,) = session.run(None, {session.get_inputs()[0].name: images})
    np.testing.assert_allclose(found, model(images), atol=1e-6)


EXPORT = """
import resource, sys
import keras
from keras_prelu.onnx import export_onnx
model = keras.Sequential([keras.Input((4096,)), keras.layers.Dense(4096)])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
export_onnx(model, sys.argv[1])
print(1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / (4 * model.count_params()))
"""


@pytest.mark.slow
def test_onnx_takes_less_memory_than_35_copies_of_the_weights(tmp_path):
    command = [sys.executable, "-c", EXPORT, str(tmp_path / "model.onnx")]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=150, check=True)
    assert float(answer.stdout) < 35  # where tf2onnx alone takes about 60
