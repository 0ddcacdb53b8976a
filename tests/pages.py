"""The blocks of code of README and docs, and the commands in them."""

import pathlib
import re
import subprocess

ROOT = pathlib.Path(__file__).parent.parent


def blocks_in(text):
    """The blocks of code of a text, each a language and a text."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def blocks_of(page, heading=None):
    """The blocks of code of a page, or of its section below a heading."""
    text = (ROOT / page).read_text()
    if heading is not None:
        text = text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return blocks_in(text)


def printed_by(script, server, folder):
    """The output of a shell for commands that ask a server at port 8501, and are to succeed."""
    script = script.replace("localhost:8501", f"127.0.0.1:{server.rest_port}")
    script = script.replace("curl ", "curl --silent --fail-with-body ")
    command = ["bash", "-e", "-o", "pipefail", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
