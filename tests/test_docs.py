"""What the documents name exists."""

import pathlib
import re
import runpy

from training.config import load_config

ROOT = pathlib.Path(__file__).parent.parent


def test_every_test_that_a_document_names_is_there():
    named = []
    for path in (ROOT / "docs").rglob("*.md"):
        for file, name in re.findall(r"`(?:tests/)?((?:\w+/)*test_\w+\.py)::(test_\w+)`", path.read_text()):
            (found,) = ROOT.glob(f"tests/**/{file}")
            assert f"def {name}(" in found.read_text(), f"{path.name} names {file}::{name}"
            named.append(name)
    assert named
    assert (
        ROOT.joinpath("docs/keras_fit.md").read_text().count("::test_")
        == len([line for line in ROOT.joinpath("docs/keras_fit.md").read_text().splitlines() if line.startswith("| ")])
        - 1
    )


def test_links_between_documents_lead_somewhere():
    for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", path.read_text()):
            assert (path.parent / target).exists(), f"{path.name} links to {target}"


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
