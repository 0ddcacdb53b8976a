"""What to say where a package is missing that one of the project's extras brings."""

import importlib.util
from collections.abc import Iterable

from training.errors import InputError


def check_packages(task: str, packages: Iterable[str], extra: str) -> None:
    """Raises InputError, with how to install it, where a task needs a package that is not installed."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            brings_it = f"in a clone of keras_prelu, pip install -e '.[{extra}]' brings it"
            raise InputError(f"{task} needs {package}, which is not installed; {brings_it}")
