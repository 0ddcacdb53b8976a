"""The versions on disk that a configuration asks for, look by look."""

import logging
from collections.abc import Collection, Mapping
from pathlib import Path

from serving.repository.config import ModelConfig, Specific, select
from serving.repository.storage import Quiet, find_versions

logger = logging.getLogger("serving")


class Finder:
    """Finds the versions of models, and logs what is odd about them: once per change, not once per look.

    `looks_again` is false if each model is looked for once only.
    """

    def __init__(self, looks_again: bool) -> None:
        self._looks_again = looks_again
        self._quiet = Quiet()
        self._remarks: dict[str, str] = {}

    def find(self, config: ModelConfig, known: Mapping[int, Path]) -> Mapping[int, Path]:
        """The directories of the versions to serve; those that are known already, if the disk doesn't say."""
        try:
            found = find_versions(config.base_path)
            selected = {version: found[version] for version in select(config.policy, found)}
            is_whole = selected == known or self._is_whole(config, selected)
        except (OSError, ValueError) as error:  # a base path that went away says nothing about the versions
            reason = error.strerror if isinstance(error, OSError) else error  # ValueError: a path with a NUL
            self._remark(config, f"Could not find base path {config.base_path} for servable {config.name}: {reason}")
            return known
        unnumbered = f"The SavedModel right in base path {config.base_path} of servable {config.name}"
        if not is_whole:
            self._remark(config, f"{unnumbered} is being written: it is loaded once its files have stopped changing")
            return known
        missing = _missing_versions(config, selected)
        if config.base_path in selected.values() and not missing:
            self._remark(config, f"{unnumbered} is served as version 1", logging.INFO)
        else:
            self._remark(config, missing)
        return selected

    def _is_whole(self, config: ModelConfig, selected: Mapping[int, Path]) -> bool:
        # A numbered directory appears whole, by a rename. Nobody can rename a SavedModel into a directory that exists.
        is_numbered = config.base_path not in selected.values()
        return is_numbered or not self._looks_again or self._quiet.is_quiet(config.base_path)

    def _remark(self, config: ModelConfig, remark: str, level: int = logging.WARNING) -> None:
        if remark and remark != self._remarks.get(config.name):
            logger.log(level, "%s", remark)
        self._remarks[config.name] = remark


def _missing_versions(config: ModelConfig, selected: Collection[int]) -> str:
    wanted = config.policy.versions if isinstance(config.policy, Specific) else frozenset[int]()
    complaints = [
        f"Version {version} of servable {config.name}, which was requested to be served as a 'specific' version in "
        "the servable's version policy, was not found in the file system"
        for version in sorted(wanted.difference(selected))
    ]
    if not selected:
        complaints.append(
            f"No versions of servable {config.name} found under base path {config.base_path}. Did you forget to name "
            "your leaf directory as a number (eg. '/1/')?"
        )
    return "; ".join(complaints)
