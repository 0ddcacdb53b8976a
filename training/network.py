"""The network that a config describes: one of this project's by name, or anybody's Keras model."""

import contextlib
import dataclasses
import fnmatch
import importlib
import inspect
import pathlib
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import keras
import numpy as np

from keras_prelu.keras_internals import flatten_layers, function_of
from keras_prelu.networks.paper import paper_network
from keras_prelu.networks.small import small_network
from keras_prelu.walk.fans import fans
from training.config import Config
from training.data.mean import MeanSubtraction
from training.errors import InputError

PAPER_NETWORKS = ("14-layer", "30-layer", "A", "B", "C", "VGG-19")
_APPLICATIONS = "keras.applications:"
# What a config has for a network that takes it: a parameter of the same name gets the field's value.
_PARAMETERS = ("filters", "convolutions", "rectifier", "dropout", "drop_path", "seed")

Shape = tuple[int, int, int]


def make_network(
    config: Config,
    image_shape: Shape,
    num_classes: int,
    *,
    pretrained: bool = False,
    file: pathlib.Path | None = None,
) -> keras.Model:
    """Builds the network, from images in 0..255 to logits; a mean to subtract is 0 until `training.data.mean` sets it.

    Args:
        config: Its `network` is `small`, one of the paper's networks, `package.module:function`, a `.keras` file or
            `keras.applications:Name`.
        image_shape: `(height, width, channels)`.
        num_classes: The number of logits.
        pretrained: Whether the file `weights` is read; not for a network whose weights come from a checkpoint.
        file: Where the run keeps its copy of a `.keras` file; that is taken where it is there.

    Returns:
        A functional model of one input and one output.

    Raises:
        InputError: There is no such network, or it does not fit the images and the classes.
    """
    if file and file.exists():
        config = dataclasses.replace(config, network=str(file))
    if not pretrained:
        config = dataclasses.replace(config, weights="")
    keras.utils.set_random_seed(config.seed)  # for networks that take no seed
    with _dtype_policy(config.precision):
        network = _functional(_make(config, image_shape, num_classes), config.network)
    _check(network, config.network, image_shape, num_classes)
    return _mean_subtracted(network, config, image_shape) if config.subtract_mean else network


def freeze(model: keras.Model, config: Config) -> list[keras.Layer]:
    """Freezes the layers that `freeze` names, unless they thaw at `unfreeze_step`.

    A frozen layer's weights stay, and a frozen BatchNormalization uses its moving statistics.

    Returns:
        The layers; `trainable` freezes and thaws them.

    Raises:
        InputError: A pattern that no layer's name matches, or nothing is left to train.
    """
    frozen: dict[int, keras.Layer] = {}
    layers = flatten_layers(model)
    for pattern in filter(None, map(str.strip, config.freeze.split(","))):
        matching = [layer for layer in layers if fnmatch.fnmatchcase(layer.name, pattern)]
        if not matching:
            names = ", ".join(layer.name for layer in layers if layer.weights)
            raise InputError(f"freeze is {config.freeze!r}, but no layer's name matches {pattern!r}; there are {names}")
        frozen |= {id(layer): layer for layer in matching}
    set_frozen(frozen.values(), True)
    if not model.trainable_variables:
        raise InputError(f"freeze is {config.freeze!r}, which leaves nothing to train: freeze fewer layers")
    set_frozen(frozen.values(), not config.unfreeze_step)
    return list(frozen.values())


def set_frozen(layers: Iterable[keras.Layer], frozen: bool) -> None:
    """Freezes or thaws layers."""
    for layer in layers:
        layer.trainable = not frozen


def load_initial_weights(model: keras.Model, source: str) -> str:
    """Fills a network with weights that another one has learnt.

    All weights must fit, or all but those of the last layer with a kernel, which are new for other classes.

    Args:
        model: Built model.
        source: A `.weights.h5` or `.keras` file, or a run's folder, whose `model.keras` is taken.

    Returns:
        A line that names what was filled.

    Raises:
        InputError: There is no such file, or its weights do not fit.
    """
    path = pathlib.Path(source).expanduser()
    if path.is_dir():
        path = path / "model.keras"
    if not path.is_file():
        raise InputError(f"init_from is {source!r}, but there is no {path}: name a run that has ended, or a file")
    own = {id(variable): np.array(variable) for variable in model.variables if "float" in variable.dtype}
    variables = [variable for variable in model.variables if id(variable) in own]
    for variable in variables:
        variable.assign(np.full(variable.shape, np.nan))  # what is so still has not been loaded
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Keras names one object of those that do not fit
            model.load_weights(path, skip_mismatch=True)
    except (ValueError, OSError, KeyError) as error:
        raise InputError(
            f"init_from is {source!r}, which cannot be read: {str(error).strip().splitlines()[0]}"
        ) from None
    left = [variable for variable in variables if np.isnan(np.array(variable)).any()]
    for variable in left:
        variable.assign(own[id(variable)])
    last = [layer for layer in model.layers if fans(layer)][-1]
    last_variables = {id(variable) for variable in last.variables}
    unfit = dict.fromkeys(variable.path.rpartition("/")[0] for variable in left if id(variable) not in last_variables)
    if unfit:
        raise InputError(f"init_from is {source!r}, but its weights do not fit {', '.join(unfit)} of {model.name}")
    return f"all weights{f' but those of {last.name}' if left else ''} are those of {path}"


