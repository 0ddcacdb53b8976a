"""The servers that are measured, each a process of its own: this project's, and BentoML where it is installed."""

import contextlib
import json
import os
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.serving_models import Sample

_READY_WITHIN = 120  # seconds
_MODEL = "m"
_ANY_CERTIFICATE = ssl._create_unverified_context()
_BENTO = """
import bentoml, numpy, tensorflow

@bentoml.service(workers=1, traffic={{"timeout": 60}})
class Network:
    def __init__(self):
        self.model = tensorflow.saved_model.load({path!r})
        self.run = self.model.signatures["serving_default"]

    @bentoml.api(batchable=True, batch_dim=0, max_batch_size={batch}, max_latency_ms=10_000)
    def predict(self, instances: numpy.ndarray) -> numpy.ndarray:
        return self.run(images=tensorflow.constant(instances, tensorflow.float32))["scores"].numpy()
"""


@dataclass(frozen=True)
class Running:
    """A server of this project: its ports and its process."""

    grpc: int
    rest: int
    pid: int
    scheme: str = "http"

    @property
    def predict_url(self) -> str:
        """Where its model is asked over REST."""
        return f"{self.scheme}://127.0.0.1:{self.rest}/v1/models/{_MODEL}:predict"

    def resident_bytes(self) -> int:
        """The memory that it holds."""
        return psutil.Process(self.pid).memory_info().rss

    def failures(self) -> int:
        """How many requests failed so far, by the server's own count."""
        page = urllib.request.urlopen(f"http://127.0.0.1:{self.rest}/metrics").read().decode()
        counts = [line for line in page.splitlines() if line.startswith("tensorflow_serving_request_count_total{")]
        ended = ('status="OK"', 'status="CANCELLED"')  # wrk leaves the last ones
        return sum(round(float(line.rpartition(" ")[2])) for line in counts if not any(map(line.count, ended)))


@contextlib.contextmanager
def serving(sample: Sample, *flags: str, scheme: str = "http") -> Iterator[Running]:
    """`python -m serving` with a model, ready to answer; it ends with the context."""
    grpc, rest = free_ports(2)
    named = [f"--model_name={_MODEL}", f"--model_base_path={sample.base_path}"]
    listening = [f"--port={grpc}", f"--rest_api_port={rest}"]
    with _process([sys.executable, "-m", "serving", *named, *listening, *flags]) as process:
        wait_until_answered(process, f"{scheme}://127.0.0.1:{rest}/v1/models/{_MODEL}")
        yield Running(grpc, rest, process.pid, scheme)


@contextlib.contextmanager
def bentoml(python: Path, sample: Sample, batch: int, folder: Path) -> Iterator[str]:
    """BentoML of another environment, with its adaptive batching. Gives the address that takes the same body."""
    (port,) = free_ports(1)
    (folder / "service.py").write_text(_BENTO.format(path=str(sample.base_path / "1"), batch=batch))
    command = [str(python), "-m", "bentoml", "serve", "service:Network", "--host", "127.0.0.1", "--port", str(port)]
    with _process(command, cwd=folder, env={**os.environ, "BENTOML_DO_NOT_TRACK": "True"}) as process:
        wait_until_answered(process, f"http://127.0.0.1:{port}/readyz")
        yield f"http://127.0.0.1:{port}/predict"


def bento_body(sample: Sample) -> bytes:
    """The numbers of a request as this service takes them."""
    return json.dumps({"instances": [sample.example.tolist()]}).encode()


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [probe.getsockname()[1] for probe in probes]


def wait_until_answered(process: "subprocess.Popen[bytes]", url: str, pause: float = 0.02) -> None:
    """Returns at the first success of a GET. Raises RuntimeError where the process ends before, or takes too long."""
    deadline = time.monotonic() + _READY_WITHIN
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=5, context=_ANY_CERTIFICATE).close()
            return
        except OSError:  # refused, reset, too slow, or an answer that says not yet
            time.sleep(pause)
    raise RuntimeError(f"{process.args!r} does not answer at {url}")


@contextlib.contextmanager
def _process(
    command: Sequence[str], cwd: Path | None = None, env: dict[str, str] | None = None
) -> Iterator["subprocess.Popen[bytes]"]:
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, cwd=cwd, env=env, **quiet) as process:  # type: ignore[call-overload]
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
