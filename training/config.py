"""What an experiment is made of: its fields, the files that set them, the command line that overrides them."""

import dataclasses
import difflib
import importlib.util
import json
import pathlib
import typing
from collections.abc import Iterable, Mapping
from typing import Any

from training.errors import InputError

CONFIGS = pathlib.Path(__file__).parent / "configs"


def _field(default: Any, doc: str) -> Any:
    return dataclasses.field(default=default, metadata={"doc": doc})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """One experiment, whole: what it trains on, which network, and how."""

    dataset: str = _field("digits", "a tensorflow-datasets name; digits and image_folder come with this package")
    data_dir: str = _field(
        "",
        "where prepared data lies (default: TFDS_DATA_DIR, else ~/tensorflow_datasets); for image_folder the folder",
    )
    train_split: str = _field("train", "split to train on, in tfds notation: train, train[:90%], ...")
    test_split: str = _field("test", "split to evaluate on")
    val_split: str = _field("", "split to evaluate on while training, which a plateau reads; default: test_split")
    image_size: int = _field(0, "height and width the network sees; 0: what the dataset has")
    holdout: float = _field(0.2, "share of each class held out as val where image_folder has no splits of its own")
    holdout_seed: int = _field(0, "which photos these are")
    max_unreadable: float = _field(0.01, "share of a split's images that may be unreadable; such images are left out")

    network: str = _field("small", "small, or one of the paper's: 14-layer, 30-layer, A, B, C or VGG-19")
    subtract_mean: bool = _field(False, "let the first layer subtract the training images' mean, pixel by pixel")
    filters: tuple[int, ...] = _field(
        (32, 64), "small: channels of each stage, comma-separated; a pooling lies between two"
    )
    convolutions: int = _field(2, "small: 3x3 convolutions in each stage")
    rectifier: str = _field("prelu", "relu, leaky_relu, prelu (a slope per channel) or prelu_shared (one per layer)")

    steps: int = _field(1_000, "optimizer steps to train for")
    batch_size: int = _field(128, "images a step, over all devices together")
    accumulate: int = _field(1, "parts a device's share of a batch is cut into, one after the other, to save memory")
    steps_per_call: int = _field(1, "steps that TensorFlow takes before Python looks again")
    xla: bool = _field(False, "compile forward and backward with XLA")
    precision: str = _field("float32", "float32, mixed_bfloat16 or mixed_float16 (with loss scaling)")
    learning_rate: float = _field(0.05, "peak learning rate")
    warmup_steps: int = _field(50, "steps over which the learning rate rises from 0")
    schedule: str = _field(
        "cosine",
        "how the rate falls after that: cosine (to 0), steps (at drop_steps) or plateau (of the validation error)",
    )
    drop_steps: tuple[int, ...] = _field((), "steps after which the rate is divided by drop_factor, comma-separated")
    drop_factor: float = _field(10.0, "what a drop divides the rate by")
    patience: int = _field(5, "evaluations without a lower validation error after which a plateau drops the rate")
    max_drops: int = _field(2, "times that a plateau drops the rate; after that the rate stays until the last step")
    momentum: float = _field(0.9, "momentum of the gradient descent")
    weight_decay: float = _field(0.0, "L2 of the kernels, through the momentum as in Caffe; slopes have none")
    clip_norm: float = _field(0.0, "largest norm of the gradient of all weights together; 0: any")
    label_smoothing: float = _field(0.0, "share of each label that is spread evenly over all classes")
    average: float = _field(0.0, "decay of the moving average of the weights that is evaluated and exported; 0: none")
    dropout: float = _field(
        0.0, "share of the last layer's inputs dropped in training; of the two before it, in the paper's"
    )
    shuffle_buffer: int = _field(10_000, "encoded images held in memory to draw the next one from")
    scale_min: int = _field(0, "least length that a training image's shorter side is scaled to before a random crop")
    scale_max: int = _field(0, "largest such length; 0 for both: training images are cropped as test images are")
    test_scale: int = _field(0, "length a test image's shorter side is scaled to before the centre crop; 0: image_size")
    cache: str = _field("", "memory or disk: where encoded images are kept once they are read; default: nowhere")
    cache_dir: str = _field("~/.cache/keras_prelu", "folder of the caches on disk; best on a disk of this machine")
    crop_padding: int = _field(0, "pixels of zeros around a training image before it is cropped back at random")
    flip: bool = _field(False, "mirror half of the training images")
    pca_colour: float = _field(0.0, "std of the factors of principal colours added to training images; AlexNet: 0.1")
    policy_ops: int = _field(0, "transformations, drawn from RandAugment's, that a training image goes through")
    policy_strength: float = _field(0.5, "how strong they are at most, up to 1")
    erase: float = _field(0.0, "share of the training images in which a random rectangle is replaced by noise")
    seed: int = _field(0, "seeds the weights, the order of the images and their augmentation")

    devices: str = _field("", "devices to train on, as GPU:0,GPU:2; default: all GPUs, or cpu_devices")
    cpu_devices: int = _field(1, "logical CPU devices to train on where there is no GPU; with GPUs, all are used")
    log_every: int = _field(50, "steps between two entries of loss, accuracy and rate")
    evaluate_every: int = _field(500, "steps between two evaluations")
    checkpoint_every: int = _field(500, "steps between two checkpoints")
    keep_checkpoints: int = _field(3, "how many checkpoints stay, newest first")
    deterministic: bool = _field(True, "the same bits every time, on the same devices")
    signals_every: int = _field(0, "steps between two measurements of signals and slopes for TensorBoard; 0: never")
    profile_steps: str = _field("", "steps to profile for TensorBoard, as 100-110")
    worker_timeout: int = _field(120, "seconds to wait for another worker")

    @property
    def validation_split(self) -> str:
        """The split that is evaluated while training: `val_split`, or as in the paper `test_split`."""
        return self.val_split or self.test_split

    def __post_init__(self) -> None:
        for lowest, names in _LOWEST.items():
            for name in names:
                value = getattr(self, name)
                if min(value if isinstance(value, tuple) else (value,), default=0) < lowest:
                    raise InputError(f"{name} is {value}, but must be at least {lowest}")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                listed = [choice or "empty" for choice in choices]
                wanted = f"{', '.join(listed[:-1])} or {listed[-1]}"
                raise InputError(f"{name} is {getattr(self, name)!r}, but must be {wanted}")
        for name in ("momentum", "label_smoothing", "average", "dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}, but must be at least 0 and below 1")
        self._check_data()
        if self.drop_factor <= 1:
            raise InputError(f"drop_factor is {self.drop_factor}, but must be above 1")
        if self.xla and self.deterministic:
            raise InputError("xla has no deterministic gradient of max pooling: set --deterministic false beside it")

    def _check_data(self) -> None:
        for name in ("max_unreadable", "erase"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} is {getattr(self, name)}, but must be at least 0 and at most 1")
        if not 0 < self.policy_strength <= 1:
            raise InputError(f"policy_strength is {self.policy_strength}, but must be above 0 and at most 1")
        if not 0 < self.holdout < 1:
            raise InputError(f"holdout is {self.holdout}, but must be above 0 and below 1")
        if (self.scale_min or self.scale_max) and not max(1, self.image_size) <= self.scale_min <= self.scale_max:
            raise InputError(
                f"scale_min is {self.scale_min} and scale_max {self.scale_max}, but they must rise from image_size, "
                f"{self.image_size}"
            )
        if self.test_scale and self.test_scale < self.image_size:
            raise InputError(
                f"test_scale is {self.test_scale}, but must be at least image_size, {self.image_size}, or 0"
            )


