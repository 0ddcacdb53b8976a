"""The report of a run: whole, without anything from elsewhere, and right."""

import html.parser
import re
import sys

import pytest

from training.errors import InputError
from training.evaluation.evaluate import evaluate_runs
from training.evaluation.protocols import Protocol
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
    assert all(source.startswith(("data:image/png;base64,", "#")) for source in page.sources)
    assert not re.search(r"@import|url\((?!#)", report)
    assert len(set(page.ids)) == len(page.ids)


def test_figures_are_those_of_the_evaluation(trained, page):
    result = evaluate_runs([Run(trained)], Protocol())
    text = page.text
    assert f"{result['top1_error']:.2%}" in text
    assert f"{result['loss']:.3f}" in text
    mistakes = round(result["top1_error"] * result["images"])
    assert sum(source.startswith("data:") for source in page.sources) == min(24, mistakes)
    for heading in ("Training", "Slopes", "Signals", "The most confident mistakes", "Config"):
        assert heading in text


def test_colours_are_the_page_s(report):
    svg = "".join(re.findall(r"<svg.*?</svg>", report, re.DOTALL))
    assert report.count("<svg") == 6
    assert not re.search(r"#000000|#0072B2|#666666|#dddddd", svg, re.IGNORECASE)
    assert "currentColor" in svg
    assert "var(--plot)" in svg


@pytest.mark.parametrize("package", ["jinja2", "matplotlib"])
def test_missing_package_is_named(trained, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    with pytest.raises(InputError, match=rf"a report needs {package}, .*pip install -e '\.\[report\]' brings it"):
        write_report(Run(trained))


def test_run_that_never_saved_is_named(tmp_path):
    with pytest.raises(InputError, match="holds no run"):
        write_report(Run(tmp_path))
