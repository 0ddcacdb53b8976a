"""What an export does that cannot end well: one line, and nothing that a server could take up."""

import json
import subprocess
import sys
import time

import pytest

from training.__main__ import main
from training.errors import InputError, TrainingError
from training.export.export import ExportOptions, export
from training.run.folder import Run

pytestmark = pytest.mark.slow


@pytest.fixture
def export_as_typed(trained, tmp_path, capfd):
    """Runs the command and gives its status and its lines on standard output and standard error."""

    def run(*arguments):
        status = main(["export", "--workdir", str(trained), "--output", str(tmp_path / "base"), *arguments])
        output, error = capfd.readouterr()
        return status, output.splitlines(), error.splitlines()

    return run


def versions(tmp_path):
    return sorted(path.name for path in (tmp_path / "base").iterdir())


def test_command_publishes_elsewhere_and_keeps_the_newest(export_as_typed, tmp_path):
    for version in "123":
        status, output, error = export_as_typed("--keep", "2")
        assert (status, error) == (0, [])
        assert output[0] == f"exported to {tmp_path / 'base' / version}"
        assert [line.split()[0] for line in output[2:]] == ["serving_default", "image_bytes", "classify"]
    assert versions(tmp_path) == ["2", "3"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--formats", "onnx,tflite"], "training: there is no format 'tflite'"),
        (["--keep", "-1"], "training: keep is -1, but must be at least 1, or 0 for all"),
        (["--keep", "two"], 'training: Invalid value for --keep: unable to convert "two" into int'),
        (["--data_dir", "/nowhere"], "training: data_dir is '/nowhere', which is no folder"),
        (["--output", "/dev/null/base"], "training: /dev/null/base cannot be written: Not a directory"),
    ],
)
def test_wrong_input_is_one_line_and_leaves_no_folder(export_as_typed, tmp_path, arguments, message):
    status, output, error = export_as_typed(*arguments)
    assert (status, output, len(error)) == (2, [], 1)
    assert error[0].startswith(message)
    assert not (tmp_path / "base").exists()


def test_checkpoint_of_another_network_is_named(trained, tmp_path):
    stored = json.loads((trained / "config.json").read_text())
    stored["config"]["filters"] = [4, 9]
    (tmp_path / "config.json").write_text(json.dumps(stored))
    (tmp_path / "checkpoints").symlink_to(trained / "checkpoints")
    with pytest.raises(InputError, match=r"6\.npz"):
        export(Run(tmp_path))
    assert not (tmp_path / "export").exists()


@pytest.mark.parametrize("num_bytes", [1000, 60_000], ids=["weights", "graph"])
def test_full_disk_is_one_line_and_leaves_what_there_was(trained, tmp_path, largest_file, num_bytes):
    base = tmp_path / "base"
    export(Run(trained), ExportOptions(output=base))
    with largest_file(num_bytes), pytest.raises(TrainingError) as raised:
        export(Run(trained), ExportOptions(output=base))
    assert str(raised.value).startswith(f"{base} cannot be written: ")
    assert str(raised.value).endswith("the disk may be full, or a quota reached; nothing was published")
    assert "\n" not in str(raised.value)
    assert versions(tmp_path) == ["1"]


def test_killed_export_leaves_no_version_and_the_next_one_clears_up(trained, tmp_path):
    base = tmp_path / "base"
    command = [sys.executable, "-m", "training", "export", "--workdir", str(trained), "--output", str(base)]
    with subprocess.Popen([*command, "--formats", "litert_int8"], stdout=subprocess.PIPE) as process:
        while not list(base.glob(".unfinished-*/model/assets.extra")) and process.poll() is None:
            time.sleep(0.01)
        process.kill()
        assert process.stdout.read() == b""
    assert all(left.startswith(".unfinished-") for left in versions(tmp_path))
    assert export(Run(trained), ExportOptions(output=base)).name == "1"
    assert versions(tmp_path) == ["1"]
