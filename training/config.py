"""Config of an experiment: its fields, the files that set them, the command line that overrides them."""

import dataclasses
import difflib
import functools
import json
import operator
import pathlib
import runpy
import typing
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, Literal

from training.errors import InputError

CONFIGS = pathlib.Path(__file__).parent / "configs"

# Names of fields in config.json of earlier versions, and their names now; None: the field is gone, and not read.
EARLIER_NAMES: dict[str, str | None] = {
    "average": "ema_decay",
    "policy_ops": "randaugment_num_ops",
    "policy_strength": "randaugment_magnitude",
    "erase": "random_erasing",
    "accumulate": "gradient_accumulation_steps",
    "steps_per_call": "steps_per_execution",
    "shuffle_buffer": None,
    "cache": None,
}

_COMPARISONS = {"at_least": operator.ge, "above": operator.gt, "at_most": operator.le, "below": operator.lt}


def _field(
    group: str, default: Any, doc: str, *, changeable: bool = False, per_worker: bool = False, **bounds: float
) -> Any:
    """A row of the table below.

    Args:
        group: Heading under which `--help` lists the field.
        default: Its default.
        doc: Its line of help.
        changeable: Whether a run may be resumed with another value. All others decide which numbers come out of it.
        per_worker: Whether workers of one run may have different values.
        bounds: `at_least`, `above`, `at_most`, `below`: what the number, or each number of a tuple, must be.
    """
    facts = {"group": group, "doc": doc, "changeable": changeable, "per_worker": per_worker, "bounds": bounds}
    return dataclasses.field(default=default, metadata=facts)