_CHOICES = {
    "cache": ("", "memory", "disk"),
    "network": ("small", "14-layer", "30-layer", "A", "B", "C", "VGG-19"),
    "rectifier": ("relu", "leaky_relu", "prelu", "prelu_shared"),
    "precision": ("float32", "mixed_bfloat16", "mixed_float16"),
    "schedule": ("cosine", "steps", "plateau"),
}

_LOWEST = {
    1: (
        *("filters", "convolutions", "steps", "batch_size", "cpu_devices", "shuffle_buffer"),
        *("accumulate", "steps_per_call", "patience", "worker_timeout"),
        *("log_every", "evaluate_every", "checkpoint_every", "keep_checkpoints"),
    ),
    0: (
        *("image_size", "learning_rate", "warmup_steps", "crop_padding", "seed"),
        *("weight_decay", "clip_norm", "signals_every", "max_drops"),
        *("scale_min", "scale_max", "test_scale", "pca_colour", "policy_ops", "holdout_seed"),
    ),
}

# What a run may change between two calls: everything else decides which numbers come out of it.
CHANGEABLE = frozenset(
    {
        *("data_dir", "max_unreadable", "cache", "cache_dir", "devices", "cpu_devices", "worker_timeout"),
        *("log_every", "checkpoint_every", "keep_checkpoints", "signals_every", "profile_steps"),
    }
)


