"""Versions count up, whole, also where exports are killed or run at once."""

import os
import subprocess
import sys
import threading

import pytest

from training.errors import InputError
from training.export import publishing
from training.export.publishing import find_versions, publish, remove_old, unfinished_folder

# Makes an unfinished folder, says so, and waits to be killed.
KILLED = """
import pathlib, sys, time
from training.export.publishing import unfinished_folder
with unfinished_folder(pathlib.Path(sys.argv[1])) as folder:
    (folder / "model").mkdir()
    print("unfinished", flush=True)
    time.sleep(60)
"""


def add_version(base):
    with unfinished_folder(base) as unfinished:
        (unfinished / "model").mkdir()
        (unfinished / "model" / "saved_model.pb").write_text("a graph")
        return publish(unfinished / "model", base)


def names(base):
    return sorted(path.name for path in base.iterdir())


def test_versions_count_up_from_1_in_a_folder_that_is_made(tmp_path):
    base = tmp_path / "new" / "base"
    assert [add_version(base) for _ in range(3)] == [base / "1", base / "2", base / "3"]
    assert names(base) == ["1", "2", "3"]
    assert (base / "3" / "saved_model.pb").read_text() == "a graph"


@pytest.mark.parametrize(
    ("there", "version"), [("7", "8"), ("007", "8"), ("x7", "1"), ("7.old", "1"), ("²", "1"), (str(2**63), "1")]
)
def test_next_version_is_one_above_what_a_server_would_take(tmp_path, there, version):
    (tmp_path / there).mkdir()
    assert add_version(tmp_path).name == version


def test_file_with_a_versions_name_stays(tmp_path):
    (tmp_path / "4").write_text("mine")
    assert add_version(tmp_path).name == "5"
    assert (tmp_path / "4").read_text() == "mine"


def test_largest_version_has_no_next(tmp_path):
    (tmp_path / str(2**63 - 1)).mkdir()
    with pytest.raises(InputError, match="is the largest version"):
        add_version(tmp_path)


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_version_that_another_export_has_just_taken_is_not_overwritten(tmp_path, monkeypatch, kind):
    looks = []

    def find_too_early(base):
        looks.append(found := find_versions(base))
        if len(looks) == 1:
            if kind == "folder":
                (base / "1").mkdir()
                (base / "1" / "theirs").touch()
            else:
                (base / "1").touch()
        return found

    monkeypatch.setattr(publishing, "find_versions", find_too_early)
    assert add_version(tmp_path).name == "2"
    assert len(looks) == 2
    assert names(tmp_path / "1") == ["theirs"] if kind == "folder" else (tmp_path / "1").is_file()


def test_exports_at_once_each_get_a_version(tmp_path):
    """As many as hold a processor busy, so that they look for the next version at the same moment."""
    found = []
    threads = [
        threading.Thread(target=lambda: found.extend(add_version(tmp_path).name for _ in range(20))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(int, found)) == list(range(1, 81))
    assert sorted(map(int, names(tmp_path))) == list(range(1, 81))


def test_failing_block_leaves_nothing(tmp_path):
    add_version(tmp_path)
    with pytest.raises(ZeroDivisionError), unfinished_folder(tmp_path) as unfinished:
        (unfinished / "half").write_text(str(1 / 0))
    assert names(tmp_path) == ["1"]


def test_what_a_killed_process_left_is_no_version_and_is_removed_by_the_next(tmp_path):
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": "."}) as process:
        assert process.stdout.readline() == b"unfinished\n"
        left = names(tmp_path)
        assert not any(name.isdigit() for name in left)
        add_version(tmp_path)
        assert names(tmp_path) == [*left, "1"]  # its process is at work
        process.kill()
    add_version(tmp_path)
    assert names(tmp_path) == ["1", "2"]


def test_base_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file/base cannot be written: Not a directory; name another --output"):
        add_version(tmp_path / "file" / "base")


@pytest.mark.parametrize(("keep", "left"), [(1, ["5"]), (2, ["4", "5"]), (9, ["1", "2", "3", "4", "5"])])
def test_oldest_versions_go(tmp_path, keep, left):
    for _ in range(5):
        add_version(tmp_path)
    (tmp_path / "notes.txt").touch()
    with unfinished_folder(tmp_path) as unfinished:
        remove_old(tmp_path, keep, unfinished)
    assert names(tmp_path) == [*left, "notes.txt"]


def test_old_version_leaves_in_one_step(tmp_path, monkeypatch):
    """A server that looks while files are being removed finds the newer version alone."""
    for _ in range(2):
        add_version(tmp_path)
    remove, seen = publishing.shutil.rmtree, []

    def look_and_remove(path, **options):
        seen.append([path.name.partition("-")[0], *sorted(find_versions(tmp_path))])
        remove(path, **options)

    monkeypatch.setattr(publishing.shutil, "rmtree", look_and_remove)
    with unfinished_folder(tmp_path) as unfinished:
        remove_old(tmp_path, 1, unfinished)
    assert seen[0] == ["old", 2]
