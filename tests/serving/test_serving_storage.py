"""Versions on disk, read while others write there."""

import os

import pytest

from serving.repository.storage import find_versions


def test_numbers_are_versions(tmp_path):
    for name in ("1", "00000123", "2.tmp", "-3", "\u0665", str(2**63)):
        (tmp_path / name).mkdir()
    (tmp_path / "99").write_text("a file")
    (tmp_path / "7").symlink_to(tmp_path / "1")
    assert find_versions(tmp_path) == {1: tmp_path / "1", 7: tmp_path / "7", 123: tmp_path / "00000123"}


def test_directory_renamed_while_it_is_read_is_no_empty_one(tmp_path, monkeypatch):
    base_path = tmp_path / "models"
    (base_path / "linked").mkdir(parents=True)
    (base_path / "1").symlink_to(base_path / "linked")
    scandir = os.scandir

    def scandir_then_rename(path):
        entries = scandir(path)
        base_path.rename(tmp_path / "elsewhere")
        return entries

    monkeypatch.setattr("serving.repository.storage.os.scandir", scandir_then_rename)
    with pytest.raises(FileNotFoundError):
        find_versions(base_path)