_WANTED = {bool: "true or false", int: "a whole number", float: "a number", tuple[int, ...]: "numbers with commas"}


def load_config(name: str) -> Config:
    """Reads an experiment: the name of a file in training/configs, or the path of such a file or of a `config.json`.

    Raises:
        InputError: There is no such file, or it holds no config.
    """
    path = CONFIGS / f"{name}.py" if name.isidentifier() else pathlib.Path(name)
    if not path.is_file():
        names = sorted(file.stem for file in CONFIGS.glob("*.py") if file.stem != "__init__")
        raise InputError(
            f"there is no config {name!r}{nearest(name, names)}; there are {', '.join(names)}, or a file's path"
        )
    if path.suffix == ".json":
        return _stored_config(path)
    spec = importlib.util.spec_from_file_location(f"training_config_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = getattr(module, "config", None)
    if not isinstance(config, Config):
        raise InputError(f"{path} must set `config = Config(...)`")
    return config


def _stored_config(path: pathlib.Path) -> Config:
    try:
        fields = json.loads(path.read_text())["config"]
        return from_dict(fields)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        raise InputError(f"{path} holds no config: give the config.json of a run") from None


def override(config: Config, overrides: Mapping[str, str]) -> Config:
    """Replaces fields by the texts that a command line gives for them.

    Raises:
        InputError: An unknown field, or a text that is not a value of the field's type.
    """
    types = typing.get_type_hints(Config)
    unknown = [name for name in overrides if name not in types]
    if unknown:
        raise InputError(f"there is no field {unknown[0]!r}{nearest(unknown[0], types)}; --help lists the fields")
    values: dict[str, Any] = {name: _parse(name, text, types[name]) for name, text in overrides.items()}
    return dataclasses.replace(config, **values)


def from_dict(fields: Mapping[str, Any]) -> Config:
    """The config that `dataclasses.asdict` turned into what JSON can hold; a field that is not there has its default.

    Raises:
        InputError: An unknown field, or a value that is not of the field's type.
    """
    types = typing.get_type_hints(Config)
    values: dict[str, Any] = {name: tuple(each) if isinstance(each, list) else each for name, each in fields.items()}
    for name, value in values.items():
        kind = types.get(name)
        if kind is None:
            raise InputError(f"there is no field {name!r}{nearest(name, types)}; --help lists the fields")
        if type(value) is not (typing.get_origin(kind) or kind) and not (kind is float and type(value) is int):
            raise InputError(f"{name} is {value!r}, but must be {_WANTED.get(kind, 'a text')}")
    return Config(**values)


def nearest(name: str, names: Iterable[str]) -> str:
    """A question that names the nearest of these names, or nothing where none is near."""
    matches = difflib.get_close_matches(name, list(names), n=1)
    return f" (did you mean {matches[0]}?)" if matches else ""


def _parse(name: str, text: str, kind: Any) -> Any:
    try:
        if kind is bool:
            return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
        if typing.get_origin(kind) is tuple:
            return tuple(int(part) for part in text.split(","))
        return int(text.replace("_", "")) if kind is int else kind(text)
    except (KeyError, ValueError):
        raise InputError(f"{name} is {text!r}, but must be {_WANTED[kind]}") from None
