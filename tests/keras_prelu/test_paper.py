import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.src.backend.common import global_state

from keras_prelu.networks.multiply_adds import multiply_adds
from keras_prelu.networks.paper import paper_network

# Architecture: weights without slopes, slopes per channel, slopes per layer, multiply-adds as in the paper's Table 3.
COUNTS = {
    "14-layer": (74_993_896, 10_304, 13, 9.49e8),
    "30-layer": (79_192_296, 14_400, 29, 2.31e9),
    "A": (178_017_384, 14_688, 18, 1.90e10),
    "B": (183_327_080, 15_968, 21, 2.32e10),
    "C": (330_603_368, 20_576, 21, 5.30e10),
    "VGG-19": (143_667_240, 13_696, 18, 1.96e10),
}


@pytest.fixture
def no_weights_in_memory():
    """Networks made meanwhile have variables with shapes only; C's would fill 1.3 GB."""
    waiting = list(global_state.get_global_attribute("uninitialized_variables", []))
    with keras.StatelessScope(initialize_variables=False):
        yield
    global_state.set_global_attribute("uninitialized_variables", waiting)


@pytest.mark.usefixtures("no_weights_in_memory")
@pytest.mark.parametrize("architecture", COUNTS)
def test_counts_are_the_paper_s(architecture):
    weights, per_channel, per_layer, cost = COUNTS[architecture]
    networks = {name: paper_network(architecture, rectifier=name) for name in ("relu", "leaky_relu")}
    learnt = {name: paper_network(architecture, rectifier=name) for name in ("prelu", "prelu_shared")}
    assert [network.count_params() for network in networks.values()] == [weights, weights]
    assert [network.count_params() - weights for network in learnt.values()] == [per_channel, per_layer]
    assert multiply_adds(networks["relu"]) == pytest.approx(cost, rel=0.01)


@pytest.mark.usefixtures("no_weights_in_memory")
@pytest.mark.parametrize(
    ("architecture", "maps"),
    [
        ("14-layer", {"conv1": 109, "pool1": 36, "conv2_4": 36, "pool2": 18, "conv3_6": 18}),
        ("30-layer", {"conv1": 109, "pool1": 36, "conv2_4": 36, "pool2": 18, "conv3_22": 18}),
        ("A", {"conv1": 112, "pool1": 56, "conv2_5": 56, "conv3_5": 28, "pool3": 14, "conv4_5": 14}),
        ("C", {"conv1": 112, "pool1": 56, "conv2_6": 56, "conv3_6": 28, "pool3": 14, "conv4_6": 14}),
        ("VGG-19", {"conv1_2": 224, "conv2_2": 112, "conv3_4": 56, "conv4_4": 28, "conv5_4": 14, "pool5": 7}),
    ],
)
def test_maps_have_the_paper_s_sizes(architecture, maps):
    network = paper_network(architecture)
    assert {name: network.get_layer(name).output.shape[1:3] for name in maps} == {
        name: (size, size) for name, size in maps.items()
    }


@pytest.mark.usefixtures("no_weights_in_memory")
def test_rectifier_follows_every_layer_but_the_last():
    names = [layer.name for layer in paper_network("A").layers if layer.weights]
    weighted = [name for name in names if not name.endswith("_rectifier")]
    assert len(weighted) == 19
    assert names == [each for name in weighted for each in (name, f"{name}_rectifier")][:-1]


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(scope="module")
def fourteen_layers():
    return paper_network("14-layer", (None, None, 3), seed=0)


@pytest.mark.slow
def test_14_layer_network_starts_as_in_the_paper(fourteen_layers):
    deviations = {
        **{name: np.sqrt(2 / (1 + 0.25**2) / (4 * 128)) for name in ("conv2_1", "conv2_4")},  # equations 14 and 15
        **{name: np.sqrt(2 / (1 + 0.25**2) / (4 * 256)) for name in ("conv3_1", "conv3_6")},
        "conv1": np.sqrt(2 / (1 + 0.25**2) / (49 * 64)),
        "fc1": 0.01,
        "fc2": 0.01,
        "fc3": 0.001,
    }
    for name, expected in deviations.items():
        layer = fourteen_layers.get_layer(name)
        # The standard error is 1 / sqrt(2 k) of the deviation: 0.7 % for the 9,408 weights of conv1.
        assert np.std(layer.kernel) == pytest.approx(expected, rel=0.03), name
        assert not np.any(layer.bias)


def learning_step(network, images, labels, rate):
    """One step of gradient descent without dropout, after which the loss must have fallen; the logits before it."""

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            logits = network(images)
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
        variables = [variable.value for variable in network.trainable_weights]
        for variable, gradient in zip(variables, tape.gradient(loss, variables), strict=True):
            variable.assign_sub(rate * gradient)
        return logits, loss

    logits, before = step()
    after = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, network(images))
    assert float(tf.reduce_mean(after)) < float(before)
    return logits


@pytest.mark.slow
def test_14_layer_network_learns_at_its_true_size(rng, fourteen_layers):
    images = rng.normal(0, 60, size=(2, 224, 224, 3)).astype("float32")
    logits = learning_step(fourteen_layers, images, [3, 998], rate=0.01)
    assert logits.shape == (2, 1000)
    assert np.all(np.isfinite(logits))


@pytest.mark.slow
def test_model_a_learns_at_its_true_size(rng):
    images = rng.normal(0, 60, size=(1, 224, 224, 3)).astype("float32")
    logits = learning_step(paper_network("A", seed=0), images, [3], rate=0.001)
    assert logits.shape == (1, 1000)
    assert 0.1 < np.std(logits) < 10  # neither vanished nor exploded


def test_any_image_size_where_none_is_given(rng, fourteen_layers):
    for size in [(77, 90), (101, 80)]:
        assert fourteen_layers(rng.normal(size=(1, *size, 3))).shape == (1, 1000)


def test_dropouts_differ(fourteen_layers):
    ones = np.ones((4, 4096), "float32")
    dropped = [np.asarray(fourteen_layers.get_layer(f"fc{each}_dropout")(ones, training=True)) for each in (1, 2)]
    assert np.unique(dropped).tolist() == [0.0, 2.0]
    assert not np.array_equal(*dropped)


@pytest.mark.usefixtures("no_weights_in_memory")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("D",), "architecture is 'D', but must be one of 14-layer, 30-layer, A, B, C, VGG-19"),
        (("A", (224, 224, 3), 10, "elu"), "rectifier is 'elu'"),
        (("A", (224, 110, 3)), "A needs images of at least 111x111 pixels, not 224x110"),
        (("14-layer", (76, None, 3)), "14-layer needs images of at least 77x77 pixels, not 76xNone"),
        (("VGG-19", (None, 224, 3)), "it needs a height and a width, not Nonex224"),
    ],
    ids=["architecture", "rectifier", "width", "height", "no-pyramid"],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        paper_network(*arguments)


@pytest.mark.usefixtures("no_weights_in_memory")
@pytest.mark.parametrize(("architecture", "smallest"), [("14-layer", 77), ("30-layer", 77), ("A", 111), ("VGG-19", 32)])
def test_the_smallest_image_is_taken(architecture, smallest):
    assert paper_network(architecture, (smallest, smallest, 3)).output_shape == (None, 1000)
