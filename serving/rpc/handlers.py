"""Handlers of gRPC with something before what they do."""

from collections.abc import Callable
from typing import Any

Behavior = Callable[..., Any]


def wrapped(handler: Any, wrap: Callable[[Behavior], Behavior]) -> Any:
    """The handler of a call with its function wrapped, whatever streams; None where there is no handler."""
    if handler is None:
        return None
    kinds = ("stream" if each else "unary" for each in (handler.request_streaming, handler.response_streaming))
    name = "_".join(kinds)
    return handler._replace(**{name: wrap(getattr(handler, name))})
