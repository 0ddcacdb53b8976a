"""What systemd is told, read from the socket that it would read."""

import contextlib
import logging
import os
import socket
import subprocess
import sys

import pytest

from serving.process import notify, watchdog_interval

pytestmark = pytest.mark.xdist_group("serving-command")


@contextlib.contextmanager
def listening(address):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.settimeout(60)
        receiver.bind("\0" + address[1:] if address.startswith("@") else address)
        yield receiver


def test_abstract_socket_is_told(monkeypatch):
    address = f"@keras-prelu-{os.getpid()}"
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    with listening(address) as receiver:
        notify("READY=1", "STATUS=Serving")
        assert receiver.recv(1000) == b"READY=1\nSTATUS=Serving"


def test_socket_that_is_not_there_is_logged(monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "none"))
    with caplog.at_level(logging.WARNING):
        notify("READY=1")
    assert caplog.messages == [f"Could not notify systemd at {tmp_path}/none: [Errno 2] No such file or directory"]


@pytest.mark.parametrize(
    ("environment", "interval"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "3000000"}, 1.5),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())}, 1.5),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}, None),
    ],
    ids=["none", "set", "of-this-process", "of-another"],
)
def test_watchdog_interval_is_half_the_limit(monkeypatch, environment, interval):
    for name in ("WATCHDOG_USEC", "WATCHDOG_PID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert watchdog_interval() == interval


@pytest.mark.slow
def test_service_tells_how_it_is_from_start_to_end(tmp_path, save_plus):
    save_plus(tmp_path / "plus" / "1", 1)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "serving", f"--port={port}", f"--model_base_path={tmp_path / 'plus'}"]
    environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "200000"}
    with (
        listening(environment["NOTIFY_SOCKET"]) as receiver,
        subprocess.Popen(command, env=os.environ | environment, stderr=subprocess.DEVNULL) as process,
    ):
        try:
            assert receiver.recv(1000) == b"STATUS=Loading the models"
            assert receiver.recv(1000) == b"READY=1\nSTATUS=Serving"
            socket.create_connection(("127.0.0.1", port)).close()
            assert receiver.recv(1000) == b"WATCHDOG=1"
            process.terminate()
            told = receiver.recv(1000)
            while told == b"WATCHDOG=1":
                told = receiver.recv(1000)
            assert told == b"STOPPING=1\nSTATUS=Answering the requests in flight"
            assert process.wait(timeout=20) == 0
        finally:
            process.kill()
