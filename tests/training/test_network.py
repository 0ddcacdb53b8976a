import keras
import numpy as np
import pytest

from training.classifier import load_network
from training.config import Config
from training.network import make_network
from training.run.checkpoint import Checkpoints
from training.run.folder import Run
from training.step.moving_average import MovingAverage

SHAPE = (8, 8, 1)


@pytest.mark.parametrize(
    ("precision", "compute"),
    [("float32", "float32"), ("mixed_bfloat16", "bfloat16"), ("mixed_float16", "float16")],
)
def test_precision_is_that_of_the_layers_but_the_logits(precision, compute):
    before = keras.config.dtype_policy()
    network = make_network(Config(precision=precision, dropout=0.5, filters=(4,)), SHAPE, 10)
    assert network.get_layer("conv1_1").compute_dtype == compute
    assert network.get_layer("conv1_1").kernel.dtype == "float32"
    assert network.get_layer("logits").compute_dtype == "float32"
    assert network.get_layer("dropout").rate == 0.5
    assert keras.config.dtype_policy() is before


def test_averaged_weights_are_loaded_where_a_run_has_them(tmp_path):
    config = Config(filters=(4,), ema_decay=0.5)
    run = Run(tmp_path)
    run.start(config, tuple("0123456789"), SHAPE, ["CPU:0"])
    model = make_network(config, SHAPE, 10)
    average = MovingAverage(model.trainable_variables, config.ema_decay)
    averaged = [np.array(variable) for variable in model.trainable_variables]
    for variable in model.trainable_variables:
        variable.assign(variable + 1)
    with Checkpoints(run.checkpoints, model, average=average) as checkpoints:
        checkpoints.save(1)
    for variable, expected in zip(load_network(run).trainable_variables, averaged, strict=True):
        np.testing.assert_array_equal(variable, expected)
