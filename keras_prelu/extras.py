"""What to say where a package is missing that one of the project's extras brings."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def needing(extra: str) -> Iterator[None]:
    """Raises an ImportError that says how to install a package of an extra, where importing it fails."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        brings_it = f"In a clone of keras_prelu, pip install -e '.[{extra}]' brings it."
        raise ImportError(f"{package} is not installed. {brings_it}", name=error.name) from error
