"""Own networks, files and backbones: what can be trained, what is refused, and where weights come from."""

import keras
import numpy as np
import pytest

from keras_prelu import PReLU
from tests.training.own_network import OWN, normalized
from training.classifier import load_network
from training.config import Config
from training.errors import InputError
from training.network import freeze, load_initial_weights, make_network
from training.run.checkpoint import Checkpoints
from training.run.folder import Run
from training.step.moving_average import MovingAverage

SHAPE = (8, 8, 1)


def no_model(input_shape, num_classes):
    return keras.layers.Dense(num_classes)


def two_outputs(input_shape, num_classes):
    x = keras.layers.Flatten()(images := keras.Input(input_shape))
    return keras.Model(images, [keras.layers.Dense(num_classes)(x), keras.layers.Dense(num_classes)(x)])


def fixed_classes(input_shape, num_classes):
    return normalized(input_shape, 3)


def fixed_shape(input_shape, num_classes):
    return normalized((9, 9, 1), num_classes)


def probabilities(input_shape, num_classes):
    x = keras.layers.Flatten()(images := keras.Input(input_shape))
    return keras.Model(images, keras.layers.Dense(num_classes, activation="softmax")(x))


def active(input_shape, num_classes):
    x = keras.layers.Flatten()(images := keras.Input(input_shape))
    x = keras.layers.Dense(4, activity_regularizer="l2", name="sparse")(x)
    return keras.Model(images, keras.layers.Dense(num_classes)(x))


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(10)

    def call(self, images):
        return self.dense(keras.ops.reshape(images, (-1, 64)))


def subclassed(input_shape, num_classes):
    return Subclassed()


def failing(input_shape, num_classes):
    raise ValueError("no such size")


def config(network=OWN, **fields):
    return Config(network=network, **fields)


def test_function_gets_the_fields_it_takes():
    network = make_network(config(rectifier="relu"), SHAPE, 10)
    assert isinstance(network.get_layer("stem_rectifier"), keras.layers.ReLU)
    assert isinstance(make_network(config(), SHAPE, 10).get_layer("stem_rectifier"), PReLU)


def test_seed_of_the_config_decides_the_first_weights():
    one, same, other = (make_network(config(seed=seed), SHAPE, 10).get_weights() for seed in (1, 1, 2))
    for weights, expected in zip(same, one, strict=True):
        np.testing.assert_array_equal(weights, expected)
    assert (other[0] != one[0]).any()


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ("no_model", "is a Dense, but must be a keras.Model"),
        ("two_outputs", "must have one input and one output"),
        ("fixed_classes", r"gives \(3,\) numbers per image, but there are 10 classes"),
        ("fixed_shape", r"takes images of \(9, 9, 1\), but they are \(8, 8, 1\) here"),
        ("probabilities", "ends in a softmax, but must give logits"),
        ("active", r"has activity regularizers \(sparse\), which are not trained with"),
        ("subclassed", "shows no graph: build it with the functional API"),
        ("failing", "cannot be built: no such size"),
        ("missing", "cannot be imported: .*has no attribute 'missing'"),
        ("SHAPE", "SHAPE is no function"),
    ],
)
def test_function_that_gives_no_network_is_refused(network, message):
    with pytest.raises(InputError, match=message) as error:
        make_network(config(f"{__name__}:{network}"), SHAPE, 10)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ("resnet", "network is 'resnet', but must be small, 14-layer"),
        ("no.such.module:network", "cannot be imported: No module named 'no'"),
        ("keras.applications:ResNet", "keras.applications has no ResNet"),
        ("nowhere.keras", "cannot be loaded"),
    ],
)
def test_network_that_is_not_there_is_refused(network, message):
    with pytest.raises(InputError, match=message):
        make_network(config(network), SHAPE, 10)


def test_drop_path_is_for_networks_that_take_it():
    with pytest.raises(InputError, match=r"drop_path is 0\.1, but the network .* takes none"):
        make_network(config(drop_path=0.1), SHAPE, 10)


def test_keras_file_is_a_network(tmp_path):
    made = make_network(config(), SHAPE, 10)
    made.save(tmp_path / "own.keras")
    loaded = make_network(config(str(tmp_path / "own.keras")), SHAPE, 10)
    images = np.random.default_rng(0).uniform(0, 255, (2, *SHAPE)).astype("float32")
    np.testing.assert_array_equal(loaded(images), made(images))
    with pytest.raises(InputError, match="but there are 7 classes"):
        make_network(config(str(tmp_path / "own.keras")), SHAPE, 7)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["MobileNetV2", "ResNet50"])
