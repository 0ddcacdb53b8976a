import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_prelu.layer.pooling import SpatialPyramidPooling2D


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def reference(maps, levels):
    """Bin by bin, as the formula says; maps are (batch, height, width, channels)."""
    _, height, width, _ = maps.shape
    bins = []
    for n in levels:
        window_h, window_w = int(np.ceil(height / n)), int(np.ceil(width / n))
        tops, lefts = np.arange(n) * (height // n), np.arange(n) * (width // n)
        bins += [
            maps[:, top : top + window_h, left : left + window_w].max(axis=(1, 2)) for top in tops for left in lefts
        ]
    return np.concatenate(bins, axis=1)


def positions_seen(size, level):
    """Which positions of one axis each bin takes its maximum from, found by raising one position at a time."""
    peaks = np.eye(size, dtype="float32").reshape(size, 1, size, 1).repeat(level, axis=1)
    pooled = np.asarray(SpatialPyramidPooling2D((level,))(peaks)).reshape(size, level, level)[:, 0]
    return [np.flatnonzero(pooled[:, index]).tolist() for index in range(level)]


@pytest.mark.parametrize(
    ("size", "level", "bins"),
    [
        (14, 3, [(0, 5), (4, 9), (8, 13)]),  # adaptive pooling: (0, 5), (4, 10), (9, 14)
        (14, 7, [(i, i + 2) for i in range(0, 14, 2)]),
        (18, 6, [(i, i + 3) for i in range(0, 18, 3)]),
        (7, 4, [(0, 2), (1, 3), (2, 4), (3, 5)]),  # as published: two of seven positions are in no bin
        (5, 5, [(i, i + 1) for i in range(5)]),
        (9, 1, [(0, 9)]),
    ],
)
def test_bins_are_those_of_the_published_formula(size, level, bins):
    assert positions_seen(size, level) == [list(range(*each)) for each in bins]


@pytest.mark.parametrize("size", [(14, 14), (18, 18), (6, 6), (7, 23), (11, 8)])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_equals_pooling_bin_by_bin(rng, size, data_format):
    maps = rng.normal(size=(2, *size, 3)).astype("float32")
    layer = SpatialPyramidPooling2D((6, 3, 2, 1), data_format=data_format)
    given = np.moveaxis(maps, 3, 1) if data_format == "channels_first" else maps
    np.testing.assert_array_equal(layer(given), reference(maps, (6, 3, 2, 1)))
    assert layer.compute_output_shape(given.shape) == (2, 150)


@pytest.mark.parametrize("known", [(None, None), (None, 9), (7, None)], ids=str)
@pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "xla"])
def test_size_may_be_unknown_until_the_graph_runs(rng, known, jit_compile):
    layer = SpatialPyramidPooling2D((4, 1))
    layer.build((None, None, None, 2))
    signature = [tf.TensorSpec([None, *known, 2])]
    pool = tf.function(layer.call, input_signature=signature, jit_compile=jit_compile)
    for height, width in [(7, 9), (12, 9), (7, 4)]:
        if any(size not in (None, given) for size, given in zip(known, (height, width), strict=True)):
            continue
        maps = rng.normal(size=(3, height, width, 2)).astype("float32")
        np.testing.assert_array_equal(pool(maps), reference(maps, (4, 1)))


@pytest.mark.parametrize("signature", [None, [tf.TensorSpec([None, None, None, 2])]], ids=["known", "unknown"])
@pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "xla"])
def test_gradient_goes_to_each_bin_s_maximum(rng, signature, jit_compile):
    maps = rng.permutation(2 * 7 * 9 * 2).reshape(2, 7, 9, 2).astype("float32")  # no two alike
    weights = rng.normal(size=(2, 2 * (9 + 1))).astype("float32")
    layer = SpatialPyramidPooling2D((3, 1))

    @tf.function(input_signature=signature, jit_compile=jit_compile)
    def gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            total = tf.reduce_sum(layer(x) * weights)
        return tape.gradient(total, x)

    expected = np.zeros_like(maps)
    for image, (pooled, row) in enumerate(zip(reference(maps, (3, 1)), weights, strict=True)):
        for value, weight in zip(pooled, row, strict=True):
            expected[image][maps[image] == value] += weight
    np.testing.assert_allclose(gradient(tf.constant(maps)), expected, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_stays_half(rng, dtype):
    maps = keras.ops.cast(rng.integers(-9, 9, size=(1, 7, 5, 2)), dtype)
    outputs = SpatialPyramidPooling2D((2, 1), dtype=dtype)(maps)
    assert keras.backend.standardize_dtype(outputs.dtype) == dtype
    expected = reference(np.asarray(keras.ops.cast(maps, "float32")), (2, 1))
    np.testing.assert_array_equal(keras.ops.cast(outputs, "float32"), expected)


@pytest.mark.slow
def test_saved_model_answers_alike_for_every_size(rng, tmp_path):
    images = keras.Input((None, None, 3))
    pooled = SpatialPyramidPooling2D((3, 1), name="spp")(images)
    model = keras.Model(images, keras.layers.Dense(4)(pooled))
    model.save(tmp_path / "model.keras")
    model.export(tmp_path / "model", verbose=False)
    loaded, exported = keras.saving.load_model(tmp_path / "model.keras"), tf.saved_model.load(str(tmp_path / "model"))
    assert loaded.get_layer("spp").levels == (3, 1)
    for size in [(3, 3), (8, 5)]:
        maps = rng.normal(size=(2, *size, 3)).astype("float32")
        np.testing.assert_array_equal(loaded(maps), model(maps))
        np.testing.assert_allclose(exported.serve(maps), model(maps), atol=1e-6)


@pytest.mark.parametrize("levels", [(), (3, 0), (-1,), (2.0,), (True,), "21"], ids=str)
def test_levels_must_be_positive_integers(levels):
    with pytest.raises(ValueError, match="must be one or more positive integers"):
        SpatialPyramidPooling2D(levels)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((None, 5, 9, 3), "spp has a level of 6x6 bins and needs .* not 5x9"),
        ((None, None, 5, 3), "not Nonex5"),
        ((None, 9, 9, None), "number of channels"),
        ((None, 9, 9), r"not \(None, 9, 9\)"),
    ],
    ids=["rows", "columns", "channels", "rank"],
)
def test_shape_that_does_not_fit_is_refused(shape, message):
    with pytest.raises(ValueError, match=message):
        SpatialPyramidPooling2D((6, 1), name="spp").build(shape)


def test_map_smaller_than_a_level_is_refused_at_the_call():
    layer = SpatialPyramidPooling2D((6, 1))
    layer.build((None, None, None, 1))
    with pytest.raises(ValueError, match="not 6x4"):
        layer(np.zeros((1, 6, 4, 1), "float32"))


@pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "xla"])
@pytest.mark.parametrize("size", [(5, 6), (6, 1), (0, 0)], ids=str)
def test_map_smaller_than_a_level_is_refused_as_the_graph_runs(jit_compile, size):
    layer = SpatialPyramidPooling2D((6, 1))
    layer.build((None, None, None, 1))
    pool = tf.function(layer.call, input_signature=[tf.TensorSpec([None, None, None, 1])], jit_compile=jit_compile)
    with pytest.raises(tf.errors.InvalidArgumentError, match="level_6_is_larger_than_the_map"):
        pool(np.zeros((1, *size, 1), "float32"))


def test_wrong_data_format_is_named():
    with pytest.raises(ValueError, match="data_format is 'last', but must be"):
        SpatialPyramidPooling2D(data_format="last")
