"""What is said where a package of an extra is not installed: in a process of its own, that cannot import it."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.xdist_group("serving")


def run_without(package, code, *arguments):
    code = f"import sys; sys.modules[{package!r}] = None\n{code}"
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def as_command(module):
    return f"import runpy; runpy.run_module({module!r}, run_name='__main__', alter_sys=True)"


def brings_it(package, extra):
    return f"{package} is not installed; in a clone of keras_prelu, pip install -e '.[{extra}]' brings it\n"


CLIENT = {
    "httpx": ("httpx", "http://localhost:1"),
    "orjson": ("orjson", "https://localhost:1"),
    "grpc": ("grpc", "grpc://localhost:1"),
    "protobuf": ("google.protobuf", "unix:/nowhere"),
}


@pytest.mark.parametrize(("package", "url"), CLIENT.values(), ids=CLIENT)
def test_command_of_the_client(package, url):
    answer = run_without(package, as_command("serving.client"), "rose.jpg", "--url", url)
    told = brings_it(package.partition(".")[0], "client")
    assert (answer.returncode, answer.stderr) == (2, f"keras-prelu ask: {told}")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Client", "AsyncClient"])
def test_client_from_python(name):
    code = f"""
from serving.client import {name}
for url in ("grpc://localhost:1", "http://localhost:1"):
    try:
        {name}(url, "m")
        print(url)
    except ImportError as error:
        print(error)
"""
    assert run_without("httpx", code).stdout == "grpc://localhost:1\n" + brings_it("httpx", "client")
    assert run_without("grpc", code).stdout == brings_it("grpc", "client") + "http://localhost:1\n"


def test_package_that_every_client_needs():
    answer = run_without("ml_dtypes", "from serving.client import Client")
    assert answer.stderr.endswith(f"MissingPackageError: {brings_it('ml_dtypes', 'client')}")


def test_server():
    answer = run_without("tensorflow", as_command("serving"), "--model_base_path=/models/m")
    assert answer.stdout == f"Failed to start server. Error: {brings_it('tensorflow', 'serving')}"
    assert (answer.returncode, answer.stderr) == (255, "")