_data = partial(_field, "data")
_augmentation = partial(_field, "augmentation")
_network = partial(_field, "network")
_optimizer = partial(_field, "optimizer")
_evaluation = partial(_field, "evaluation")
_hardware = partial(_field, "hardware")
_run = partial(_field, "run")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """One experiment: its data, its network and how the network is trained.

    Raises:
        InputError: A value of another type than its field's, beyond its bounds, or at odds with another field.
    """

    dataset: str = _data("digits", "a tensorflow-datasets name; digits and image_folder come with this package")
    data_dir: str = _data(
        "",
        "folder of the prepared data (default: TFDS_DATA_DIR, else ~/tensorflow_datasets); for image_folder the photos",
        changeable=True,
        per_worker=True,
    )
    train_split: str = _data("train", "split to train on, in tfds notation: train, train[:90%], ...")
    test_split: str = _data("test", "split to evaluate on")
    val_split: str = _data("", "split to evaluate on while training, also for `plateau`; default: test_split")
    image_size: int = _data(0, "height and width of the network's input; 0: those of the dataset's images", at_least=0)
    holdout: float = _data(
        0.2, "share of each class held out as val, if the folder of image_folder has no splits", above=0, below=1
    )
    holdout_seed: int = _data(0, "seed that chooses the held-out photos", at_least=0)
    max_unreadable: float = _data(
        0.01,
        "share of a split's images that may be unreadable; such images are left out",
        changeable=True,
        at_least=0,
        at_most=1,
    )
    seed: int = _data(0, "seeds the weights, the order of the images and their augmentation", at_least=0)

    scale_min: int = _augmentation(
        0, "smallest random length of a training image's shorter side before a random crop", at_least=0
    )
    scale_max: int = _augmentation(0, "largest such length; 0 for both: a centre crop", at_least=0)
    test_scale: int = _augmentation(
        0, "length of a test image's shorter side before the centre crop; 0: image_size", at_least=0
    )
    crop_area_min: float = _augmentation(
        0.0,
        "Inception crop: least share of a training image's area that its crop covers; 0: none",
        at_least=0,
        at_most=1,
    )
    crop_padding: int = _augmentation(
        0, "pixels of zeros added on each side of a training image before a random crop to its size", at_least=0
    )
    flip: bool = _augmentation(False, "mirror half of the training images")
    pca_colour: float = _augmentation(
        0.0, "std of the random factors of principal colours added to training images; AlexNet: 0.1", at_least=0
    )
    randaugment_num_ops: int = _augmentation(0, "RandAugment: transformations per training image", at_least=0)
    randaugment_magnitude: float = _augmentation(
        0.5,
        "RandAugment: largest magnitude, up to 1 as Keras's `factor`; a tenth of timm's magnitude",
        above=0,
        at_most=1,
    )
    random_erasing: float = _augmentation(
        0.0, "share of the training images in which a random rectangle is replaced by noise", at_least=0, at_most=1
    )
    mixup_alpha: float = _augmentation(
        0.0, "mixup: both parameters of the beta distribution of the mixing weight; 0: none", at_least=0
    )
    cutmix_alpha: float = _augmentation(
        0.0, "CutMix: both parameters of the beta distribution of the kept area; 0: none", at_least=0
    )

    network: str = _network(
        "small",
        "small; 14-layer, 30-layer, A, B, C or VGG-19 of the paper; keras.applications:NAME; package.module:function; "
        "or a .keras file",
    )
    weights: str = _network("", "file of weights for a network of keras.applications; default: random weights")
    init_from: str = _network("", "run folder, .weights.h5 or .keras file whose weights training starts from")
    freeze: str = _network("", "layers that are not trained: patterns of their names, comma-separated, as block1*,stem")
    unfreeze_step: int = _network(0, "step from which frozen layers are trained too; 0: never", at_least=0)
    subtract_mean: bool = _network(False, "let the first layer subtract the training images' mean, pixel by pixel")
    filters: tuple[int, ...] = _network(
        (32, 64), "small: channels of each stage, comma-separated, with a pooling between stages", at_least=1
    )
    convolutions: int = _network(2, "small: 3x3 convolutions in each stage", at_least=1)
    rectifier: Literal["relu", "leaky_relu", "prelu", "prelu_shared"] = _network(
        "prelu", "prelu has a slope per channel, prelu_shared one per layer"
    )
    dropout: float = _network(
        0.0,
        "dropout rate before the last layer; in the paper's networks before each of the last two",
        at_least=0,
        below=1,
    )
    drop_path: float = _network(
        0.0, "largest probability of dropping a residual branch, in networks that have them", at_least=0, below=1
    )

    optimizer: Literal["sgd", "adamw", "lion", "muon", "lamb"] = _optimizer(
        "sgd", "sgd is the paper's, with L2 through the momentum; the others are Keras's"
    )
    epochs: float = _optimizer(0.0, "passes over the training images; 0: train for `steps`", at_least=0)
    steps: int = _optimizer(1_000, "optimizer steps to train for, unless `epochs` is given", at_least=1)
    batch_size: int = _optimizer(128, "images per step, over all devices together", at_least=1)
    learning_rate: float = _optimizer(0.05, "peak learning rate", at_least=0)
    layer_decay: float = _optimizer(
        1.0,
        "factor on the learning rate from each layer to the one before it; 1: the same rate for all",
        above=0,
        at_most=1,
    )
    warmup_steps: int = _optimizer(50, "steps over which the learning rate rises from 0", at_least=0)
    schedule: Literal["cosine", "linear", "steps", "plateau"] = _optimizer(
        "cosine",
        "later fall of the learning rate: cosine or linear to 0; steps at drop_steps; plateau by the validation error",
    )
    drop_steps: tuple[int, ...] = _optimizer((), "steps after which the learning rate drops, comma-separated")
    drop_factor: float = _optimizer(10.0, "divisor of the learning rate at a drop", above=1)
    patience: int = _optimizer(
        5, "plateau: evaluations without a lower validation error before the learning rate drops", at_least=1
    )
    max_drops: int = _optimizer(2, "plateau: largest number of drops; after them the learning rate stays", at_least=0)
    momentum: float = _optimizer(0.9, "momentum of sgd", at_least=0, below=1)
    nesterov: bool = _optimizer(False, "Nesterov momentum, for sgd")
    weight_decay: float = _optimizer(0.0, "decay of kernels; sgd: L2 through the momentum, as in Caffe", at_least=0)
    clip_norm: float = _optimizer(
        0.0, "largest norm of the gradient of all weights together; 0: no clipping", at_least=0
    )
    label_smoothing: float = _optimizer(
        0.0, "share of each label that is spread evenly over all classes", at_least=0, below=1
    )
    class_weights: str = _optimizer("", "weights of the classes in the loss: balanced, or numbers, comma-separated")
    ema_decay: float = _optimizer(
        0.0, "decay of the moving average of the weights that is evaluated and exported; 0: none", at_least=0, below=1
    )

    evaluate_every: int = _evaluation(500, "steps between two evaluations; 0: one epoch", at_least=0)
    best_metric: Literal["accuracy", "loss", "top5_accuracy", "precision", "recall", "f1"] = _evaluation(
        "accuracy", "figure of the evaluation that chooses the best checkpoint"
    )
    early_stopping: int = _evaluation(
        0,
        "evaluations without a better best_metric after which training ends; 0: never",
        changeable=True,
        at_least=0,
    )

    devices: str = _hardware(
        "", "devices to train on, as GPU:0,GPU:2; default: all GPUs, or cpu_devices", changeable=True, per_worker=True
    )
    cpu_devices: int = _hardware(
        1, "logical CPU devices to train on where there is no GPU", changeable=True, per_worker=True, at_least=1
    )
    cache_dir: str = _hardware(
        "~/.cache/keras_prelu",
        "folder that remembers which kernels are faster on this machine",
        changeable=True,
        per_worker=True,
    )
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16", "float64"] = _hardware(
        "float32", "precision of the layers; mixed_float16 uses loss scaling, float64 is for comparing runs"
    )
    xla: bool = _hardware(False, "compile forward and backward with XLA")
    deterministic: bool = _hardware(True, "give the same bits every time on the same devices")
    gradient_accumulation_steps: int = _hardware(
        1, "micro-batches into which each device splits its share of a batch, to save memory", at_least=1
    )
    steps_per_execution: int = _hardware(1, "steps that TensorFlow takes per call from Python", at_least=1)
    worker_timeout: int = _hardware(
        120, "seconds to wait for another worker", changeable=True, per_worker=True, at_least=1
    )

    log_every: int = _run(
        50, "steps between two logged lines of loss, accuracy and learning rate", changeable=True, at_least=1
    )
    checkpoint_every: int = _run(500, "steps between two checkpoints; 0: one epoch", changeable=True, at_least=0)
    keep_checkpoints: int = _run(3, "number of newest checkpoints to keep", changeable=True, at_least=1)
    tracker: Literal["", "mlflow", "wandb"] = _run(
        "", "experiment tracker that gets the figures too; default: none", changeable=True
    )
    signals_every: int = _run(
        0, "steps between two measurements of signals and slopes for TensorBoard; 0: never", changeable=True, at_least=0
    )
    profile_steps: str = _run("", "steps to profile for TensorBoard, as 100-110", changeable=True)

    @property
    def validation_split(self) -> str:
        """The split that is evaluated while training: `val_split`, or as in the paper `test_split`."""
        return self.val_split or self.test_split

    def in_steps(self, steps_per_epoch: int) -> "Config":
        """This config with everything that counts in epochs written as steps."""
        return dataclasses.replace(
            self,
            steps=max(1, round(self.epochs * steps_per_epoch)) if self.epochs else self.steps,
            evaluate_every=self.evaluate_every or steps_per_epoch,
            checkpoint_every=self.checkpoint_every or steps_per_epoch,
        )

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            _check_value(field, getattr(self, field.name))
        _check_class_weights(self.class_weights)
        if self.xla and self.deterministic:
            raise InputError("xla has no deterministic gradient of max pooling: set --deterministic false beside it")
        if self.nesterov and self.optimizer != "sgd":
            raise InputError(f"nesterov is a variant of sgd's momentum, but optimizer is {self.optimizer}: drop one")
        if self.unfreeze_step and not self.freeze:
            raise InputError(f"unfreeze_step is {self.unfreeze_step}, but freeze names no layers: set it, or drop both")
        if (self.scale_min or self.scale_max) and not max(1, self.image_size) <= self.scale_min <= self.scale_max:
            raise InputError(
                f"scale_min is {self.scale_min} and scale_max {self.scale_max}, but they must rise from image_size, "
                f"{self.image_size}"
            )
        if self.scale_max and self.crop_area_min:
            raise InputError("scale_min and crop_area_min are two ways to crop training images: set one of them to 0")
        if self.test_scale and self.test_scale < self.image_size:
            raise InputError(
                f"test_scale is {self.test_scale}, but must be at least image_size, {self.image_size}, or 0"
            )


