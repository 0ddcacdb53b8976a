"""Models come from their base path alone: a link in a version's directory must not lead out of it."""

import os
from pathlib import Path

from serving.errors import Code, ServingError


def check_links(directory: Path) -> None:
    """Raises ServingError where a version's directory is, or holds, a link that leads out of the model's base path.

    The base path itself may be a link, and links inside it are followed, as ConfigMaps and git-sync make them.
    """
    base_path = directory.parent
    real_base = os.path.realpath(base_path)
    waiting, seen = [str(directory)], set[str]()
    while waiting:
        path = waiting.pop()
        real = os.path.realpath(path)
        if os.path.commonpath([real, real_base]) != real_base:
            raise ServingError(
                Code.PERMISSION_DENIED,
                f"{os.path.relpath(path, base_path)} is a link that leads out of the model's base path; "
                "--allow_links_out_of_base_path lets it in",
            )
        if real in seen or not os.path.isdir(real):
            continue
        seen.add(real)
        with os.scandir(path) as entries:
            waiting += [entry.path for entry in entries if entry.is_symlink() or entry.is_dir()]
