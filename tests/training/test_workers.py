"""Processes on this machine as workers of one cluster: their logs, their ends, and that none is left."""

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import time

import psutil
import pytest

from training.distribute.local_workers import run_local_workers, run_workers
from training.errors import InputError

PRELUDE = """
import json, os, signal, sys, time
config = json.loads(os.environ["TF_CONFIG"])
index = config["task"]["index"]
"""


@pytest.fixture
def run(capfd):
    """Runs a script as several workers in this process, and returns the status and what was shown."""

    def run(num_workers, script):
        status = run_workers(num_workers, [sys.executable, "-c", PRELUDE + script])
        return status, capfd.readouterr()

    return run


@pytest.fixture
def start(tmp_path):
    """Starts a parent with workers that run a script; everything of it is killed when the test ends."""
    with contextlib.ExitStack() as stack:

        def start(num_workers, script, **streams):
            call = f"sys.exit(run_workers({num_workers}, sys.argv[1:]))"
            code = f"import sys; from training.distribute.local_workers import run_workers; {call}"
            command = [sys.executable, "-c", code, sys.executable, "-c", PRELUDE + script]
            streams = streams or {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
            process = subprocess.Popen(command, **streams, start_new_session=True)
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield start


def test_every_worker_is_told_its_place_in_one_cluster(run):
    status, shown = run(3, "print(json.dumps(config))")
    assert status == 0
    lines = [*shown.out.splitlines(), *sorted(shown.err.splitlines())]
    assert [line[: line.index("{")] for line in lines] == ["", "worker 1: ", "worker 2: "]
    configs = [json.loads(line[line.index("{") :]) for line in lines]
    assert [config["task"] for config in configs] == [{"type": "worker", "index": index} for index in range(3)]
    (addresses,) = {tuple(config["cluster"]["worker"]) for config in configs}
    assert len(set(addresses)) == 3
    assert all(address.startswith("127.0.0.1:") for address in addresses)


def test_addresses_can_be_listened_at(run):
    script = """
import socket
host, port = config["cluster"]["worker"][index].split(":")
with socket.create_server((host, int(port))):
    print("listens", flush=True)
"""
    status, shown = run(2, script)
    assert (status, shown.out, shown.err) == (0, "listens\n", "worker 1: listens\n")


def test_logs_are_joined_line_by_line(run):
    script = r"""
for turn in range(40):
    for part in ("one ", "line ", str(turn), chr(10)) if index else (f"the chief's line {turn}\n",):
        os.write(1 + turn % 2, part.encode())
        time.sleep(0.0005)
os.write(1, b"a bar 10%\ra bar 99%\n" + b"no end")
"""
    status, shown = run(3, script)
    assert status == 0
    for worker in (1, 2):
        prefix = f"worker {worker}: "
        own = [line.removeprefix(prefix) for line in shown.err.splitlines() if line.startswith(prefix)]
        assert own == [f"one line {turn}" for turn in range(40)] + ["a bar 99%", "no end"]
    assert shown.out.splitlines()[:2] == ["the chief's line 0", "the chief's line 2"]


def test_lines_of_the_chief_are_whole_though_python_is_told_not_to_buffer(start, monkeypatch):
    monkeypatch.setenv("PYTHONUNBUFFERED", "1")
    parent = start(3, "for turn in range(300): print('line', flush=True)")
    lines = parent.communicate(timeout=60)[0].splitlines()
    assert {line: lines.count(line) for line in lines} == {
        b"line": 300,
        b"worker 1: line": 300,
        b"worker 2: line": 300,
    }


@pytest.mark.slow
def test_a_failing_worker_ends_the_others_and_is_named(run, monkeypatch):
    monkeypatch.setattr("training.distribute.local_workers.LEAVE_SECONDS", 0.2)
    status, shown = run(3, "time.sleep(0.2); sys.exit(5) if index == 1 else time.sleep(60)")
    assert status == 5
    assert shown.err.splitlines()[-1] == "training: worker 1 ended with status 5"


def test_a_killed_worker_has_the_status_of_shells(run, monkeypatch):
    monkeypatch.setattr("training.distribute.local_workers.LEAVE_SECONDS", 0.2)
    status, shown = run(2, "os.kill(os.getpid(), signal.SIGKILL) if index else time.sleep(60)")
    assert status == 128 + signal.SIGKILL
    assert "training: worker 1 ended with status 137" in shown.err


@pytest.mark.slow
def test_the_cause_is_named_though_another_worker_ended_first(run):
    script = "time.sleep(0.5 if index else 0); sys.exit(4 if index else 3)"
    status, shown = run(2, script)
    assert status == 4
    assert "training: worker 1 ended with status 4" in shown.err


@pytest.mark.slow
def test_the_others_may_leave_by_themselves(run):
    script = "signal.signal(signal.SIGTERM, lambda *_: print('asked')); time.sleep(0 if index else 1); sys.exit(4)"
    status, shown = run(2, script)
    assert status == 4
    assert shown.out == ""


@pytest.mark.slow
def test_a_worker_that_does_not_end_is_killed(run, monkeypatch):
    monkeypatch.setattr("training.distribute.local_workers.LEAVE_SECONDS", 0.2)
    monkeypatch.setattr("training.distribute.local_workers.GRACE_SECONDS", 0.4)
    script = "signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(0.3); sys.exit(2) if index else time.sleep(60)"
    begin = time.monotonic()
    assert run(2, script)[0] == 2
    assert time.monotonic() - begin < 10


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_reach_all_once_and_all_are_waited_for(start, number):
    script = """
def stop(number, frame):
    time.sleep(0.3 * (1 + index))
    print("saved after", signal.Signals(number).name, flush=True)
    os._exit(128 + number)
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, stop)
print("ready", flush=True)
time.sleep(60)
"""
    parent = start(2, script)
    assert sorted([parent.stdout.readline(), parent.stdout.readline()]) == [b"ready\n", b"worker 1: ready\n"]
    os.killpg(parent.pid, number)  # as a terminal does
    output, _ = parent.communicate(timeout=20)
    name = number.name.encode()
    assert sorted(output.splitlines()) == [b"saved after " + name, b"worker 1: saved after " + name]
    assert parent.returncode == 128 + number


def test_a_second_signal_kills(start):
    script = "signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(60)"
    parent = start(2, script)
    assert sorted([parent.stdout.readline(), parent.stdout.readline()]) == [b"ready\n", b"worker 1: ready\n"]
    parent.terminate()
    time.sleep(0.3)
    assert parent.poll() is None
    parent.terminate()
    assert parent.wait(timeout=20) == 128 + signal.SIGKILL


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
def test_workers_die_with_a_parent_that_is_killed(start):
    parent = start(2, "print('ready', flush=True); time.sleep(60)")
    assert sorted([parent.stdout.readline(), parent.stdout.readline()]) == [b"ready\n", b"worker 1: ready\n"]
    workers = psutil.Process(parent.pid).children()
    assert len(workers) == 2
    parent.kill()
    _, alive = psutil.wait_procs(workers, timeout=10)
    assert not alive


def test_workers_end_when_nobody_reads_their_lines(start):
    parent = start(2, "while True: print('line', flush=True)")
    parent.stdout.readline()
    parent.stdout.close()
    assert parent.wait(timeout=30) != 0


def test_the_chief_has_the_terminal_and_the_others_lines_clear_its_bar(start):
    controller, terminal = pty.openpty()
    parent = start(2, "print(sys.stderr.isatty(), flush=True)", stdout=terminal, stderr=terminal)
    assert parent.wait(timeout=20) == 0
    os.close(terminal)
    shown = b""
    with contextlib.suppress(OSError):  # Linux ends a terminal so
        while part := os.read(controller, 1000):
            shown += part
    os.close(controller)
    assert sorted(shown.splitlines(keepends=True)) == [b"\r", b"\x1b[Kworker 1: False\r\n", b"True\r\n"]


def test_a_cluster_beside_local_workers_is_refused(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", "{}")
    with pytest.raises(InputError, match="TF_CONFIG names a cluster already"):
        run_local_workers(2, [])


def test_no_workers_are_refused():
    with pytest.raises(InputError, match="local_workers is 0, but must be at least 1"):
        run_local_workers(0, [])
