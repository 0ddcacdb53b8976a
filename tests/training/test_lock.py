import os
import signal
import subprocess
import sys

import pytest

from training.errors import InputError
from training.run.folder import Run

HOLDER = """
import pathlib, sys, time
from training.run.folder import Run
with Run(pathlib.Path(sys.argv[1])).held():
    print("held", flush=True)
    time.sleep(60)
"""


def test_holder_is_named_and_a_killed_one_holds_no_more(tmp_path):
    run = Run(tmp_path)
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        name = rf"lock is held by process {holder.pid} on {os.uname().nodename}: wait"
        with pytest.raises(InputError, match=name), run.held():
            pass
        holder.send_signal(signal.SIGKILL)
    with run.held():
        pass


def test_one_process_cannot_hold_it_twice(tmp_path):
    run = Run(tmp_path)
    with run.held(), pytest.raises(InputError, match=f"process {os.getpid()} on"), Run(tmp_path).held():
        pass
    with run.held():
        pass


def test_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot hold a run: Not a directory"), Run(tmp_path / "file" / "run").held():
        pass