def test_backbone_of_keras_applications_sees_what_its_preprocessing_makes(name, tmp_path):
    network = make_network(config(f"keras.applications:{name}", dropout=0.5), (32, 32, 3), 4)
    assert [network.layers[index].name for index in (-2, -1)] == ["dropout", "logits"]
    backbone = getattr(keras.applications, name)(
        include_top=False, weights=None, input_shape=(32, 32, 3), pooling="avg"
    )
    backbone.set_weights([np.array(each) for each in network.weights[:-2]])
    images = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype("float32")
    module = {"MobileNetV2": keras.applications.mobilenet_v2, "ResNet50": keras.applications.resnet}[name]
    features = backbone(module.preprocess_input(images.copy()))
    np.testing.assert_allclose(network(images), network.layers[-1](features), rtol=1e-4, atol=1e-4)
    backbone.save_weights(tmp_path / "backbone.weights.h5")
    fields = {"weights": str(tmp_path / "backbone.weights.h5")}
    again = make_network(config(f"keras.applications:{name}", **fields), (32, 32, 3), 4, pretrained=True)
    for weights, expected in zip(again.weights[:-2], network.weights[:-2], strict=True):
        np.testing.assert_array_equal(weights, expected)
    network.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded(images), network(images), atol=1e-5)


def test_weights_file_that_does_not_fit_a_backbone_is_refused(tmp_path):
    (tmp_path / "weights.h5").write_text("nothing")
    backbone = config("keras.applications:MobileNetV2", weights=str(tmp_path / "weights.h5"))
    with pytest.raises(InputError, match="MobileNetV2 cannot be built"):
        make_network(backbone, (32, 32, 3), 4, pretrained=True)


def learnt():
    network = make_network(config(), SHAPE, 10)
    for index, variable in enumerate(network.variables):
        variable.assign(np.full(variable.shape, index))
    return network


@pytest.mark.parametrize("file", ["learnt.weights.h5", "learnt.keras", "run"])
def test_weights_of_another_network_are_taken(tmp_path, file):
    source = learnt()
    if file == "run":
        (tmp_path / "run").mkdir()
        source.save(tmp_path / "run" / "model.keras")
    elif file.endswith(".keras"):
        source.save(tmp_path / file)
    else:
        source.save_weights(tmp_path / file)
    same, other = make_network(config(), SHAPE, 10), make_network(config(), SHAPE, 7)
    assert load_initial_weights(same, str(tmp_path / file)).startswith("all weights are those of")
    assert load_initial_weights(other, str(tmp_path / file)).startswith("all weights but those of head are those of")
    for network in (same, other):
        for variable, value in zip(network.variables, source.variables, strict=True):
            if not variable.path.startswith("head"):
                np.testing.assert_array_equal(variable, value)
    assert not (np.asarray(other.get_layer("head").kernel) == np.asarray(learnt().variables[-1])[0]).all()


def test_weights_that_do_not_fit_are_named(tmp_path):
    learnt().save_weights(tmp_path / "learnt.weights.h5")
    network = make_network(Config(filters=(4,), convolutions=1), SHAPE, 10)
    with pytest.raises(InputError, match=r"its weights do not fit .*conv1_1.* of small_network"):
        load_initial_weights(network, str(tmp_path / "learnt.weights.h5"))
    with pytest.raises(InputError, match=r"there is no .*model\.keras: name a run that has ended, or a file"):
        load_initial_weights(network, str(tmp_path))


def test_patterns_freeze_layers_and_those_inside():
    network = make_network(config(), SHAPE, 10)
    frozen = freeze(network, config(freeze="stem*, inner"))
    assert [layer.name for layer in frozen] == ["stem", "stem_bn", "stem_rectifier", "inner"]
    assert [variable.path for variable in network.trainable_variables] == ["head/kernel", "head/bias"]


def test_layers_that_thaw_are_trainable_in_the_end():
    network = make_network(config(), SHAPE, 10)
    frozen = freeze(network, config(freeze="stem*", unfreeze_step=5))
    assert all(layer.trainable for layer in frozen)


@pytest.mark.parametrize(
    ("patterns", "message"),
    [("block*", r"no layer's name matches 'block\*'; there are stem, "), ("*", "which leaves nothing to train")],
)
def test_patterns_that_freeze_nothing_or_all_are_refused(patterns, message):
    with pytest.raises(InputError, match=message):
        freeze(make_network(config(), SHAPE, 10), config(freeze=patterns))


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
