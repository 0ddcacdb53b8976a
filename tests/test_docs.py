"""What the documents name exists, and the commands in them are understood."""

import pathlib
import re
import runpy
import shlex
from importlib import import_module

import pytest

import keras_prelu
from serving import flags
from training import commands
from training.__main__ import application
from training.arguments import with_values
from training.config import Config, field_types, load_config, override

ROOT = pathlib.Path(__file__).parent.parent
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]


def commands_in(path):
    """The words after `keras-prelu` in the blocks of code of a page."""
    text = path.read_text().replace("\\\n", " ")
    for block in re.findall(r"^```\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        for line in re.findall(r"(?:^|\s)keras-prelu (.*)", block):
            yield shlex.split(line.replace("<folder>", "photos"), comments=True)


def understand(name, *words):
    """Reads the words as the command does. Fails, or ends the process, for wrong ones."""
    if name == "serve":
        command_line = flags.parse(commands._with_flags(words))
        assert not command_line.unknown
        command_line.options.check()
    elif name == "ask":
        import_module("serving.client.__main__")._parse(words)
    elif name in commands.SERVING:
        import_module(f"serving.{name}.command")._parse(words)
    else:
        _, given, _ = application(Config()).parse_args([name, *with_values(words)])
        if name == "fit":
            override(
                load_config(given.arguments["config"]), {k: v for k, v in given.kwargs.items() if k in field_types()}
            )


@pytest.mark.parametrize("path", [path for path in PAGES if any(commands_in(path))], ids=lambda path: path.name)
def test_commands_of_a_page_are_understood(path):
    for words in commands_in(path):
        understand(*words)


def test_every_test_that_a_document_names_is_there():
    named = []
    for path in (ROOT / "docs").rglob("*.md"):
        text = path.read_text()
        assert not re.search(r"test_\w+\.py::", text), f"{path.name} names a test without a link to it"
        for file, name in re.findall(r"\]\(([^)]+\.py)#(\w+)\)", text):
            assert f"def {name}(" in (path.parent / file).read_text(), f"{path.name} names {file}#{name}"
            named.append((path.name, name))
    assert named
    rows = [line for line in (ROOT / "docs/keras_fit.md").read_text().splitlines() if line.startswith("| ")]
    assert len([name for page, name in named if page == "keras_fit.md"]) == len(rows) - 1


def test_reference_has_every_public_name():
    shown = re.findall(r"^::: keras_prelu\.(\w+)$", (ROOT / "docs/api.md").read_text(), re.MULTILINE)
    assert sorted(shown) == sorted(set(keras_prelu.__all__) - {"__version__"})


def test_links_between_documents_lead_somewhere():
    for path in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)\)", path.read_text()):
            assert (path.parent / target).exists(), f"{path.name} links to {target}"


def test_pictures_have_colours_for_dark_pages():
    pictures = [path for path in (ROOT / "docs").rglob("*.svg") if path.name != "terminal.svg"]  # dark on every page
    assert len(pictures) > 15
    assert [path.name for path in pictures if "prefers-color-scheme: dark" not in path.read_text()] == []


def test_the_script_draws_the_plots_that_the_page_shows(tmp_path):
    script = runpy.run_path(str(ROOT / "docs/signals.py"))
    script["main"](["--quick", "--into", str(tmp_path)])
    drawn = {path.name for path in tmp_path.iterdir()}
    shown = set(re.findall(r"\]\((signals_\w+\.svg)\)", (ROOT / "docs/signals.md").read_text()))
    assert drawn == shown == {path.name for path in (ROOT / "docs").glob("signals_*.svg")}


def test_the_curve_ends_with_the_error_that_the_page_reports(tmp_path):
    script = runpy.run_path(str(ROOT / "docs/results/curve.py"))
    steps, errors = script["read_errors"](ROOT / "docs/results/cifar10.jsonl", "evaluation")
    assert steps[-1] == load_config("cifar10").steps
    assert f"| {errors[-1]:.2f} % |" in (ROOT / "docs/results/README.md").read_text()
    script["main"](["--into", str(tmp_path / "cifar10.svg")])
    assert "</svg>" in (tmp_path / "cifar10.svg").read_text()
