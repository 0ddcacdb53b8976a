"""The calls that the console shows to copy, run as they are shown."""

import os
import re
import shutil
import subprocess
import sys

import pytest
from playwright.sync_api import expect


@pytest.mark.parametrize("kind", ["curl", "Python", "gRPC"])
def test_call_to_copy_works(visit, console, address, images, tmp_path, kind):
    page = visit(address(console))
    page.give(images.dark)
    expect(page.answers).to_have_count(1)
    page.page.get_by_text("The same call elsewhere").click()
    page.page.get_by_label(kind, exact=True).check()
    text = page.page.locator("details[open] pre").inner_text().replace(":8500", f":{console.grpc_port}")
    shutil.copy(images.dark, tmp_path / "photo.jpg")
    command = ["bash", "-c", text] if kind == "curl" else [sys.executable, "-c", text]
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    answer = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert "<b>dark" in answer.stdout, answer.stderr


@pytest.mark.parametrize("kind", ["curl", "Python", "gRPC"])
def test_call_with_numbers_works(visit, console, address, tmp_path, kind):
    page = visit(address(console))
    page.choose("Model", "zoo")
    expect(page.page.get_by_label("JSON body")).to_have_value(re.compile("instances"))  # the example has arrived
    page.page.get_by_label("JSON body").fill('{"instances": [4, 6]}')
    page.page.get_by_text("The same call elsewhere").click()
    page.page.get_by_label(kind, exact=True).check()
    text = page.page.locator("details[open] pre").inner_text().replace(":8500", f":{console.grpc_port}")
    command = ["bash", "-c", text] if kind == "curl" else [sys.executable, "-c", text]
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    answer = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert re.search(r"4\.(0\b)?,?\s*5\.", answer.stdout), answer.stdout + answer.stderr
