"""axe-core finds nothing to object to, and nothing is wider than the screen."""

import pytest
from playwright.sync_api import expect


@pytest.mark.parametrize("width", [1280, 320])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("model", ["light", "zoo"])
def test_axe_finds_nothing(visit, console, address, images, axe, model, scheme, width):
    page = visit(address(console), color_scheme=scheme, viewport={"width": width, "height": 900})
    page.choose("Model", model)
    page.choose("Beside it", "newest version")
    if model == "light":
        page.give(images.light)
    else:
        page.page.get_by_role("button", name="Ask").click()
    expect(page.answers).to_have_count(2)
    for summary in page.page.locator("summary").all():
        summary.click()
    page.page.evaluate(axe)
    found = page.page.evaluate("axe.run().then(found => found.violations)")
    assert [(each["id"], [node["html"] for node in each["nodes"]]) for each in found] == []
    assert page.page.evaluate("document.documentElement.scrollWidth") <= width


def test_axe_finds_nothing_in_the_form_for_a_token(visit, guarded, address, axe):
    page = visit(address(guarded))
    expect(page.page.get_by_label("Token")).to_be_visible()
    page.page.evaluate(axe)
    assert page.page.evaluate("axe.run().then(found => found.violations.map(each => each.id))") == []
