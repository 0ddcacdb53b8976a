"""Takes the pictures of docs/console.md: the console of a running server, in light and dark, after it was asked.

python docs/console.py http://localhost:8501/ rose.jpg [--beside LABEL] [--into docs]
"""

import argparse
import io
import pathlib
import re
from typing import Literal

from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright

SIZE = {"width": 1000, "height": 990}
ASKED = 8  # times, so that the charts have something to draw
PATIENCE = 60_000  # milliseconds


def main() -> None:
    """Reads the command line and takes both pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("image", type=pathlib.Path)
    parser.add_argument("--beside", default="nothing", help="version or label that answers as well")
    parser.add_argument("--into", type=pathlib.Path, default=pathlib.Path(__file__).parent)
    arguments = parser.parse_args()
    with sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=flags)
        page = browser.new_page(viewport=SIZE)
        ask(page, arguments.url, arguments.image, arguments.beside)
        take(page, "light", arguments.into / "console.png")
        take(page, "dark", arguments.into / "console_dark.png")
        browser.close()


def ask(page: Page, url: str, image: pathlib.Path, beside: str) -> None:
    """Gives the page an image, and asks again at every other reading of the metrics."""
    expect.set_options(timeout=PATIENCE)
    page.goto(url)
    page.get_by_role("combobox", name="Beside it").select_option(label=beside)
    page.get_by_label("Choose an image").set_input_files(image)
    for count in range(1, ASKED + 1):
        points = re.compile(rf"^([\d.]+,[\d.]+ ?){{{2 * count},}}$")
        expect(page.locator("polyline").first).to_have_attribute("points", points)
        page.get_by_role("button", name="Ask").click()
    page.mouse.move(0, 0)
    page.evaluate("document.activeElement.blur()")


def take(page: Page, scheme: Literal["light", "dark"], path: pathlib.Path) -> None:
    """Writes a picture of 256 colours, which takes half of the bytes."""
    page.emulate_media(color_scheme=scheme)
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    picture.quantize(256).save(path, optimize=True)


if __name__ == "__main__":
    main()
