"""Computes tensors of a graph in a session, as TensorFlow Serving does, so that TF1 and TF2 models run alike."""

from collections.abc import Callable, Mapping, Sequence
from ctypes import c_void_p
from typing import Any

import numpy as np
import tensorflow as tf

from serving.errors import Code, ServingError
from serving.models import c_api, c_tensors


class SessionRunner:
    """A TF_Session and its TF_Graph."""

    def __init__(self, session: int, graph: int) -> None:
        self._session = session
        self._graph = graph
        self._outputs: dict[str, c_api.Output] = {}

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
        fed = [self._output(name, "FeedInputs: unable to find feed output") for name in feeds]
        fetched = [self._output(name, "FetchOutputs: unable to find") for name in fetches]
        inputs = [c_tensors.from_array(array) for array in feeds.values()]
        outputs = self._run(fed, inputs, fetched, _run_options(timeout))
        return [c_tensors.to_array(each) for each in outputs]

    def close(self) -> None:
        """Gives the memory back. Nobody may run the graph any more."""
        try:
            with c_api.checked() as status:
                c_api.TF_DeleteSession(self._session, status)  # closes it, and discards it even where it tells an error
        finally:
            c_api.TF_DeleteGraph(self._graph)

    def _run(
        self,
        fed: Sequence[c_api.Output],
        inputs: Sequence[c_tensors.Tensor],
        fetched: Sequence[c_api.Output],
        options: Any,
    ) -> list[c_tensors.Tensor]:
        given = (c_void_p * len(inputs))(*(each.handle for each in inputs))
        computed = (c_void_p * len(fetched))()
        what_is_fed = (c_api.Output * len(fed))(*fed), given, len(fed)
        what_is_fetched = (c_api.Output * len(fetched))(*fetched), computed, len(fetched)
        with c_api.checked() as status, c_api.buffer_of(options) as buffer:
            c_api.TF_SessionRun(self._session, buffer, *what_is_fed, *what_is_fetched, None, 0, None, status)
        return [c_tensors.Tensor(handle) for handle in computed if handle]

    def _output(self, name: str, complaint: str) -> c_api.Output:
        if name not in self._outputs:
            operation, _, index = name.partition(":")
            found = c_api.TF_GraphOperationByName(self._graph, operation.encode())
            if found is None:
                raise ServingError(Code.NOT_FOUND, f"{complaint} {name}")
            self._outputs[name] = c_api.Output(found, int(index or 0))
        return self._outputs[name]


def _run_options(timeout: float | None) -> Any:
    if timeout is None:
        return None
    # 0 would mean no limit, so a deadline that has passed gets the shortest one.
    return tf.compat.v1.RunOptions(timeout_in_ms=max(1, round(timeout * 1000)))
