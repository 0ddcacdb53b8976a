"""One loaded version of a model: named arrays in, named arrays out."""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import types_pb2

from serving import saved_model, tensors
from serving.binding import bind_inputs, bind_outputs
from serving.errors import Code, ServingError, invalid_argument
from serving.signatures import DEFAULT_SIGNATURE, Signature, TensorInfo

# What Python's Session wraps around the text of the runtime: a headline, and where the operation was made.
_HEADLINE = "Graph execution error:\n\n"
_ORIGIN = re.compile(
    r"\n+(Detected at node|Defined at|Original stack trace for|Errors may have originated).*", re.DOTALL
)


class Model:
    """A SavedModel in a session of its own."""

    def __init__(self, session: Any, signatures: Mapping[str, Signature]) -> None:
        self._session = session
        self.signatures = signatures

    def run(
        self,
        signature_name: str,
        inputs: Mapping[str, np.ndarray],
        output_names: Sequence[str] = (),
        timeout: float | None = None,
    ) -> dict[str, np.ndarray]:
        """Computes the outputs that are named, or all. The timeout is in seconds."""
        signature = self._signature(signature_name or DEFAULT_SIGNATURE)
        feeds = bind_inputs(signature, inputs)
        aliases = bind_outputs(signature, output_names)
        outputs = self._run([signature.outputs[alias].name for alias in aliases], feeds, timeout)
        return dict(zip(aliases, outputs, strict=True))

    def close(self) -> None:
        """Gives the memory back. Nobody may run the model any more."""
        self._session.close()

    def _signature(self, name: str) -> Signature:
        if name not in self.signatures:
            raise ServingError(Code.FAILED_PRECONDITION, f'Serving signature key "{name}" not found.')
        return self.signatures[name]

    def _run(self, fetches: Sequence[str], feeds: Mapping[str, np.ndarray], timeout: float | None) -> list[np.ndarray]:
        fed = {self._tensor(name, "FeedInputs: unable to find feed output"): feeds[name] for name in feeds}
        fetched = [self._tensor(name, "FetchOutputs: unable to find") for name in fetches]
        with translated_errors():
            outputs = self._session.run(fetched, feed_dict=fed, options=_run_options(timeout))
        # A scalar string comes as bytes, of which asarray alone would make an array of fixed-length bytes.
        return [np.asarray(each, object if isinstance(each, bytes) else None) for each in outputs]

    def _tensor(self, name: str, complaint: str) -> Any:
        try:
            return self._session.graph.get_tensor_by_name(name)
        except (KeyError, ValueError) as error:
            raise ServingError(Code.NOT_FOUND, f"{complaint} {name}") from error


def load(directory: Path, tags: Collection[str] = ("serve",)) -> Model:
    """Loads a SavedModel directory, TF1's or TF2's."""
    # Exports remember the device they were made on; a server without it is no reason to refuse them.
    config = tf.compat.v1.ConfigProto(allow_soft_placement=True)
    session = tf.compat.v1.Session(graph=tf.Graph(), config=config)
    try:
        with translated_errors():
            definitions = saved_model.load_into(session, directory, tags).signature_def
            names = [name for name in definitions if name != saved_model.INIT_OP_KEY]
            return Model(session, {name: _signature(name, definitions[name]) for name in names})
    except BaseException:
        session.close()
        raise


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
    return _ORIGIN.sub("", text.removeprefix(_HEADLINE))


def _run_options(timeout: float | None) -> Any:
    if timeout is None:
        return None
    # 0 would mean no limit, so a deadline that has passed gets the shortest one.
    return tf.compat.v1.RunOptions(timeout_in_ms=max(1, round(timeout * 1000)))


def _signature(name: str, definition: Any) -> Signature:
    return Signature(
        name=name,
        method_name=definition.method_name,
        inputs={alias: _tensor_info(info) for alias, info in definition.inputs.items()},
        outputs={alias: _tensor_info(info) for alias, info in definition.outputs.items()},
        defaults={alias: tensors.from_proto(proto) for alias, proto in definition.defaults.items()},
        definition=definition,
    )


def _tensor_info(info: Any) -> TensorInfo:
    word = types_pb2.DataType.Name(info.dtype).removeprefix("DT_").lower()
    if info.tensor_shape.unknown_rank:
        return TensorInfo(info.name, word, None)
    sizes = tuple(None if dim.size < 0 else dim.size for dim in info.tensor_shape.dim)
    return TensorInfo(info.name, word, sizes)
