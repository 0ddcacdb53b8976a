"""The wheel, installed from PyPI's packages in empty environments: no file is missing, and a client stays light."""

import pathlib
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent.parent


def run(*command, **options):
    words = [*map(str, command)]
    answer = subprocess.run(words, capture_output=True, text=True, timeout=900, check=False, **options)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return answer.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("keras_prelu", "training", "serving"):
        shutil.copytree(ROOT / name, folder / "source" / name)
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):  # a build in the clone would leave a folder
        shutil.copy(ROOT / name, folder / "source" / name)
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, folder / "source")
    (wheel,) = folder.glob("keras_prelu-*.whl")
    return wheel


def environment(folder, wheel, extra):
    """The folder of programs of a new environment with the wheel and one of its extras."""
    run(sys.executable, "-m", "venv", folder)
    run(folder / "bin/pip", "install", "--quiet", f"keras_prelu[{extra}] @ {wheel.as_uri()}")
    return folder / "bin"


def test_client_brings_neither_tensorflow_nor_keras(wheel, tmp_path):
    programs = environment(tmp_path / "environment", wheel, "client")
    installed = {line.split("==")[0] for line in run(programs / "pip", "list", "--format=freeze").splitlines()}
    assert "grpcio" in installed
    assert not installed & {"tensorflow", "keras", "jax", "torch"}
    assert "usage: keras-prelu ask" in run(programs / "keras-prelu", "ask", "--help", cwd=tmp_path)
    code = "from serving.client import Client; print(Client('grpc://localhost:1', 'm'))"
    assert "Client" in run(programs / "python", "-c", code, cwd=tmp_path)


@pytest.mark.timeout(1800)
def test_demo_runs_with_nothing_else(wheel, tmp_path):
    programs = environment(tmp_path / "environment", wheel, "demo")
    output = run(programs / "python", ROOT / "examples/demo.py", cwd=tmp_path)
    assert "REST, gRPC and the Keras model agree to" in output
    run(programs / "keras-prelu", "report", "runs/digits", cwd=tmp_path)
    assert (tmp_path / "runs/digits/report.html").is_file()
