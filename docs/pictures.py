"""Takes the pictures of the docs in Chromium: of the console of a running server, in light and dark, and of a report,
down to its first mistakes.

python docs/pictures.py console http://localhost:8501/ rose.jpg [--beside LABEL] [--into docs]
python docs/pictures.py report runs/flowers/report.html [--into docs]
"""

import argparse
import io
import pathlib
import re
from typing import Literal

from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright

CONSOLE = {"width": 1000, "height": 990}
REPORT = {"width": 1130, "height": 900}
MISTAKES = 14  # shown of the report, two rows
ASKED = 8  # times, so that the charts have something to draw
PATIENCE = 60_000  # milliseconds


def main() -> None:
    """Reads the command line and takes the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--into", type=pathlib.Path, default=pathlib.Path(__file__).parent)
    subjects = parser.add_subparsers(dest="subject", required=True)
    console = subjects.add_parser("console")
    console.add_argument("url")
    console.add_argument("image", type=pathlib.Path)
    console.add_argument("--beside", default="nothing", help="version or label that answers as well")
    report = subjects.add_parser("report")
    report.add_argument("report", type=pathlib.Path)
    arguments = parser.parse_args()
    with sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=flags)
        if arguments.subject == "console":
            page = browser.new_page(viewport=CONSOLE)
            ask(page, arguments.url, arguments.image, arguments.beside)
            take(page, "light", arguments.into / "console.png")
            take(page, "dark", arguments.into / "console_dark.png")
        else:
            page = browser.new_page(viewport=REPORT)
            page.goto(arguments.report.resolve().as_uri())
            last = page.locator(".images figure").nth(MISTAKES - 1).bounding_box()
            assert last is not None
            clip = {"x": 0.0, "y": 0.0, "width": float(REPORT["width"]), "height": last["y"] + last["height"] + 16}
            save(page.screenshot(full_page=True, clip=clip), arguments.into / "report.png")
        browser.close()


def ask(page: Page, url: str, image: pathlib.Path, beside: str) -> None:
    """Gives the console an image, and asks again at every other reading of the metrics."""
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
    """Writes a picture of what the page shows in a scheme of colours."""
    page.emulate_media(color_scheme=scheme)
    save(page.screenshot(), path)


def save(png: bytes, path: pathlib.Path) -> None:
    """Writes a picture with 256 colours, which takes half of the bytes."""
    Image.open(io.BytesIO(png)).convert("RGB").quantize(256).save(path, optimize=True)


if __name__ == "__main__":
    main()
