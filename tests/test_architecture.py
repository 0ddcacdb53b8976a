"""Checks the files and imports that docs/architecture.md names against the code."""

import ast
import graphlib
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parent.parent
PAGE = (ROOT / "docs/architecture.md").read_text()
PACKAGES = ("keras_prelu", "training", "serving")
SUFFIXES = "py|html|tsx|json|yaml|sh"
FOR_ALL = {"call.py", "errors.py", "options.py", "background.py"}  # of the server, as the page says
BY_NAME = {"__main__.py": {"batch", "engines", "parity"}}  # with importlib


def is_module(name):
    path = ROOT / name.replace(".", "/")
    return path.with_suffix(".py").exists() or path.is_dir()


def imports_of(path):
    """The modules of this repository that a module imports, within functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [each.name for each in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            longer = [f"{node.module}.{each.name}" for each in node.names]
            names = [name if is_module(name) else node.module for name in longer]
        else:
            continue
        yield from (name for name in names if name.partition(".")[0] in PACKAGES and is_module(name))


def modules(package):
    return sorted((ROOT / package).rglob("*.py"))


def unit(name):
    """The folder or the file of the server that a module lies in, as the table calls it."""
    part = name.split(".")[1]
    return part if (ROOT / "serving" / part).is_dir() else f"{part}.py"


def imported_units():
    found = {}
    for path in modules("serving"):
        own = path.relative_to(ROOT / "serving").parts[0]
        units = {unit(name) for name in imports_of(path) if "." in name} - {own}
        found.setdefault(own, set()).update(units)
    return {own: units | BY_NAME.get(own, set()) for own, units in found.items()}


def table_of_layers():
    section = PAGE.partition("\n## Layers of the server\n")[2].partition("\n## ")[0]
    rows = [line.split("|")[1:3] for line in section.splitlines() if line.startswith("| `")]
    for left, right in rows:
        named = set(re.findall(r"`([^`]+)`", re.sub(r"\(.*?\)", "", right)))
        for own in re.findall(r"`([^`]+)`", left):
            yield own, named


def files_of_the_map():
    """The files in the block that lists the folders."""
    package = ""
    for line in PAGE.partition("```\n")[2].partition("```")[0].splitlines():
        folder, text = line.split(maxsplit=1)
        package, folder = (package, folder) if line.startswith(" ") else (folder, "")
        for name in re.findall(rf"[\w/]+\.(?:{SUFFIXES})\b|Containerfile", text):
            yield f"{package}{folder}{name}"


def test_the_map_names_files_and_every_folder():
    files = list(files_of_the_map())
    assert [file for file in files if not (ROOT / file).is_file()] == []
    folders = {path.parent for package in PACKAGES for path in modules(package)}
    assert {str(path.relative_to(ROOT)) for path in folders} <= {str(pathlib.Path(file).parent) for file in files}


def test_files_in_the_text_exist():
    """Those with a folder; sections about one package leave its name out, and one is about files of an export."""
    before, _, rest = PAGE.partition("\n## The export contract\n")
    named = set(re.findall(rf"`([\w/]+/(?:[\w.]+\.(?:{SUFFIXES}))?)`", before + rest.partition("\n## ")[2]))
    places = [ROOT, *(ROOT / package for package in PACKAGES)]
    assert len(named) > 40
    assert [name for name in sorted(named) if not any((place / name).exists() for place in places)] == []


def test_names_in_files_exist():
    """`NAME` in `file`."""
    named = re.findall(r"`(\w+)` in `([\w/]+\.py)`", PAGE)
    assert len(named) > 5
    for name, file in named:
        assert re.search(rf"\b{name}\b", (ROOT / file).read_text()), f"{file} has no {name}"


def test_the_server_imports_what_the_table_lists():
    listed, found = dict(table_of_layers()), imported_units()
    folders = {own for own in found if not own.endswith(".py")}
    assert folders <= listed.keys()
    for own, units in found.items():
        assert units - FOR_ALL == listed.get(own, set()) - FOR_ALL, own


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_import_only_what_lies_below(package):
    allowed = {"training": {"training", "keras_prelu"}}.get(package, {package})
    for path in modules(package):
        for name in imports_of(path):
            assert name.partition(".")[0] in allowed, f"{path.relative_to(ROOT)} imports {name}"
            assert name != package, f"{path.relative_to(ROOT)} imports its own package"


@pytest.mark.parametrize("package", PACKAGES)
def test_there_are_no_import_cycles(package):
    graph = {}
    for path in modules(package):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        graph[name] = set(imports_of(path))
    graphlib.TopologicalSorter(graph).prepare()
