"""Errors that say which extra brings a missing package."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def needing(extra: str) -> Iterator[None]:
    """Turns a failed import within it into an ImportError that says how to install the extra."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        brings_it = f"In a clone of keras_prelu, pip install -e '.[{extra}]' brings it."
        raise ImportError(f"{package} is not installed. {brings_it}", name=error.name) from error
