import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_prelu.walk.fans import compute_fans, fans, fans_over_axes

IMAGES, SEQUENCES, VOLUMES = (None, 12, 12, 64), (None, 12, 64), (None, 6, 6, 6, 8)


@pytest.mark.parametrize(
    ("layer", "input_shape", "expected"),
    [
        (layers.Dense(10), (None, 512), [(512, 10)]),
        (layers.Conv1D(128, 3), SEQUENCES, [(192, 384)]),
        (layers.Conv2D(128, 3), IMAGES, [(576, 1152)]),
        (layers.Conv2D(96, 7, strides=2), (None, 224, 224, 3), [(147, 4704)]),
        (layers.Conv3D(16, 2), VOLUMES, [(64, 128)]),
        (layers.Conv2D(128, 3, groups=8), IMAGES, [(72, 144)]),
        (layers.DepthwiseConv1D(5, depth_multiplier=2), SEQUENCES, [(5, 10)]),
        (layers.DepthwiseConv2D(3), IMAGES, [(9, 9)]),
        (layers.SeparableConv1D(32, 3), SEQUENCES, [(3, 3), (64, 32)]),
        (layers.SeparableConv2D(128, 3, depth_multiplier=2), IMAGES, [(9, 18), (128, 128)]),
        (layers.Conv1DTranspose(128, 4, strides=2), SEQUENCES, [(128, 512)]),
        (layers.Conv2DTranspose(128, 3), IMAGES, [(576, 1152)]),
        (layers.Conv2DTranspose(128, 4, strides=2), IMAGES, [(256, 2048)]),
        (layers.Conv2DTranspose(32, (3, 4), strides=(1, 2)), IMAGES, [(384, 384)]),
        (layers.Conv3DTranspose(16, 2, strides=2), VOLUMES, [(8, 128)]),
        (layers.EinsumDense("abc,cde->abde", (None, 8, 16)), (None, 10, 64), [(64, 128)]),
        (layers.EinsumDense("abcd,cde->abe", (None, 32)), (None, 10, 8, 16), [(128, 32)]),
        (layers.EinsumDense("...x,xy->...y", 32), (None, 5, 16), [(16, 32)]),
        (layers.EinsumDense("abc,acd->abd", (5, 32)), (3, 5, 16), [(16, 32)]),  # a kernel for each of three
        (layers.Embedding(10_000, 64), (None, 5), [(1, 64)]),
        (layers.SimpleRNN(8), (None, 5, 16), [(16, 8), (8, 8)]),
        (layers.LSTM(8), (None, 5, 16), [(16, 32), (8, 32)]),
        (layers.GRU(8), (None, 5, 16), [(16, 24), (8, 24)]),
        (layers.Bidirectional(layers.SimpleRNN(8)), (None, 5, 16), [(16, 8), (8, 8)] * 2),
        (layers.TimeDistributed(layers.Dense(8)), (None, 5, 16), [(16, 8)]),
        (layers.BatchNormalization(), IMAGES, []),
        (layers.PReLU(shared_axes=[1, 2]), IMAGES, []),
        (layers.ReversibleEmbedding(100, 16), (None, 5), []),
    ],
    ids=lambda value: value.name if isinstance(value, keras.Layer) else "",
)
def test_fans_of_each_layer(layer, input_shape, expected):
    layer.build(input_shape)
    assert [(row.fan_in, row.fan_out) for row in fans(layer)] == expected


@pytest.mark.parametrize("groups", [2, 8], ids=["grouped-query", "multi-head"])
def test_fans_of_attention(groups):
    layer = layers.GroupQueryAttention(16, 8, groups) if groups < 8 else layers.MultiHeadAttention(8, 16)
    queries = keras.Input((5, 64))
    layer(queries, keras.Input((7, 64)))
    rows = {row.layer.name: (row.fan_in, row.fan_out) for row in fans(layer)}
    width = 16 * groups
    assert rows == {"query": (64, 128), "key": (64, width), "value": (64, width), "attention_output": (128, 64)}


@pytest.mark.parametrize(
    "layer",
    [
        layers.Conv2D(6, 3, groups=2, padding="same"),
        layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same"),
        layers.Conv2DTranspose(6, 4, strides=2, padding="same"),
        layers.Conv2DTranspose(6, 3, padding="same"),
        layers.EinsumDense("abcd,de->abce", (None, None, 6)),
    ],
    ids=["grouped", "depthwise", "transposed-strided", "transposed", "einsum"],
)
def test_fans_count_what_the_layer_connects(layer):
    """With all weights 1, an inner output of an image of ones is its fan_in, and a gradient of ones is the fan_out."""
    layer.build((None, 12, 12, 4))
    (row,) = fans(layer)
    row.kernel.assign(np.ones(row.kernel.shape))
    images = tf.ones((1, 12, 12, 4))
    with tf.GradientTape() as tape:
        tape.watch(images)
        outputs = layer(images)
    gradient = tape.gradient(outputs, images)
    assert np.mean(outputs[:, 4:-4, 4:-4]) == pytest.approx(row.fan_in)
    assert np.mean(gradient[:, 4:-4, 4:-4]) == pytest.approx(row.fan_out)


def test_fans_of_a_model_name_a_shared_kernel_once():
    inputs = keras.Input((4,))
    shared = layers.Dense(4)
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(2)])
    assert [(row.fan_in, row.fan_out) for row in fans(keras.Model(inputs, inner(shared(shared(inputs)))))] == [
        (4, 4),
        (4, 2),
    ]


def test_fans_of_a_changed_kernel_are_not_given():
    layer = layers.Dense(8)
    layer.build((None, 4))
    layer.enable_lora(2)
    assert fans(layer) == []


def test_shapes_without_a_kernel_count_as_in_keras():
    assert compute_fans(()) == (1, 1)
    assert compute_fans((7,)) == (7, 7)


def test_fans_over_axes_ignore_other_axes():
    assert fans_over_axes((5, 8, 16), input_axes=[1], output_axes=[2]) == (8, 16)


@pytest.mark.parametrize(
    ("shape", "arguments", "message"),
    [
        ((3, 3, 0, 8), {}, r"\(3, 3, 0, 8\) has fans \(0, 72\)"),
        ((4, 0), {}, r"\(4, 0\) has fans \(4, 0\)"),
        ((0,), {}, r"\(0,\) has fans"),
        ((3, 3, 4, 8), {"kernel": "separable"}, "kernel is 'separable', but must be None or one of 'depthwise'"),
        ((3, 4, 8), {"kernel": "embedding"}, "embedding has shape"),
        ((4, 8), {"kernel": "depthwise"}, "at least one spatial axis"),
        ((3, 3, 4, 8), {"groups": 3}, "groups is 3"),
        ((3, 3, 4, 8), {"groups": 0}, "groups is 0"),
        ((3, 3, 4, 8), {"groups": 2, "kernel": "depthwise"}, "groups is 2"),
        ((3, 3, 4, 8), {"strides": 2}, "counts in a transposed kernel only"),
        ((3, 3, 4, 8), {"strides": 0, "kernel": "transposed"}, "must be positive"),
        ((3, 3, 4, 8), {"strides": (2,), "kernel": "transposed"}, "has 2 spatial axes"),
    ],
)
def test_what_does_not_fit_is_named(shape, arguments, message):
    with pytest.raises(ValueError, match=message):
        compute_fans(shape, **arguments)


def test_an_unbuilt_layer_is_refused():
    with pytest.raises(ValueError, match="'later' is not built"):
        fans(layers.Dense(3, name="later"))
