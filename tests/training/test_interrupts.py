"""What signals do to a process; it needs no TensorFlow, and so starts fast."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from training.interrupts import FIT_MESSAGE, MESSAGE, stop_requests

WAITING = """
import pathlib, sys, time
from training.interrupts import end_at_signals, removed_if_interrupted, stop_requests
end_at_signals()
folder = pathlib.Path(sys.argv[1])
"""
SAVING = """
with stop_requests() as should_stop:
    print("ready", flush=True)
    while not should_stop():
        time.sleep(0.01)
    print("saving", flush=True)
    time.sleep(0 if sys.argv[2] == "once" else 60)
sys.exit(7)
"""
WRITING = """
(folder / "half").mkdir()
(folder / "half" / "file").touch()
(folder / "quarter").touch()
with removed_if_interrupted(folder / "half"), removed_if_interrupted(folder / "quarter"):
    print("ready", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def start(tmp_path):
    started = []

    def start(script, *arguments):
        command = [sys.executable, "-c", WAITING + script, str(tmp_path), *arguments]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_sigterm_waits_for_the_block(start):
    process = start(SAVING, "once")
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=20) == ("saving\n", "")
    assert process.returncode == 7


def test_second_sigterm_ends_at_once(start):
    process = start(SAVING, "for ever")
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "saving\n"
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=20) == ("", f"{MESSAGE}\n")
    assert process.returncode == 143


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["SIGINT", "SIGTERM"])
def test_nothing_half_written_is_left(start, tmp_path, number, status):
    process = start(WRITING)
    process.send_signal(number)
    assert process.communicate(timeout=20) == ("", f"{MESSAGE}\n")
    assert process.returncode == status
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_ends_at_once_though_a_block_waits(start):
    process = start(SAVING, "once")
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=20) == 130


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [("fit --config W/config.py --workdir W/run", FIT_MESSAGE), ("export --workdir W", MESSAGE)],
    ids=["fit", "export"],
)
def test_only_fit_says_that_it_goes_on(tmp_path, arguments, message):
    waiting = tmp_path / "config.json"  # a reader of this pipe waits until somebody writes
    os.mkfifo(waiting)
    (tmp_path / "config.py").write_text(f"open({str(waiting)!r}).read()")
    command = [sys.executable, "-m", "training", *arguments.replace("W", str(tmp_path)).split()]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        with waiting.open("w"):
            process.send_signal(signal.SIGINT)
            assert process.communicate(timeout=60) == (None, f"{message}\n")
        assert process.returncode == 130


def test_handler_is_put_back():
    before = signal.getsignal(signal.SIGTERM)
    with stop_requests() as should_stop:
        assert not should_stop()
        os.kill(os.getpid(), signal.SIGTERM)
        assert should_stop()
    assert signal.getsignal(signal.SIGTERM) == before


def test_other_threads_hear_no_signals():
    heard = []

    def run():
        with stop_requests() as should_stop:
            heard.append(should_stop())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert heard == [False]