_WANTED = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    tuple[int, ...]: "numbers with commas",
}


@functools.cache
def field_types() -> dict[str, Any]:
    """Type of each field by its name."""
    return typing.get_type_hints(Config)


def _check_value(field: "dataclasses.Field[Any]", value: Any) -> None:
    """Raises InputError for a value that is not of the field's type, no choice of it, or beyond its bounds."""
    kind = field_types()[field.name]
    if typing.get_origin(kind) is Literal:
        choices = [choice or "empty" for choice in typing.get_args(kind)]
        if value not in typing.get_args(kind):
            raise InputError(f"{field.name} is {value!r}, but must be {', '.join(choices[:-1])} or {choices[-1]}")
        return
    if type(value) is not (typing.get_origin(kind) or kind) and not (kind is float and type(value) is int):
        raise InputError(f"{field.name} is {value!r}, but must be {_WANTED[kind]}")
    bounds = field.metadata["bounds"]
    for number in value if isinstance(value, tuple) else (value,):
        if not all(_COMPARISONS[name](number, bound) for name, bound in bounds.items()):
            allowed = " and ".join(f"{name.replace('_', ' ')} {bound}" for name, bound in bounds.items())
            raise InputError(f"{field.name} is {value}, but must be {allowed}")


def _check_class_weights(text: str) -> None:
    try:
        if text not in ("", "balanced") and min(float(part) for part in text.split(",")) <= 0:
            raise ValueError
    except ValueError:
        raise InputError(
            f"class_weights is {text!r}, but must be balanced, or numbers above 0 with commas, as 1,2.5"
        ) from None


