"""What to say where a package is missing that one of the project's extras brings."""

from collections.abc import Iterator
from contextlib import contextmanager


class MissingPackageError(ImportError):
    """A package that is not installed; its text says how to install it."""


@contextmanager
def needing(extra: str) -> Iterator[None]:
    """Raises MissingPackageError where an import fails for a package of an extra."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        if package == __package__:
            raise
        brings_it = f"in a clone of keras_prelu, pip install -e '.[{extra}]' brings it"
        raise MissingPackageError(f"{package} is not installed; {brings_it}", name=error.name) from error
