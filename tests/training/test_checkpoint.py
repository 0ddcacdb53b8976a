import os
import time

import keras
import numpy as np
import pytest

from keras_prelu.networks.small import small_network
from training.distribute.strategy import make_strategy
from training.errors import InputError, NotFiniteError, TrainingError
from training.run.checkpoint import Checkpoints


@pytest.fixture(scope="module")
def strategies():
    return {num: make_strategy(num) for num in (1, 2)}


def network(num_classes=5, filters=(4,)):
    return small_network((8, 8, 1), num_classes, filters=filters, convolutions=1, seed=1)


def trained_parts(strategy, seed=0, **arguments):
    """A model and its optimizer, every variable at some value of its own."""
    with strategy.scope():
        model = network(**arguments)
        optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
        optimizer.build(model.trainable_variables)
    rng = np.random.default_rng(seed)
    for variable in [*model.variables, *optimizer.variables]:
        variable.assign(rng.uniform(0, 100, variable.shape).astype(variable.dtype))
    return model, optimizer


def values(*parts):
    return [keras.ops.convert_to_numpy(variable) for part in parts for variable in part.variables]


def assert_equal(actual, expected):
    for value, other in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(value, other)


@pytest.fixture
def saved(strategies, tmp_path):
    """A folder with the checkpoints of steps 2 and 4, and their values."""
    states = {}
    for step in (2, 4):
        model, optimizer = trained_parts(strategies[1], seed=step)
        with Checkpoints(tmp_path, model, optimizer=optimizer) as checkpoints:
            checkpoints.save(step)
        states[step] = values(model, optimizer)
    return tmp_path, states


def check_until(checkpoints, deadline):
    while time.monotonic() < deadline:
        checkpoints.check()


@pytest.mark.parametrize(("before", "after"), [(1, 1), (1, 2), (2, 1), (2, 2)])
def test_restores_every_bit_on_any_number_of_devices(strategies, tmp_path, before, after):
    model, optimizer = trained_parts(strategies[before])
    with Checkpoints(tmp_path, model, optimizer=optimizer) as checkpoints:
        checkpoints.save(7)
    other, other_optimizer = trained_parts(strategies[after], seed=1)
    assert Checkpoints(tmp_path, other, optimizer=other_optimizer).restore() == 7
    assert_equal(values(other, other_optimizer), values(model, optimizer))
    for variable in other.variables:
        for copy in strategies[after].experimental_local_results(variable.value):
            np.testing.assert_array_equal(copy, variable.numpy())


def test_reader_may_take_the_model_alone(strategies, saved):
    folder, states = saved
    model, _ = trained_parts(strategies[1])
    assert Checkpoints(folder, model).restore() == 4
    assert_equal(values(model), states[4][: len(model.variables)])


def test_any_numpy_reads_it(saved):
    folder, states = saved
    with np.load(folder / "4.npz") as arrays:
        assert list(arrays)[:3] == ["model/0/conv1_1/kernel", "model/1/conv1_1/bias", "model/2/conv1_1_rectifier/alpha"]
        assert_equal(list(arrays.values())[:-2], states[4])
        assert (arrays["step"], arrays["num_arrays"]) == (4, len(states[4]) + 1)


def test_folder_without_a_checkpoint_is_step_0(strategies, tmp_path):
    assert Checkpoints(tmp_path / "none", trained_parts(strategies[1])[0]).restore() == 0


def test_written_is_the_state_that_was_saved_and_not_what_came_after(strategies, tmp_path):
    model, optimizer = trained_parts(strategies[2])
    before = values(model, optimizer)
    with Checkpoints(tmp_path, model, optimizer=optimizer) as checkpoints:
        checkpoints.save(1)
        for variable in model.variables:
            variable.assign(variable * 0)
    with np.load(tmp_path / "1.npz") as arrays:
        assert_equal(list(arrays.values())[:-2], before)


def test_newest_are_kept(strategies, tmp_path):
    model, _ = trained_parts(strategies[1])
    with Checkpoints(tmp_path, model, keep=2) as checkpoints:
        for step in (8, 9, 10, 11):
            checkpoints.save(step)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["10.npz", "11.npz"]


def test_who_does_not_write_writes_nothing(strategies, tmp_path):
    model, _ = trained_parts(strategies[1])
    with Checkpoints(tmp_path, model, writes=False) as checkpoints:
        checkpoints.save(1)
    assert list(tmp_path.iterdir()) == []


