import pytest
import tensorflow as tf

from training.environment import start_tensorflow


@pytest.fixture
def devices(tmp_path, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    (tmp_path / "nvidia0").touch()
    (tmp_path / "nvidiactl").touch()
    return tmp_path


def test_gpu_that_tensorflow_does_not_find_is_a_warning(devices, capfd):
    start_tensorflow(devices)
    _, said = capfd.readouterr()
    warning = f"training: warning: this machine has {devices / 'nvidia0'}, but TensorFlow finds no GPU and uses the CPU"
    assert said.count(warning) == (0 if tf.config.list_physical_devices("GPU") else 1)


@pytest.mark.parametrize("visible", ["", "-1"])
def test_gpus_hidden_on_purpose_are_none(devices, capfd, monkeypatch, visible):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    start_tensorflow(devices)
    assert capfd.readouterr() == ("", "")


def test_machine_without_gpu_starts_without_a_word(devices, capfd):
    (devices / "nvidia0").unlink()
    start_tensorflow(devices)
    assert capfd.readouterr() == ("", "")
