import contextlib
import ctypes
import os
import subprocess
import sys

import pytest
import tensorflow as tf

from training.environment import native_messages_held, start_tensorflow

START = """
import pathlib, sys
from training.environment import start_tensorflow
start_tensorflow(devices=pathlib.Path(sys.argv[1]))
"""

# The number of blocks that malloc has by mmap while two of 48 MiB are held, and the resident MiB once they are free.
BLOCKS = """
import ctypes, pathlib
from training.environment import keep_freed_memory
class Info(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in "arena ordblks smblks hblks h i j k l m".split()]
libc = ctypes.CDLL("libc.so.6")
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes, libc.mallinfo2.restype = [ctypes.c_void_p], Info
keep_freed_memory()
before = libc.mallinfo2().hblks
blocks = [libc.malloc(48 << 20) for _ in range(2)]
mapped = libc.mallinfo2().hblks - before
for block in blocks:
    ctypes.memset(block, 1, 48 << 20)
    libc.free(block)
status = pathlib.Path("/proc/self/status").read_text()
print(mapped, *(int(line.split()[1]) >> 10 for line in status.splitlines() if line.startswith("VmRSS")))
"""

# What AutoGraph has written while a network was trained and evaluated.
CONVERTED = """
import pathlib, sys, tempfile
from training.__main__ import main
run, *fields = sys.argv[1:]
assert main(["fit", "--config", "digits", "--workdir", run, *fields]) == 0
assert main(["evaluate", "--run", run, "--views", "ten"]) == 0
print([path.name for path in pathlib.Path(tempfile.gettempdir()).glob("__autograph*")])
"""


@pytest.fixture
def devices(tmp_path, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    (tmp_path / "nvidia0").touch()
    (tmp_path / "nvidiactl").touch()
    return tmp_path


def run(script, *arguments, **environment):
    inherited = {name: value for name, value in os.environ.items() if name not in ("TF_CPP_MIN_LOG_LEVEL", "MALLOC_")}
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(
        command, env={**inherited, **environment}, capture_output=True, text=True, timeout=500, check=True
    )


@pytest.mark.skipif(bool(tf.config.list_physical_devices("GPU")), reason="TensorFlow finds the GPU")
def test_gpu_that_tensorflow_does_not_find_is_a_warning_behind_all_that_was_held_back(devices):
    said = run(START, devices).stderr
    held, warning, _ = said.partition(f"training: warning: this machine has {devices / 'nvidia0'}, but TensorFlow")
    assert warning
    assert "cuda" in held.lower()


@pytest.mark.parametrize("visible", ["", "-1"])
def test_gpus_hidden_on_purpose_are_none(devices, capfd, monkeypatch, visible):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    start_tensorflow(devices=devices)
    assert capfd.readouterr() == ("", "")


def test_machine_without_gpu_starts_without_a_word(devices):
    (devices / "nvidia0").unlink()
    started = run(START, devices)
    assert (started.stdout, started.stderr) == ("", "")


@pytest.mark.parametrize(("given", "taken"), [(None, "true"), ("false", "false")])
def test_gpu_memory_grows_unless_the_user_says_otherwise(devices, monkeypatch, given, taken):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    monkeypatch.setenv("TF_FORCE_GPU_ALLOW_GROWTH", given or "")
    if given is None:
        monkeypatch.delenv("TF_FORCE_GPU_ALLOW_GROWTH")
    start_tensorflow(devices=devices)
    assert os.environ["TF_FORCE_GPU_ALLOW_GROWTH"] == taken


def test_messages_of_a_block_that_fails_are_shown(capfd):
    with contextlib.suppress(ValueError), native_messages_held():
        os.write(2, b"why\n")
        raise ValueError
    assert capfd.readouterr().err == "why\n"


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="the C library is not glibc 2.33 or newer")
def test_large_blocks_stay_with_the_process_when_they_are_freed():
    mapped, resident = map(int, run(BLOCKS).stdout.split())
    assert mapped == 0
    assert resident > 96
    mapped, resident = map(int, run(BLOCKS, MALLOC_ARENA_MAX="2").stdout.split())  # the user's choice
    assert mapped == 2
    assert resident < 96


@pytest.mark.slow
def test_autograph_converts_nothing(tmp_path):
    fields = (
        *("--filters", "4", "--convolutions", "1", "--steps", "3", "--warmup_steps", "0", "--steps_per_execution", "2"),
        *("--cpu_devices", "2", "--random_erasing", "0.5", "--scale_min", "8"),
        *("--scale_max", "10", "--gradient_accumulation_steps", "2", "--ema_decay", "0.9"),
    )
    assert run(CONVERTED, tmp_path / "run", *fields, TMPDIR=str(tmp_path)).stdout.splitlines()[-1] == "[]"
