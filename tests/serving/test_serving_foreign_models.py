"""Models that this project did not make, answered over both transports: TF1 graphs, tf.Modules, a Keras 2 export."""

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("serving")]
v1 = tf.compat.v1

WEIGHTS = np.float32([[1, -2], [0.5, 4]])
# A process of its own: Keras 2 and Keras 3 both hook into TensorFlow when they are imported.
KERAS_2 = """
import sys
import numpy as np, tf_keras
inputs = tf_keras.Input((4, 4, 1), name="image")
flat = tf_keras.layers.Flatten()(tf_keras.layers.PReLU(shared_axes=[1, 2], alpha_initializer="ones")(inputs))
outputs = tf_keras.layers.Dense(2, kernel_initializer=tf_keras.initializers.Constant(0.25), name="logits")(flat)
tf_keras.Model(inputs, outputs).save(sys.argv[1], save_format="tf")
"""


def save_graph(directory):
    """What programs of 2017 export: a session, variables of the old kind, two signatures, one of strings."""
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None, 2], name="x")
        weights = v1.get_variable("weights", initializer=WEIGHTS, use_resource=False)
        bias = v1.get_variable("bias", initializer=np.float32([10, 20]), use_resource=False)
        y = tf.matmul(x, weights) + bias
        name = v1.placeholder(tf.string, [None], name="name")
        greeting, length = tf.strings.join(["hello ", name]), tf.strings.length(name)
        session.run(v1.global_variables_initializer())
        signature = v1.saved_model.predict_signature_def
        builder = v1.saved_model.Builder(str(directory))
        builder.add_meta_graph_and_variables(
            session,
            ["serve"],
            {
                "serving_default": signature({"x": x}, {"y": y}),
                "greet": signature({"name": name}, {"greeting": greeting, "length": length}),
            },
        )
        builder.save()


class Calculator(tf.Module):
    """Several inputs and signatures, integers, truth values and strings of rank 2."""

    def __init__(self):
        self.offset = tf.Variable([100, 200], dtype=tf.int64)

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, 2], tf.int64, name="value"),
            tf.TensorSpec([None], tf.bool, name="negate"),
            tf.TensorSpec([None], tf.float32, name="scale"),
        ]
    )
    def calculate(self, value, negate, scale):
        shifted = value + self.offset
        signed = tf.where(negate[:, None], -shifted, shifted)
        return {"signed": signed, "positive": signed > 0, "scaled": tf.cast(signed, tf.float32) * scale[:, None]}

    @tf.function(input_signature=[tf.TensorSpec([None, None], tf.string, name="words")])
    def sentence(self, words):
        return {"sentence": tf.strings.reduce_join(words, axis=1, separator=" ")}


@pytest.fixture(scope="module")
def foreign(tmp_path_factory, serve_config, rest_client, grpc_stubs):
    """A REST client and gRPC stubs of a server that has all of them."""
    folder = tmp_path_factory.mktemp("foreign")
    save_graph(folder / "graph" / "1")
    module = Calculator()
    signatures = {"serving_default": module.calculate, "sentence": module.sentence}
    tf.saved_model.save(module, str(folder / "module" / "1"), signatures)
    subprocess.run([sys.executable, "-c", KERAS_2, folder / "keras2" / "1"], check=True, capture_output=True)
    config = "".join(
        f'config {{ name: "{name}" base_path: "{folder / name}" model_platform: "tensorflow" }}'
        for name in ("graph", "module", "keras2")
    )
    (folder / "models.config").write_text(f"model_config_list {{ {config} }}")
    with (
        serve_config(folder / "models.config") as server,
        rest_client(server) as rest,
        grpc_stubs(server) as stubs,
    ):
        yield rest, stubs


LARGE = 2**60 + 1  # no double holds it
IMAGES = np.arange(-16, 16, dtype=np.float32).reshape(2, 4, 4, 1)
CASES = {
    "graph-with-variables": (
        "graph",
        "serving_default",
        {"x": np.float32([[1, 2], [0, -1]])},
        {"y": np.float32([[1, 2], [0, -1]]) @ WEIGHTS + np.float32([10, 20])},
    ),
    "graph-with-strings": (
        "graph",
        "greet",
        {"name": np.array(["you", "Zoë"], object)},
        {"greeting": np.array(["hello you", "hello Zoë"], object), "length": np.int32([3, 4])},
    ),
    "module-with-several-inputs": (
        "module",
        "serving_default",
        {
            "value": np.int64([[1, 2], [LARGE, -300]]),
            "negate": np.array([True, False]),
            "scale": np.float32([0.5, 0]),
        },
        {
            "signed": np.int64([[-101, -202], [LARGE + 100, -100]]),
            "positive": np.array([[False, False], [True, False]]),
            "scaled": np.float32([[-50.5, -101], [0, 0]]),
        },
    ),
    "module-with-strings-of-rank-2": (
        "module",
        "sentence",
        {"words": np.array([["a", "b"], ["c", ""]], object)},
        {"sentence": np.array(["a b", "c "], object)},
    ),
    "keras-2": (  # PReLU with a slope of 1 is the identity
        "keras2",
        "serving_default",
        {"image": IMAGES},
        {"logits": np.repeat(0.25 * IMAGES.sum((1, 2, 3))[:, None], 2, axis=1)},
    ),
}


@pytest.mark.parametrize(("model", "signature", "inputs", "expected"), CASES.values(), ids=CASES)
def test_grpc_answer_is_the_formulas(foreign, predict_request, model, signature, inputs, expected):
    _, stubs = foreign
    answer = stubs.prediction.Predict(predict_request(signature, model=model, **inputs))
    assert set(answer.outputs) == set(expected)
    for name, wanted in expected.items():
        given = tf.make_ndarray(answer.outputs[name])
        if wanted.dtype == object:
            given = np.array([each.decode() for each in given], object)
        assert given.dtype == wanted.dtype
        np.testing.assert_array_equal(given, wanted)


@pytest.mark.parametrize(("model", "signature", "inputs", "expected"), CASES.values(), ids=CASES)
def test_rest_answer_is_the_formulas(foreign, model, signature, inputs, expected):
    rest, _ = foreign
    path = f"/v1/models/{model}:predict"
    columns = {"signature_name": signature, "inputs": {name: each.tolist() for name, each in inputs.items()}}
    names = list(inputs)
    rows = [dict(zip(names, row, strict=True)) for row in zip(*(inputs[name].tolist() for name in names), strict=True)]
    by_columns = rest.post(path, json=columns).json()["outputs"]
    by_rows = rest.post(path, json={"signature_name": signature, "instances": rows}).json()["predictions"]
    if len(expected) == 1:
        (wanted,) = expected.values()
        assert by_columns == by_rows == wanted.tolist()
    else:
        assert by_columns == {name: each.tolist() for name, each in expected.items()}
        assert by_rows == [
            {name: each[row].tolist() if each.ndim > 1 else each.tolist()[row] for name, each in expected.items()}
            for row in range(len(rows))
        ]
