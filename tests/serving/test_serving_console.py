"""The console's files over HTTP: headers, caching, and the flag that turns it off. Its behaviour: console/."""

import gzip
import json
import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.xdist_group("serving")

PAGE = Path(__file__).parents[2] / "serving" / "console" / "page"
FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/console/console.js": ("console.js", "text/javascript; charset=utf-8"),
    "/console/console.css": ("console.css", "text/css; charset=utf-8"),
    "/console/icon.svg": ("icon.svg", "image/svg+xml"),
}


@pytest.mark.parametrize(("path", "file"), FILES.items(), ids=FILES)
def test_file_is_served_as_what_it_is(rest, path, file):
    answer = rest.get(path)
    assert (answer.status_code, answer.content) == (200, (PAGE / file[0]).read_bytes())
    assert answer.headers["content-type"] == file[1]


@pytest.mark.parametrize("path", FILES)
def test_browser_may_do_nothing_but_what_the_page_needs(rest, path):
    headers = rest.get(path).headers
    policy = dict(each.strip().split(" ", 1) for each in headers["content-security-policy"].split(";"))
    assert policy == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "connect-src": "'self'",
        "img-src": "'self' blob:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
    }
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-resource-policy"] == "same-origin"


def test_file_that_the_browser_has_is_not_sent_again(rest):
    first = rest.get("/console/console.js")
    again = rest.get("/console/console.js", headers={"If-None-Match": first.headers["etag"]})
    other = rest.get("/console/console.js", headers={"If-None-Match": 'W/"of-another-build"'})
    assert [(answer.status_code, len(answer.content)) for answer in (again, other)] == [
        (304, 0),
        (200, len(first.content)),
    ]


def test_page_names_its_files_relative_to_itself(rest):
    named = re.findall(r'(?:href|src)="([^"]*)"', rest.get("/").text)
    assert {f"/{path}" for path in named} == FILES.keys() - {"/"}


def test_page_takes_at_most_60_kilobytes():
    assert sum(len(gzip.compress(path.read_bytes())) for path in PAGE.iterdir()) < 60_000


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_other_methods_find_no_page(rest, method):
    assert rest.request(method, "/").status_code == 404


def test_page_needs_no_token_but_the_models_do(serve, rest_client, zoo_path, tmp_path):
    tokens = tmp_path / "tokens.json"
    tokens.write_text(json.dumps({"tokens": [{"name": "all", "token": "secret"}]}))
    with serve(zoo_path, auth_token_file=str(tokens)) as server, rest_client(server) as rest:
        statuses = [rest.get(path).status_code for path in (*FILES, "/v1/models", "/metrics", "/console/other.js")]
    assert statuses == [200] * len(FILES) + [401] * 3


def test_flag_turns_the_console_off(serve, rest_client, zoo_path):
    with serve(zoo_path, console=False) as server, rest_client(server) as rest:
        assert {rest.get(path).status_code for path in FILES} == {404}
        assert rest.get("/v1/models/zoo").status_code == 200
        assert not any(line.startswith("Console") for line in server.invitations())


def test_start_names_the_console_and_a_command_that_works(server):
    console, command = server.invitations()
    root = f"http://localhost:{server.rest_port}"
    model = f"{root}/v1/models/zoo"
    assert console == f"Console at {root}/"
    assert command == f"Try: curl -s {model}/example | curl -d @- {model}:predict"
