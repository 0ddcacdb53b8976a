"""What is said where a package is not installed: in a process of its own, that cannot import it."""

import os
import subprocess
import sys

import keras
import pytest

from keras_prelu import PReLU, export_onnx, plot_slopes, slope_table

WITHOUT = """
import importlib.abc, sys

class Without(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in sys.argv[1:]:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Without())
"""


def last_line(code, *packages, **environment):
    command = [sys.executable, "-c", WITHOUT + code, *packages]
    answer = subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=False, env={**os.environ, **environment}
    )
    assert answer.returncode == 1
    return answer.stderr.splitlines()[-1]


@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_keras_without_its_backend(backend):
    assert last_line("import keras_prelu", "tensorflow", "jax", "torch", KERAS_BACKEND=backend) == (
        f"ImportError: Keras runs on {backend}, which is not installed: pip install {backend}, or set KERAS_BACKEND to "
        "another of tensorflow, jax and torch that is installed."
    )


def test_without_keras():
    assert last_line("import keras_prelu", "keras") == (
        "ImportError: keras is not installed. In a clone of keras_prelu, pip install -e '.[tensorflow]' brings it "
        "and a backend, and so do the extras jax and torch."
    )


def plot(tmp_path):
    plot_slopes(slope_table(keras.Sequential([keras.Input((1,)), PReLU()])))


def export(tmp_path):
    export_onnx(keras.Sequential([keras.Input((1,)), PReLU()]), tmp_path / "model.onnx")


@pytest.mark.parametrize(
    ("package", "extra", "use"),
    [
        ("matplotlib", "plots", plot),
        ("onnx", "onnx", export),
        ("onnxscript", "onnx", export),
        ("tf2onnx", "onnx", export),
    ],
)
def test_package_of_an_extra(monkeypatch, tmp_path, package, extra, use):
    for name in {package, *sys.modules}:
        if name.partition(".")[0] == package:
            monkeypatch.setitem(sys.modules, name, None)  # as if it were not installed
    with pytest.raises(
        ImportError, match=rf"^{package} is not installed\..*pip install -e '\.\[{extra}\]' brings it\.$"
    ):
        use(tmp_path)
