import os
import signal
import subprocess
import sys

import pytest

from training.errors import InputError
from training.run.folder import take_lock

HOLDER = """
import pathlib, sys, time
from training.run.folder import take_lock
lock = take_lock(pathlib.Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


def test_holder_is_named_and_a_killed_one_holds_no_more(tmp_path):
    path = tmp_path / "lock"
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(InputError, match=rf"is held by process {holder.pid} on {os.uname().nodename}: wait"):
            take_lock(path)
        holder.send_signal(signal.SIGKILL)
    take_lock(path).close()


def test_one_process_cannot_hold_it_twice(tmp_path):
    with take_lock(tmp_path / "lock"), pytest.raises(InputError, match=f"process {os.getpid()} on"):
        take_lock(tmp_path / "lock")
    take_lock(tmp_path / "lock").close()
