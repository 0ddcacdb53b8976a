"""A trained and exported model behind real servers, and Debian's Chromium."""

import contextlib
import json
import pathlib
import shutil
import time
import types

import numpy as np
import pytest
from playwright.sync_api import expect, sync_playwright

from serving.wire.requests import ModelSpec, State
from tests.two_classes import photo, trained_run
from training.export.export import export

DARK, LIGHT = "<b>dark", "<img src=x onerror=alert(1)>"  # folders, whose names become labels
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking")
WAIT = 15_000  # milliseconds that nothing here should take

expect.set_options(timeout=WAIT)


@pytest.fixture(scope="session")
def images(tmp_path_factory):
    """An image of either class, whose file names are HTML."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    paths = {name: folder / f"<i>{index}&amp;.jpg" for index, name in enumerate((DARK, LIGHT))}
    for name, path in paths.items():
        path.write_bytes(photo(rng, name == DARK, (40, 32)))
    return types.SimpleNamespace(dark=paths[DARK], light=paths[LIGHT])


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """Two versions of a network that tells dark from light images, whose labels are HTML."""
    first = export(trained_run(tmp_path_factory, DARK, LIGHT))
    shutil.copytree(first, first.with_name("2"))
    return first.parent


@pytest.fixture(scope="session")
def models_config(exported, zoo_path, tmp_path_factory):
    """A model that takes images, with a label that is HTML, and one that takes numbers."""
    path = tmp_path_factory.mktemp("config") / "models.config"
    path.write_text(f"""model_config_list {{
        config {{ name: "light" base_path: "{exported}" model_platform: "tensorflow"
            model_version_policy {{ all {{}} }} version_labels {{ key: "<u>stable" value: 1 }} }}
        config {{ name: "zoo" base_path: "{zoo_path}" model_platform: "tensorflow" }} }}""")
    return path


@pytest.fixture(scope="session")
def console(serve_config, models_config):
    with serve_config(models_config, allow_version_labels_for_unavailable_models=True) as server:
        end = time.monotonic() + WAIT / 1000
        while {each.state for each in server.service.status(ModelSpec("light"))} != {State.AVAILABLE}:
            assert time.monotonic() < end
            time.sleep(0.05)
        yield server


@pytest.fixture(scope="session")
def chromium():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS)
        yield browser
        browser.close()


class Page:
    """A page of the console, and all that it did wrong."""

    def __init__(self, page, url):
        self.page, self.url, self.requests, self.complaints = page, url, [], []
        page.set_default_timeout(WAIT)
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", self._note)
        page.goto(url)

    def _note(self, message):
        if message.type in ("error", "warning") and not message.text.startswith("Failed to load resource"):
            self.complaints.append(message.text)

    def check(self):
        origin = "/".join(self.url.split("/")[:3])
        assert [url for url in self.requests if not url.startswith((f"{origin}/", f"blob:{origin}/"))] == []
        assert self.complaints == []

    def choose(self, label, option):
        self.page.get_by_role("combobox", name=label, exact=True).select_option(label=option)

    def give(self, image):
        self.page.get_by_label("Choose an image").set_input_files(image)

    @property
    def answers(self):
        return self.page.locator("article")


@pytest.fixture
def visit(chromium):
    """Opens a page; at the end, no request has left its origin, and the browser has complained of nothing."""
    with contextlib.ExitStack() as stack:
        opened = []

        def visit(url, **options):
            context = stack.enter_context(contextlib.closing(chromium.new_context(**options)))
            opened.append(Page(context.new_page(), url))
            return opened[-1]

        yield visit
        for page in opened:
            page.check()


@pytest.fixture(scope="session")
def address():
    return lambda server: f"http://127.0.0.1:{server.rest_port}/"


@pytest.fixture(scope="session")
def axe():
    root = pathlib.Path(__file__).parents[3]
    return (root / "serving/console/node_modules/axe-core/axe.min.js").read_text()


@pytest.fixture
def guarded(serve_config, models_config, tmp_path):
    tokens = [{"name": "all", "token": "for-all"}, {"name": "zoo", "token": "for-zoo", "models": ["zoo"]}]
    (tmp_path / "tokens.json").write_text(json.dumps({"tokens": tokens}))
    options = {"auth_token_file": str(tmp_path / "tokens.json"), "allow_version_labels_for_unavailable_models": True}
    with serve_config(models_config, **options) as server:
        yield server