def named_configs() -> dict[str, tuple[Config, str]]:
    """The configs in training/configs by name, each with the first sentence of its file."""
    named: dict[str, tuple[Config, str]] = {}
    for path in sorted(CONFIGS.glob("[!_]*.py")):
        module = runpy.run_path(str(path))
        sentence = module["__doc__"].splitlines()[0].partition(". ")[0].rstrip(".")
        named |= {name: (config, sentence) for name, config in _configs_of(module, path).items()}
    return named


def load_config(name: str) -> Config:
    """Reads an experiment.

    Args:
        name: Of a config in training/configs; or the path of a file that sets `config`, or `configs`, by name, with the
            name after a colon (`mine.py:large`); or the path of a run's `config.json`.

    Raises:
        InputError: There is no such file, or it holds no such config.
    """
    if name.isidentifier():
        configs = {each: config for each, (config, _) in named_configs().items()}
        return _chosen(configs, name, "a file's path")
    file, _, key = name.partition(":")
    path = pathlib.Path(file)
    if not path.is_file():
        raise InputError(f"there is no config {file!r}: give a name that `keras-prelu configs` lists, or a file")
    if path.suffix == ".json":
        return _stored_config(path)
    configs = _configs_of(runpy.run_path(str(path)), path)
    return next(iter(configs.values())) if len(configs) == 1 and not key else _chosen(configs, key, f"{file}:NAME")


def default_workdir(name: str) -> pathlib.Path:
    """The folder of the runs of a config: runs/<name>. Raises InputError for the config of a run, which has its own."""
    file, _, key = name.partition(":")
    path = pathlib.Path(file)
    if path.suffix == ".json":
        raise InputError(f"{name} is the config of a run; give the folder of the new one with --workdir")
    return pathlib.Path("runs", key or path.stem)


def _chosen(configs: Mapping[str, Config], name: str, otherwise: str) -> Config:
    if name not in configs:
        names = ", ".join(configs)
        raise InputError(f"there is no config {name!r}{nearest(name, configs)}; there are {names}, or {otherwise}")
    return configs[name]


def _configs_of(module: Mapping[str, Any], path: pathlib.Path) -> dict[str, Config]:
    configs = module.get("configs", {path.stem: module.get("config")})
    if not (isinstance(configs, dict) and configs and all(isinstance(each, Config) for each in configs.values())):
        raise InputError(f"{path} must set `config = Config(...)`, or `configs` to a dict of such by name")
    return configs


def _stored_config(path: pathlib.Path) -> Config:
    try:
        fields = json.loads(path.read_text())["config"]
        return from_dict(fields)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        raise InputError(f"{path} holds no config: give the config.json of a run") from None


def override(config: Config, fields: Mapping[str, Any]) -> Config:
    """Replaces fields. Steps that are given count in place of the config's epochs.

    Raises:
        InputError: An unknown field, or a value that the field cannot have.
    """
    _check_names(fields)
    without_epochs = {"epochs": 0.0} if "steps" in fields else {}
    return dataclasses.replace(config, **(without_epochs | dict(fields)))


def from_dict(fields: Mapping[str, Any]) -> Config:
    """The config that `dataclasses.asdict` turned into what JSON can hold; a field that is not there has its default.

    Raises:
        InputError: An unknown field, or a value that is not of the field's type.
    """
    values: dict[str, Any] = {}
    for name, value in fields.items():
        now = EARLIER_NAMES.get(name, name)
        if now is not None:
            values[now] = tuple(value) if isinstance(value, list) else value
    _check_names(values)
    return Config(**values)


def _check_names(names: Iterable[str]) -> None:
    for name in names:
        if name not in field_types():
            now = EARLIER_NAMES.get(name)
            hint = f" (it is {now} now)" if now else nearest(name, field_types())
            raise InputError(f"there is no field {name!r}{hint}; --help lists the fields")


def nearest(name: str, names: Iterable[str]) -> str:
    """A question that names the nearest of these names, or nothing where none is near."""
    matches = difflib.get_close_matches(name, list(names), n=1)
    return f" (did you mean {matches[0]}?)" if matches else ""
