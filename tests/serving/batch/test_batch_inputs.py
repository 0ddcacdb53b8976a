"""The inputs of a command line, and the parts that they are cut into."""

import pytest

from serving.batch.inputs import find_files, make_parts
from serving.errors import ServingError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("in/b.png", "in/a.JPG", "in/sub/c.gif", "in/.d.png", "in/.git/e.png", "in/notes.txt", "list.txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"1234")
    return tmp_path


def found(folder, *arguments):
    return list(find_files(arguments, folder / "out"))


def test_folder_is_walked_in_order_without_hidden_files(folder):
    assert found(folder, "in") == ["in/a.JPG", "in/b.png", "in/sub/c.gif"]


def test_glob(folder):
    assert found(folder, "in/**/*.gif") == ["in/sub/c.gif"]


def test_list(folder):
    (folder / "list.txt").write_text("in/b.png\n\nmissing.png\n")
    assert find_files(["@list.txt"], folder / "out") == {"in/b.png": 4, "missing.png": None}


def test_file_that_is_named_twice_is_one_row(folder):
    assert found(folder, "in/b.png", "in") == ["in/b.png", "in/a.JPG", "in/sub/c.gif"]


def test_output_within_the_input_is_left_out(folder):
    assert [path for path in find_files(["in"], folder / "in/sub") if "sub" in path] == []


@pytest.mark.parametrize("argument", ["nowhere", "*.gif"])
def test_argument_without_a_file(folder, argument):
    with pytest.raises(ServingError, match="names no images"):
        found(folder, argument)


def test_output_that_is_the_input(folder):
    with pytest.raises(ServingError, match="both input and --output"):
        find_files(["in"], folder / "in")


def test_parts_hold_consecutive_rows():
    parts = make_parts([f"{number}.png" for number in range(5)], 2, None)
    assert [(part.name, tuple(part.paths)) for part in parts] == [
        ("part-00000.parquet", ("0.png", "1.png")),
        ("part-00001.parquet", ("2.png", "3.png")),
        ("part-00002.parquet", ("4.png",)),
    ]
