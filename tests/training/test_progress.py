import dataclasses
import json
import pathlib
import re

import pytest
import tensorflow as tf
from tensorflow.core.util import event_pb2

from training.errors import InputError, TrainingError
from training.run.progress import Clock, parse_steps
from training.train import fit

DOCUMENTATION = pathlib.Path(__file__).parents[2] / "docs" / "metrics.md"


def events(folder):
    """TensorBoard's (tag, step) pairs."""
    (path,) = (folder / "tensorboard").glob("events.out.tfevents.*")
    parsed = [event_pb2.Event.FromString(record.numpy()) for record in tf.data.TFRecordDataset(str(path))]
    return {(value.tag, event.step) for event in parsed for value in event.summary.value}


@pytest.mark.slow
def test_plain_lines_tell_speed_and_time_left(small_config, tmp_path, capsys):
    fit(small_config, tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "digits: 1,438 images to train on, 359 held out, 10 classes"
    rate = r"[\d,]+ images/s \([\d,]+ on each device\)"
    assert re.fullmatch(
        rf"step 2 of 6, epoch 1\.00 of 3\.00: loss \d\.\d{{4}}, accuracy [\d.]+%, {rate}, \d\d:\d\d left", lines[2]
    )
    assert lines[-2].endswith("00:00 left")
    assert re.fullmatch(r"step 6: test loss \d\.\d{4}, test accuracy [\d.]+%", lines[-1])


def test_mean_speed_is_that_of_the_steps_after_the_first_lap(monkeypatch):
    times = iter([0.0, 60.0, 62.0, 64.0])  # a minute of tracing
    monkeypatch.setattr("time.perf_counter", lambda: next(times))
    clock = Clock(10)
    assert clock.lap(20) == pytest.approx((10 / 60, 10 / 60))
    assert clock.lap(30) == pytest.approx((5, 5))
    assert clock.lap(50) == pytest.approx((10, 7.5))


def test_every_field_is_documented(trained):
    documented = DOCUMENTATION.read_text()
    for line in (trained / "metrics.jsonl").read_text().splitlines():
        event = json.loads(line)
        section = documented.split(f"## `{event['event']}`")[1].split("\n## ")[0]
        assert [name for name in event if f"`{name}`" not in section + documented.split("\n## ")[0]] == []


@pytest.mark.slow
def test_signals_and_slopes_go_to_tensorboard_and_change_nothing(trained, small_config, tmp_path):
    fit(dataclasses.replace(small_config, signals_every=3), tmp_path)
    written = events(tmp_path)
    for step in (3, 6):
        assert ("signals/forward_mean_square/conv1_1", step) in written
        assert ("signals/backward_mean_square/conv2_1", step) in written
        assert ("slopes/conv2_1_rectifier", step) in written
    checkpoint = pathlib.Path("checkpoints", "6.npz")
    assert (tmp_path / checkpoint).read_bytes() == (trained / checkpoint).read_bytes()


@pytest.mark.slow
def test_profile_of_some_steps_is_written(small_config, tmp_path):
    fit(dataclasses.replace(small_config, profile_steps="3-4"), tmp_path)
    (profile,) = (tmp_path / "tensorboard" / "plugins" / "profile").glob("*/*.xplane.pb")
    assert profile.stat().st_size > 0


@pytest.mark.parametrize("steps", ["3", "3:4", "4-3", "0-3", "a-b"])
def test_profile_steps_must_be_two_numbers(small_config, tmp_path, steps):
    with pytest.raises(InputError, match=f"profile_steps is '{steps}', but must be the first and the last step"):
        fit(dataclasses.replace(small_config, profile_steps=steps), tmp_path)


def test_profile_steps_are_read():
    assert parse_steps("100-110") == (100, 110)


@pytest.mark.slow
def test_full_disk_under_tensorboard_is_one_line(small_config, tmp_path, largest_file):
    config = dataclasses.replace(
        small_config, batch_size=300, steps=60, log_every=1, checkpoint_every=60, evaluate_every=60
    )
    with largest_file(3_000), pytest.raises(TrainingError, match=r"cannot be written any more: File too large; the"):
        fit(config, tmp_path)
