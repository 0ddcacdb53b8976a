"""A network that is not one of the trainer's."""

import keras

from keras_prelu import PReLU

OWN = f"{__name__}:normalized"


def normalized(input_shape, num_classes, rectifier="prelu"):
    """A network with BatchNormalizations, one of them in a nested model."""
    inner = keras.Sequential([keras.layers.Dense(6, use_bias=False), keras.layers.BatchNormalization()], name="inner")
    images = keras.Input(input_shape)
    x = keras.layers.Rescaling(1 / 255)(images)
    x = keras.layers.Conv2D(4, 3, use_bias=False, name="stem")(x)
    x = keras.layers.BatchNormalization(name="stem_bn")(x)
    x = PReLU(name="stem_rectifier")(x) if rectifier == "prelu" else keras.layers.ReLU(name="stem_rectifier")(x)
    x = inner(keras.layers.GlobalAveragePooling2D()(x))
    return keras.Model(images, keras.layers.Dense(num_classes, name="head")(x), name="normalized")
