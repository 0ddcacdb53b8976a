"""Computes tensors of a graph in a TF1 session, as TensorFlow Serving does, so that TF1 and TF2 models run alike."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.client import pywrap_tf_session

from serving.errors import Code, ServingError, invalid_argument

_FUNCTION = re.compile(r"\{\{function_node [^}]*\}\} ?")  # where in the graph, in names that nobody has given
# What Python's Session wraps around the text of the runtime: a headline, and where the operation was made.
_HEADLINE = "Graph execution error:\n\n"
_ORIGIN = re.compile(
    r"\n+(Detected at node|Defined at|Original stack trace for|Errors may have originated).*", re.DOTALL
)


class SessionRunner:
    """A graph and its variables, in a session of their own."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self._handles: dict[str, Any] = {}
        with translated_errors():
            session._extend_graph()  # Session.run would do it each time; the graph changes no more

    def run(
        self,
        feeds: Mapping[str, np.ndarray],
        fetches: Sequence[str],
        timeout: float | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> list[np.ndarray]:
        """The tensors of these names, from arrays by the names of theirs. The timeout is in seconds.

        A call that nobody waits for any more is not run.
        """
        if cancelled is not None and cancelled():
            raise ServingError(Code.CANCELLED, "The client has cancelled the request")
        fed = {self._handle(name, "FeedInputs: unable to find feed output"): _fed(feeds[name]) for name in feeds}
        fetched = [self._handle(name, "FetchOutputs: unable to find") for name in fetches]
        with translated_errors(), _run_options(timeout) as options:
            # What Session.run does in the end. What it does before, for graphs and structures of any kind, takes
            # 0.15 ms, in which no other thread of Python runs.
            outputs = self._session._call_tf_sessionrun(options, fed, fetched, [], None)
        # A scalar string comes as bytes, of which asarray alone would make an array of fixed-length bytes.
        return [np.asarray(each, object if isinstance(each, bytes) else None) for each in outputs]

    def close(self) -> None:
        """Gives the memory back. Nobody may run the graph any more."""
        self._session.close()

    def _handle(self, name: str, complaint: str) -> Any:
        if name not in self._handles:
            try:
                self._handles[name] = self._session.graph.get_tensor_by_name(name)._as_tf_output()
            except (KeyError, ValueError) as error:
                raise ServingError(Code.NOT_FOUND, f"{complaint} {name}") from error
        return self._handles[name]


@contextmanager
def translated_errors() -> Iterator[None]:
    """Turns TensorFlow's exceptions into errors of the server, with the runtime's own text."""
    try:
        yield
    except tf.errors.OpError as error:
        raise ServingError(Code(error.error_code), _runtime_text(error.message)) from error
    except (ValueError, TypeError, RuntimeError, KeyError, OSError) as error:
        # What the Python around the runtime refuses: a graph that does not import, a file that is not there.
        raise invalid_argument(_runtime_text(str(error))) from error


def _runtime_text(text: str) -> str:
    return _FUNCTION.sub("", _ORIGIN.sub("", text.removeprefix(_HEADLINE)))


def _fed(array: np.ndarray) -> np.ndarray:
    return array.astype(object) if array.dtype.kind in "SU" else array  # the runtime knows strings of any length only


@contextmanager
def _run_options(timeout: float | None) -> Iterator[Any]:
    if timeout is None:
        yield None
        return
    # 0 would mean no limit, so a deadline that has passed gets the shortest one.
    options = tf.compat.v1.RunOptions(timeout_in_ms=max(1, round(timeout * 1000)))
    buffer = pywrap_tf_session.TF_NewBufferFromString(options.SerializeToString())
    try:
        yield buffer
    finally:
        pywrap_tf_session.TF_DeleteBuffer(buffer)
