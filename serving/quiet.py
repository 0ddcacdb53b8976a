"""Keeps the chatter of TensorFlow's import away from the terminal."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

_LEVEL = "TF_CPP_MIN_LOG_LEVEL"


@contextmanager
def quiet_import() -> Iterator[None]:
    """Holds back what native code writes to standard error, and shows it if the import fails.

    TensorFlow writes about its devices before it looks at its log level. Who sets that level wants to see.
    """
    if _LEVEL in os.environ:
        yield
        return
    os.environ[_LEVEL] = "2"
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as held_back:
        os.dup2(held_back.fileno(), 2)
        try:
            yield
        except BaseException:
            held_back.seek(0)
            os.write(terminal, held_back.read())
            raise
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)
