"""The report of a run: whole, without anything from elsewhere, and right."""

import base64
import html.parser
import re
import shutil
import sys
from xml.etree import ElementTree

import pytest

from training.errors import InputError
from training.evaluation.evaluate import evaluate_runs
from training.evaluation.views import Protocol
from training.report.report import write_report
from training.run.folder import Run

pytestmark = pytest.mark.slow

VOID = {"meta", "img", "br"}


class Page(html.parser.HTMLParser):
    """Collects what a page is made of; fails on a tag that is closed wrongly."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.sources, self.text = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.sources += [attributes[name] for name in ("src", "href") if name in attributes]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        if tag not in VOID:
            self.handle_starttag(tag, attrs)
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data.strip())


@pytest.fixture(scope="module")
def report(trained):
    return write_report(Run(trained)).read_text()


@pytest.fixture(scope="module")
def page(report):
    return Page(report)


def test_page_is_whole_and_needs_no_network(report, page):
    assert page.open == []
    assert all(source.startswith(("data:image/png;base64,", "data:image/svg+xml;base64,")) for source in page.sources)
    assert not re.search(r"@import|url\((?!#)", report)


def test_figures_are_those_of_the_evaluation(trained, page):
    result = evaluate_runs([Run(trained)], Protocol())
    text = page.text
    assert f"{result['top1_error']:.2%}" in text
    assert f"{result['loss']:.3f}" in text
    mistakes = round(result["top1_error"] * result["images"])
    assert sum(source.startswith("data:image/png") for source in page.sources) == min(24, mistakes)
    for name in ("precision", "recall", "f1"):
        assert f"{result[name]:.2%}" in text
    for each in result["classes"].values():
        assert text.count(f"{100 * each['f1']:.1f}") >= 1
    for heading in ("Training", "Slopes", "Signals", "Classes", "The most confident mistakes", "Config"):
        assert heading in text


def test_plots_are_svg_images_with_their_labels(page):
    plots = [source for source in page.sources if source.startswith("data:image/svg+xml;base64,")]
    texts = [" ".join(ElementTree.fromstring(base64.b64decode(plot.partition(",")[2])).itertext()) for plot in plots]
    labels = ("loss, nats", "slope", "signal, mean square", "share right")
    assert len(texts) == len(labels)
    for text, label in zip(texts, labels, strict=True):
        assert label in text


def test_best_checkpoint_is_reported_where_it_is_asked_for(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    run = Run(tmp_path / "run")
    shutil.copy(run.checkpoints / "4.npz", run.checkpoints / "best.npz")
    text = write_report(run, checkpoint="best").read_text()
    assert "best checkpoint (step 4)" in text
    assert "last checkpoint (step 6)" in write_report(run).read_text()


@pytest.mark.parametrize("package", ["jinja2", "matplotlib"])
def test_missing_package_is_named(trained, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    with pytest.raises(InputError, match=rf"a report needs {package}, .*pip install -e '\.\[report\]' brings it"):
        write_report(Run(trained))


def test_run_that_never_saved_is_named(tmp_path):
    with pytest.raises(InputError, match="holds no run"):
        write_report(Run(tmp_path))
