"""The command `keras-prelu`, in processes of their own."""

import os
import re
import shutil
import subprocess
import sys

import pytest

LISTED = "configs data env evaluate export fit predict report reproduce ask batch parity serve"
RECORD = """
import sys
from training import commands
sys.argv = ["keras-prelu", *{words}]
try:
    commands.main()
finally:
    print({names} & set(sys.modules), file=sys.stderr)
"""


def run(*words, **environment):
    command = shutil.which("keras-prelu", path=os.path.dirname(sys.executable))
    return subprocess.run(
        [command, *words],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "COLUMNS": "100", **environment},
    )


def test_help_lists_all_commands_by_group():
    shown = run().stdout
    assert re.findall(r"^│ ([a-z]+) ", shown, re.MULTILINE) == LISTED.split()
    assert shown.index(" Training ") < shown.index(" Serving ") < shown.index(" Options ")


def test_a_misspelt_command_is_one_line_and_status_2():
    result = run("servee")
    assert (result.returncode, result.stdout) == (2, "")
    assert 'Did you mean "serve"?' in result.stderr
    assert result.stderr.count("\n") == 1


def test_version():
    assert re.fullmatch(r"keras_prelu \d+\.\d+\.\d+\n", run("--version").stdout)


def test_environment_names_the_versions():
    shown = run("env", KERAS_BACKEND="tensorflow").stdout
    assert re.search(r"^keras +3\.\d+", shown, re.MULTILINE)
    assert re.search(r"^CPU +\S.*, \d+ threads$", shown, re.MULTILINE)
    assert re.search(r"^KERAS_BACKEND +tensorflow$", shown, re.MULTILINE)


@pytest.mark.parametrize("command", ["ask", "serve", "parity"])
def test_commands_of_the_server_have_their_own_help(command):
    result = run(command, "--help")
    assert result.returncode == 0
    assert result.stdout.startswith("usage: ")


@pytest.mark.parametrize(
    "words", [["ask", "--help"], ["ask", "no.png", "--url", "http://127.0.0.1:9", "--timeout", "1"]]
)
def test_who_only_asks_imports_no_trainer(words):
    names = {"tensorflow", "keras", "keras_prelu", "cyclopts"}
    script = RECORD.format(words=words, names=names)
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert result.stderr.endswith("set()\n")


@pytest.mark.parametrize(
    ("words", "flags"),
    [
        (["runs/digits/export"], ["--model_base_path={}/runs/digits/export", "--model_name=digits"]),
        (["models/flowers/", "--host=::"], ["--model_base_path={}/models/flowers", "--model_name=flowers"]),
    ],
)
def test_serve_takes_the_folder_of_an_export(words, flags, monkeypatch, tmp_path):
    from training.commands import _with_flags

    monkeypatch.chdir(tmp_path)
    ports = ["--port=8500", "--rest_api_port=8501"]
    assert _with_flags(words) == [*(flag.format(tmp_path) for flag in flags), *ports, *words[1:]]
    assert _with_flags(["--port=1", *words]) == ["--port=1", *words]
