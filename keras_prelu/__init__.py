"""Parametric rectifiers and rectifier-aware initialization for Keras."""

from keras_prelu.initializers import HeNormal
from keras_prelu.prelu import PReLU
from keras_prelu.functional import prelu
from keras_prelu.version import __version__

__all__ = ["HeNormal", "PReLU", "__version__", "prelu"]
