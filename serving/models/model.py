"""One loaded version of a model: named arrays in, named arrays out."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np

from serving.call import Call
from serving.errors import Code, ServingError, invalid_argument
from serving.wire.signatures import DEFAULT_SIGNATURE, Signature, bind_inputs, bind_outputs, explaining, fits

_PREDICT_METHODS = tuple(f"tensorflow/serving/{name}" for name in ("predict", "classify", "regress"))


class Runner(Protocol):
    """Computes tensors: a session, an interpreter, or batches of requests before one of these."""

    def run(self, feeds: Mapping[str, np.ndarray], fetches: Sequence[str], call: Call) -> list[np.ndarray]:
        """Computes the tensors of these names from arrays by the names of theirs, in the time that the call has left.

        A call that its client has cancelled is not run.
        """

    def close(self) -> None:
        """Frees the memory. Nobody may run the model any more."""


class Model:
    """The signatures of a version, and the runner that computes their tensors.

    With `checks_method_names` a signature answers only the method that it was exported for. `num_bytes` is the size of
    the files that it was loaded from; `batch_fill` returns how full its last batch was, or None.
    """

    def __init__(
        self,
        runner: Runner,
        signatures: Mapping[str, Signature],
        checks_method_names: bool = False,
        num_bytes: int = 0,
        batch_fill: Callable[[], float | None] = lambda: None,
    ) -> None:
        self.runner = runner
        self.signatures = signatures
        self.checks_method_names = checks_method_names
        self.num_bytes = num_bytes
        self.batch_fill = batch_fill

    def run(
        self,
        signature_name: str,
        inputs: Mapping[str, np.ndarray],
        output_names: Sequence[str] = (),
        call: Call | None = None,
    ) -> dict[str, np.ndarray]:
        """Computes the outputs of these names, or all. Without a call the time is not limited."""
        signature = self._signature(signature_name or DEFAULT_SIGNATURE)
        with explaining(signature):
            feeds = bind_inputs(signature, inputs)
        aliases = bind_outputs(signature, output_names)
        fetches = [signature.outputs[alias].name for alias in aliases]
        # Other errors of a run have causes that its inputs do not show.
        with explaining(signature if signature.features or not fits(signature, inputs) else None):
            outputs = self.runner.run(feeds, fetches, call or Call())
        return dict(zip(aliases, outputs, strict=True))

    def close(self) -> None:
        """Frees the memory. Nobody may run the model any more."""
        self.runner.close()

    def _signature(self, name: str) -> Signature:
        if name not in self.signatures:
            raise ServingError(Code.FAILED_PRECONDITION, f'Serving signature key "{name}" not found.')
        signature = self.signatures[name]
        if self.checks_method_names and signature.method_name not in _PREDICT_METHODS:
            raise invalid_argument(
                f"Expected prediction signature method_name to be one of {{{', '.join(_PREDICT_METHODS)}}}. "
                f"Was: {signature.method_name}"
            )
        return signature
