"""The same slopes as the solver of the `dks` package, whose user writes the network's C map by hand."""

import keras
import pytest
from dks.base.activation_transform import get_transformed_activations
from keras import layers

from keras_prelu import PReLU, initialize


def slope_by_dks(rectifiers, likeness):
    found = {}

    def remember(name):
        def rectifier(x, **parameters):
            found.update(parameters)
            return x

        return rectifier

    def chain(c, local):
        for _ in range(rectifiers):
            c = local(c)
        return c

    activations = get_transformed_activations(
        ["leaky_relu"],
        method="TAT",
        tat_params={"c_val_0_target": likeness},
        subnet_max_func=chain,
        activation_getter=remember,
    )
    activations["leaky_relu"](1.0)
    return found["negative_slope"]


@pytest.mark.parametrize(("rectifiers", "likeness"), [(13, 0.9), (29, 0.9), (50, 0.8), (100, 0.9)])
@pytest.mark.parametrize("rectifier", [lambda: PReLU(slope_per="layer"), layers.LeakyReLU], ids=["PReLU", "LeakyReLU"])
def test_tailored_slope_of_a_chain(rectifiers, likeness, rectifier):
    stack = [layer for _ in range(rectifiers) for layer in (layers.Dense(8), rectifier())]
    model = keras.Sequential([keras.Input((8,)), *stack, layers.Dense(2)])
    tailoring = initialize(model, tailor=likeness, seed=0).tailoring
    assert tailoring.slope == pytest.approx(slope_by_dks(rectifiers, likeness), abs=1e-6)
