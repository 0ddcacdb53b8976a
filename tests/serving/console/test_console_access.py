"""The console with tokens, and below a prefix."""

import contextlib
import re
import socket
import threading
import time

import uvicorn
from fastapi import FastAPI
from playwright.sync_api import expect

from serving.api import Service
from serving.options import Options
from serving.rest import create_app


def use_token(page, token):
    page.page.get_by_label("Token").fill(token)
    page.page.get_by_role("button", name="Use the token").click()


def test_token_is_asked_for_and_kept_in_the_tab(visit, guarded, address, images):
    page = visit(address(guarded))
    expect(page.page.get_by_role("alert").first).to_contain_text("token")
    use_token(page, "wrong")
    expect(page.page.get_by_label("Token")).to_be_visible()
    use_token(page, "for-all")
    page.give(images.dark)
    expect(page.answers.locator("li").first).to_contain_text("<b>dark")
    assert page.page.evaluate("[localStorage.length, document.cookie]") == [0, ""]
    page.page.reload()
    expect(page.page.get_by_label("Signature")).to_have_value("classify")


def test_token_for_one_model_asks_for_its_name(visit, guarded, address):
    page = visit(address(guarded))
    use_token(page, "for-zoo")
    page.page.get_by_label("Model").fill("zoo")
    page.page.get_by_label("Model").blur()
    expect(page.page.get_by_label("JSON body")).to_have_value(re.compile("instances"))  # the example has arrived
    page.page.get_by_label("JSON body").fill('{"instances": [4]}')
    page.page.get_by_role("button", name="Ask").click()
    expect(page.answers).to_contain_text("4.0")
    expect(page.page.get_by_text("The token is not for metrics")).to_be_visible()


@contextlib.contextmanager
def mounted(base_path):
    """The address of an application that has the REST API below a prefix."""
    options = Options(model_name="light", model_base_path=str(base_path))
    with (
        Service(options) as service,
        create_app(service, options) as models,
        socket.create_server(("127.0.0.1", 0)) as bound,
    ):
        app = FastAPI()
        app.mount("/some/models", models)
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, ws="none"))
        thread = threading.Thread(target=server.run, args=[[bound]])
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{bound.getsockname()[1]}/some/models/"
        server.should_exit = True
        thread.join()


def test_page_works_behind_a_prefix(visit, exported, images):
    with mounted(exported) as url:
        page = visit(url)
        page.give(images.light)
        expect(page.answers.locator("li").first).to_contain_text("onerror")
        expect(page.page.locator("polyline").first).to_have_attribute("points", re.compile(r"\d"))
        page.page.get_by_text("The same call elsewhere").click()
        expect(page.page.locator("details[open] pre")).to_contain_text(f"{url}v1/models/light:classify")
        assert all(each.startswith((url, "blob:")) for each in page.requests)
