"""The console clicked through in Chromium, against a server with trained and exported models."""

import re
import shutil

import pytest
from playwright.sync_api import expect

PASTE_OR_DROP = """async ([kind, bytes]) => {
    const data = new DataTransfer();
    data.items.add(new File([Uint8Array.from(bytes)], "given.jpg", { type: "image/jpeg" }));
    const options = { bubbles: true, cancelable: true, dataTransfer: data, clipboardData: data };
    document.body.dispatchEvent(kind === "paste" ? new ClipboardEvent(kind, options) : new DragEvent(kind, options));
}"""


def test_image_is_answered_with_bars_and_a_latency(visit, console, address, images):
    page = visit(address(console))
    page.give(images.dark)
    best = page.answers.locator("li").first
    expect(best).to_contain_text("<b>dark")
    expect(best).to_contain_text("%")
    expect(page.answers).to_contain_text(re.compile(r"Version 2, \d+ ms round trip"))


@pytest.mark.parametrize("kind", ["paste", "drop"])
def test_image_is_pasted_or_dropped(visit, console, address, images, kind):
    page = visit(address(console))
    expect(page.page.get_by_label("Signature")).to_have_value("classify")
    page.page.evaluate(PASTE_OR_DROP, [kind, list(images.light.read_bytes())])
    expect(page.answers.locator("li").first).to_contain_text("onerror")


def test_camera_is_asked_for_on_a_phone(visit, console, address):
    expect(visit(address(console)).page.get_by_label("Take a photo")).to_have_attribute("capture", "environment")


def test_two_versions_answer_side_by_side(visit, console, address, images):
    page = visit(address(console))
    page.choose("Answer from", "version 2")
    page.choose("Beside it", "<u>stable")
    page.give(images.dark)
    expect(page.answers).to_have_count(2)
    expect(page.answers.nth(0)).to_contain_text("Version 2,")
    expect(page.answers.nth(1)).to_contain_text("Version 1,")
    expect(page.answers.nth(1).get_by_role("heading")).to_have_text("<u>stable")


def test_names_and_labels_are_text(visit, console, address, images):
    page = visit(address(console))
    page.give(images.light)
    expect(page.page.get_by_text(images.light.name, exact=True)).to_be_visible()
    expect(page.answers.locator("li").first.locator("span").first).to_have_text("<img src=x onerror=alert(1)>")
    assert page.page.locator("img, u").count() == 1, "the image that was given, and nothing out of a name"


def test_numbers_are_asked_for_as_json(visit, console, address):
    page = visit(address(console))
    page.choose("Model", "zoo")
    expect(page.page.get_by_label("JSON body")).to_have_value(re.compile("instances"))
    page.page.get_by_label("JSON body").fill('{"instances": [4]}')
    page.page.get_by_role("button", name="Ask").click()
    expect(page.answers.locator("pre")).to_contain_text('"predictions":[4.0')


def test_errors_are_in_the_words_of_the_server(visit, console, address, rest_client):
    page = visit(address(console))
    page.choose("Model", "zoo")
    expect(page.page.get_by_label("JSON body")).to_have_value(re.compile("instances"))
    page.page.get_by_label("JSON body").fill('{"instances": ["a"]}')
    expect(page.page.get_by_label("JSON body")).to_have_value('{"instances": ["a"]}')
    page.page.get_by_role("button", name="Ask").click()
    with rest_client(console) as rest:
        words = rest.post("/v1/models/zoo:predict", json={"instances": ["a"]}).json()["error"]
    expect(page.answers).to_contain_text(" ".join(words.split()))


def test_version_that_fails_shows_its_error(visit, serve, zoo_path, address, tmp_path):
    shutil.copytree(zoo_path / "00000123", tmp_path / "1")
    with serve(tmp_path, file_system_poll_wait_seconds=0.05) as server:
        page = visit(address(server))
        row = page.page.locator("#versions ~ table tbody tr")
        expect(row).to_contain_text("AVAILABLE")
        (tmp_path / "2").mkdir()
        (tmp_path / "2" / "saved_model.pb").write_text("this is no model")
        failed = row.filter(has_text="END")
        expect(failed).to_contain_text("Can't parse")
        expect(row.filter(has_text="AVAILABLE")).to_have_count(1)


def test_traffic_is_drawn(visit, console, address, images):
    page = visit(address(console))
    rate = page.page.locator("figure", has_text="Requests per second")
    expect(rate.locator("polyline")).to_have_attribute("points", re.compile(r"\d"))
    page.give(images.dark)
    expect(rate).to_contain_text(re.compile(r"most 0\.[1-9]"))
    expect(page.page.locator("figure", has_text="Mean latency").locator("strong")).to_have_text(re.compile(r"\d"))


def test_signatures_are_listed(visit, console, address):
    page = visit(address(console))
    page.page.get_by_text("Signatures", exact=True).click()
    table = page.page.get_by_role("table", name="serving_default")
    expect(table).to_contain_text("imagesDT_FLOAT[?, 24, 24, 3]")


def test_all_is_done_by_keyboard(visit, console, address):
    page = visit(address(console))
    page.choose("Model", "zoo")
    expect(page.page.get_by_label("JSON body")).to_have_value(re.compile("instances"))
    seen = []
    page.page.get_by_label("Model").focus()
    while "Ask" not in seen:
        page.page.keyboard.press("Tab")
        focused = page.page.locator(":focus")
        assert focused.evaluate("element => getComputedStyle(element).outlineStyle") == "solid"
        seen.append(focused.evaluate("element => element.labels?.[0]?.firstChild.textContent ?? element.innerText"))
        assert len(seen) < 10
    page.page.keyboard.press("Enter")
    expect(page.answers).to_have_count(1)
    assert seen == ["Answer from", "Beside it", "Signature", "JSON body for :", "Ask"]