def truncate(path):
    os.truncate(path, path.stat().st_size // 2)


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [truncate, flip, empty])
def test_damaged_newest_falls_back_to_the_one_before(strategies, saved, capsys, damage):
    folder, states = saved
    damage(folder / "4.npz")
    model, optimizer = trained_parts(strategies[1])
    with Checkpoints(folder, model, optimizer=optimizer) as checkpoints:
        assert checkpoints.restore() == 2
        error = capsys.readouterr().err
        assert error.startswith("training: damaged: 4.npz (")
        assert error.endswith("; going on from 2.npz\n")
        assert error.count("\n") == 1
        assert_equal(values(model, optimizer), states[2])
        checkpoints.save(4)
    assert Checkpoints(folder, model, optimizer=optimizer).restore() == 4  # written anew


@pytest.mark.slow
def test_no_flipped_byte_goes_unseen(strategies, saved):
    folder, states = saved
    whole = (folder / "4.npz").read_bytes()
    model, optimizer = trained_parts(strategies[1])
    checkpoints = Checkpoints(folder, model, optimizer=optimizer)
    for position in np.random.default_rng(0).choice(len(whole), 150, replace=False):
        damaged = bytearray(whole)
        damaged[position] ^= 0xFF
        (folder / "4.npz").write_bytes(damaged)
        step = checkpoints.restore()  # 4, where the byte carries nothing, as a date
        assert_equal(values(model, optimizer), states[step])


def test_checkpoint_of_a_future_that_was_given_up_is_dropped(strategies, saved):
    folder, _ = saved
    empty(folder / "4.npz")
    model, _ = trained_parts(strategies[1])
    with Checkpoints(folder, model) as checkpoints:
        checkpoints.restore()
        checkpoints.save(3)
    assert sorted(path.name for path in folder.iterdir()) == ["2.npz", "3.npz"]


def test_all_damaged_are_named(strategies, saved):
    folder, _ = saved
    for step in (2, 4):
        truncate(folder / f"{step}.npz")
    with pytest.raises(InputError, match=r"no checkpoint in .* can be read: 4\.npz \(.*, 2\.npz \("):
        Checkpoints(folder, trained_parts(strategies[1])[0]).restore()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"num_classes": 7},
            r"another number of classes: model/3/logits/kernel has shape \(4, 5\), but is \(4, 7\) here",
        ),
        ({"filters": (4, 4)}, "holds 5 variables of the model, which has 8"),
    ],
    ids=["classes", "layers"],
)
def test_checkpoint_of_another_network_is_refused(strategies, saved, arguments, message):
    folder, _ = saved
    model, _ = trained_parts(strategies[1], **arguments)
    before = values(model)
    with pytest.raises(InputError, match=message):
        Checkpoints(folder, model).restore()
    assert_equal(values(model), before)


def test_full_disk_ends_in_one_line_and_leaves_what_there_was(strategies, saved, largest_file):
    folder, states = saved
    model, optimizer = trained_parts(strategies[1])
    checkpoints = Checkpoints(folder, model, optimizer=optimizer)
    with largest_file(2000):
        checkpoints.save(6)
        with pytest.raises(TrainingError, match=r"no checkpoint can be written to .*: File too large; those before"):
            checkpoints.wait()
    assert sorted(path.name for path in folder.iterdir()) == ["2.npz", "4.npz"]
    assert checkpoints.restore() == 4
    assert_equal(values(model, optimizer), states[4])


def test_error_in_the_background_is_found_by_the_next_look(strategies, tmp_path):
    (tmp_path / "file").write_text("")
    checkpoints = Checkpoints(tmp_path / "file" / "checkpoints", trained_parts(strategies[1])[0])
    checkpoints.save(1)
    deadline = time.monotonic() + 10
    with pytest.raises(TrainingError, match="Not a directory"):
        check_until(checkpoints, deadline)


def test_what_a_killed_write_left_is_written_over(strategies, saved):
    folder, _ = saved
    (folder / "unfinished").write_bytes((folder / "4.npz").read_bytes()[:100])
    model, _ = trained_parts(strategies[1])
    with Checkpoints(folder, model) as checkpoints:
        assert checkpoints.restore() == 4
        checkpoints.save(5)
    assert sorted(path.name for path in folder.iterdir()) == ["2.npz", "4.npz", "5.npz"]


def test_weights_that_are_not_finite_are_not_saved(strategies, tmp_path):
    model, _ = trained_parts(strategies[1])
    model.variables[-1].assign([1, 2, np.nan, 3, 4])
    with pytest.raises(NotFiniteError, match="at step 3"):
        Checkpoints(tmp_path, model).save(3)
    assert list(tmp_path.iterdir()) == []
