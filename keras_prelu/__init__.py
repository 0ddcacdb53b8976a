"""Parametric rectifiers and rectifier-aware initialization for Keras."""

try:
    import keras  # noqa: F401  alone, to say what is missing
except ModuleNotFoundError as error:
    backend = str(error.name).partition(".")[0]
    if backend == "keras":
        extras = "pip install -e '.[tensorflow]' brings it and a backend, and so do the extras jax and torch."
        raise ImportError(f"keras is not installed. In a clone of keras_prelu, {extras}", name="keras") from error
    if backend not in ("tensorflow", "jax", "torch"):
        raise
    raise ImportError(
        f"Keras runs on {backend}, which is not installed: pip install {backend}, or set KERAS_BACKEND to another of "
        "tensorflow, jax and torch that is installed."
    ) from error

from keras_prelu.initialization.initialize import initialize
from keras_prelu.initialization.initializers import HeNormal, HeUniform
from keras_prelu.initialization.places import kernel_places
from keras_prelu.layer.functional import prelu
from keras_prelu.layer.pooling import SpatialPyramidPooling2D
from keras_prelu.layer.prelu import PReLU
from keras_prelu.layer.slopes import exclude_slopes_from_weight_decay
from keras_prelu.networks.fully_convolutional import fully_convolutional
from keras_prelu.networks.multiply_adds import multiply_adds
from keras_prelu.networks.normalized import normalized_network
from keras_prelu.networks.paper import paper_network
from keras_prelu.networks.small import small_network
from keras_prelu.onnx import export_onnx
from keras_prelu.signals.calibrate import calibrate
from keras_prelu.signals.measure import measure_gains
from keras_prelu.signals.monitor import SignalMonitor
from keras_prelu.signals.plots import plot_gains, plot_slopes
from keras_prelu.signals.predict import predict_gains
from keras_prelu.signals.report import Thresholds
from keras_prelu.signals.slope_table import slope_table
from keras_prelu.walk.fans import KernelFans, compute_fans, fans

__version__ = "0.2.0"

__all__ = [
    "HeNormal",
    "HeUniform",
    "KernelFans",
    "PReLU",
    "SignalMonitor",
    "SpatialPyramidPooling2D",
    "Thresholds",
    "__version__",
    "calibrate",
    "compute_fans",
    "exclude_slopes_from_weight_decay",
    "export_onnx",
    "fans",
    "fully_convolutional",
    "initialize",
    "kernel_places",
    "measure_gains",
    "multiply_adds",
    "normalized_network",
    "paper_network",
    "plot_gains",
    "plot_slopes",
    "predict_gains",
    "prelu",
    "slope_table",
    "small_network",
]
