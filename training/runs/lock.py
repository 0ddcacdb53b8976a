"""A lock that one process holds, and that is free again as soon as it ends, however it ends."""

import fcntl
import os
import pathlib
import socket
from typing import TextIO

from training.errors import InputError


def take_lock(path: pathlib.Path) -> TextIO:
    """Makes and locks a file, which says who holds it; closing it gives it back.

    The file stays: were it removed, two processes could hold two files of its name. Network file systems that know
    `flock` let only one of several machines have it.

    Raises:
        InputError: Another holds it, or this process does already.
        OSError: The file cannot be made or locked.
    """
    file = path.open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.seek(0)
        holder = file.read() or "another process"
        file.close()
        if isinstance(error, BlockingIOError):
            raise InputError(f"{path} is held by {holder}: wait until it ends, or name another --workdir") from None
        raise
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}")
    file.flush()
    return file