def _make(config: Config, image_shape: Shape, num_classes: int) -> Any:
    name = config.network
    if name == "small":
        return _call(small_network, config, image_shape, num_classes)
    if name in PAPER_NETWORKS:
        return _call(partial(paper_network, name), config, image_shape, num_classes)
    if name.startswith(_APPLICATIONS):
        return _application(name.removeprefix(_APPLICATIONS), config, image_shape, num_classes)
    if name.endswith(".keras"):
        return _loaded(name)
    if ":" in name:
        return _call(_imported(name), config, image_shape, num_classes)
    raise InputError(
        f"network is {name!r}, but must be small, {', '.join(PAPER_NETWORKS)}, keras.applications:NAME, "
        "package.module:function or the path of a .keras file"
    )


def _call(make: Callable[..., Any], config: Config, image_shape: Shape, num_classes: int) -> Any:
    """Calls a network's function with the images' shape, the classes, and those fields of the config that it takes."""
    parameters = inspect.signature(make).parameters
    if config.drop_path and "drop_path" not in parameters:
        raise InputError(f"drop_path is {config.drop_path}, but the network {config.network} takes none")
    fields = {name: getattr(config, name) for name in _PARAMETERS if name in parameters}
    try:
        return make(image_shape, num_classes, **fields)
    except (ValueError, TypeError) as error:
        raise InputError(f"the network {config.network} cannot be built: {error}") from None


def _imported(name: str) -> Callable[..., Any]:
    module, _, function = name.partition(":")
    sys.path.insert(0, "")  # a module beside where the command is typed, as `python -m` finds it
    try:
        make = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"network is {name!r}, but cannot be imported: {error}") from None
    finally:
        sys.path.remove("")
    if not callable(make):
        raise InputError(f"network is {name!r}, but {function} is no function")
    return make


def _loaded(name: str) -> Any:
    try:
        return keras.saving.load_model(pathlib.Path(name).expanduser(), compile=False)
    except (ValueError, OSError, TypeError) as error:
        raise InputError(f"network is {name!r}, which cannot be loaded: {str(error).strip().splitlines()[0]}") from None


def _application(name: str, config: Config, image_shape: Shape, num_classes: int) -> keras.Model:
    """A backbone of keras.applications behind its own preprocessing, with a new layer for the classes."""
    make = getattr(keras.applications, name, None)
    if not inspect.isfunction(make):
        raise InputError(f"network is {_APPLICATIONS}{name}, but keras.applications has no {name}")
    images = keras.Input(image_shape, name="images")
    preprocess = sys.modules[make.__module__].preprocess_input
    weights = str(pathlib.Path(config.weights).expanduser()) if config.weights else None
    try:
        backbone = make(include_top=False, weights=weights, input_tensor=preprocess(images), pooling="avg")
    except (ValueError, OSError) as error:
        raise InputError(f"{name} cannot be built: {str(error).strip().splitlines()[0]}") from None
    x = backbone.output
    if config.dropout:
        x = keras.layers.Dropout(config.dropout, seed=config.seed, name="dropout")(x)
    logits = keras.layers.Dense(num_classes, dtype="float32", name="logits")(x)
    return keras.Model(images, logits, name=backbone.name)


def _functional(network: Any, name: str) -> keras.Model:
    if not isinstance(network, keras.Model):
        raise InputError(f"the network {name} is a {type(network).__name__}, but must be a keras.Model")
    if function_of(network) is None:
        raise InputError(
            f"the network {name} shows no graph: build it with the functional API, keras.Model(inputs, outputs)"
        )
    if isinstance(network, keras.Sequential):
        return keras.Model(network.inputs[0], network.outputs[0], name=network.name)  # lists would warn at each call
    return network


def _check(network: keras.Model, name: str, image_shape: Shape, num_classes: int) -> None:
    if len(network.inputs) != 1 or len(network.outputs) != 1:
        raise InputError(f"the network {name} must have one input and one output")
    taken, given = tuple(network.inputs[0].shape[1:]), tuple(network.outputs[0].shape[1:])
    if len(taken) != 3 or any(a is not None and a != b for a, b in zip(taken, image_shape, strict=True)):
        raise InputError(f"the network {name} takes images of {taken}, but they are {image_shape} here: set image_size")
    if given != (num_classes,):
        raise InputError(f"the network {name} gives {given} numbers per image, but there are {num_classes} classes")
    active = [layer.name for layer in flatten_layers(network) if getattr(layer, "activity_regularizer", None)]
    if active:
        raise InputError(
            f"the network {name} has activity regularizers ({', '.join(active)}), which are not trained with: use "
            "kernel_regularizer, or leave them out"
        )
    activation = getattr(network.layers[-1], "activation", None)
    if activation is keras.activations.softmax or isinstance(network.layers[-1], keras.layers.Softmax):
        raise InputError(f"the network {name} ends in a softmax, but must give logits: leave the softmax out")


def _mean_subtracted(network: keras.Model, config: Config, image_shape: Shape) -> keras.Model:
    images = keras.Input(image_shape, name="images")
    # small_network takes 0..255 and centres it itself, the paper's take what is centred
    offset = 0.0 if config.network in PAPER_NETWORKS else 127.5
    centred = MeanSubtraction(image_shape, offset, dtype="float32", name="mean")(images)
    return keras.Model(images, network.call(centred), name=network.name)  # call: its layers, not it as one layer


@contextlib.contextmanager
def _dtype_policy(name: str) -> Iterator[None]:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
