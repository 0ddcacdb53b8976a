"""What TLS, logs and traces cost, and what connections that come and go, or never end, leave behind.

    python -m benchmarks.serving_safety [--rounds 5] [--connections 100000]

Load comes from wrk, over connections that are kept alive; servers take turns, and what is compared are medians of the
rounds' ratios.
"""

import argparse
import contextlib
import http.server
import os
import socket
import statistics
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import trustme

from benchmarks.layer import machine
from benchmarks.serving import in_turns, rates
from benchmarks.serving_load import Load, load_rest, rest_body
from benchmarks.serving_models import save_perceptron
from benchmarks.serving_processes import Running, serving
from serving.wire.protos import SSLConfig

STREAMS = 16
SECONDS = 3.0  # of load on one server in a round
SLOW = 500  # connections at a time that send a header and never end
BARS = {"TLS": "0.85", "access log": "0.97", "request log of 1 %": "0.97", "request log of all": "", "traces": ""}


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving_safety", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--connections", type=int, default=100_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        lines = list(costs(Path(name), arguments.rounds, arguments.connections))
    print(f"{machine()}; load average {os.getloadavg()[1]:.1f} over the last five minutes.\n")
    print("| | measured | bar |\n|---|---|---|")
    for line in lines:
        print(f"| {' | '.join(line)} |")


def costs(folder: Path, rounds: int, num_connections: int) -> Iterator[tuple[str, str, str]]:
    """Requests a second of each server, of those of a plain one; then what connections leave."""
    sample = save_perceptron(folder / "perceptron")
    body = rest_body(sample)
    (folder / "tls").write_text(tls_config())
    flags = {
        "TLS": [f"--rest_api_ssl_config_file={folder / 'tls'}"],
        "access log": [f"--access_log={folder / 'log'}"],
        "request log of 1 %": [f"--request_log_dir={folder / 'sample'}"],
        "request log of all": [f"--request_log_dir={folder / 'all'}", "--request_log_sampling_rate=1"],
        "traces": ["--enable_tracing"],
    }
    with contextlib.ExitStack() as stack:
        os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = stack.enter_context(receiver())
        plain = stack.enter_context(serving(sample))
        servers = {"plain": plain}
        for name, own in flags.items():
            scheme = "https" if name == "TLS" else "http"
            servers[name] = stack.enter_context(serving(sample, *own, scheme=scheme))
        seconds: dict[str, list[float]] = {name: [] for name in servers}
        measures = {
            name: lambda name=name, server=server: measured(server, body, seconds[name])
            for name, server in servers.items()
        }
        taken = in_turns(measures, rounds)
        for name in flags:
            yield f"{STREAMS} streams, {name}, of the rate without", rates(taken, name, "plain"), BARS[name]
            ratios = [one / other for one, other in zip(seconds[name], seconds["plain"], strict=True)]
            shown = [f"{statistics.median(seconds[which]) * 1e6:.0f}" for which in (name, "plain")]
            yield (
                "the same, the server's CPU time for a request",
                f"{statistics.median(ratios):.2f} ({shown[0]} to {shown[1]} us)",
                "",
            )
        yield f"{num_connections} connections in turn", in_turn(plain, num_connections), "all 200"
        yield f"{SLOW} headers that never end, and a request beside them", slow_headers(plain), "200"


@contextlib.contextmanager
def receiver() -> Iterator[str]:
    """An address that takes spans and forgets them."""

    class Forgetful(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Forgetful) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def measured(server: Running, body: bytes, seconds: list[float]) -> Load:
    """Loads a server, and notes its CPU time for a request, on which other work weighs less than on the rate."""
    before = cpu_time(server)
    load = load_rest(server.predict_url, body, STREAMS, SECONDS)
    seconds.append((cpu_time(server) - before) / (load.rate * SECONDS))
    return load


def cpu_time(server: Running) -> float:
    """Seconds of all its threads."""
    times = psutil.Process(server.pid).cpu_times()
    return times.user + times.system


def in_turn(server: Running, num_connections: int) -> str:
    """What so many connections are answered, a request each, and by how much the server's memory grows."""
    statuses: Counter[bytes] = Counter()
    ask(server)
    before, start = server.resident_bytes(), time.perf_counter()
    for _ in range(num_connections):
        statuses[ask(server)] += 1
    grown, taken = server.resident_bytes() - before, time.perf_counter() - start
    shown = ", ".join(f"{number} times {status.decode()}" for status, number in statuses.items())
    return f"{shown} in {taken:.0f} s; memory {grown / before:+.2%}"


def slow_headers(server: Running) -> str:
    """What a request is answered beside connections that send bytes of a header and no end."""
    before = server.resident_bytes()
    with contextlib.ExitStack() as stack:
        for _ in range(SLOW):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", server.rest)))
            client.sendall(b"GET / HTTP/1.1\r\nX-Endless: " + b"a" * 1000)
        start = time.perf_counter()
        status = ask(server)
        taken = time.perf_counter() - start
        return f"{status.decode()} in {taken * 1e3:.1f} ms; memory {(server.resident_bytes() - before) / before:+.2%}"


def ask(server: Running) -> bytes:
    """The status of a new connection's only request."""
    with socket.create_connection(("127.0.0.1", server.rest)) as client:
        client.sendall(b"GET /v1/models/m HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        return b"".join(iter(lambda: client.recv(65536), b"")).split()[1]


def tls_config() -> str:
    """An SSLConfig with a certificate that nobody knows."""
    own = trustme.CA().issue_cert("127.0.0.1")
    return str(
        SSLConfig(server_key=own.private_key_pem.bytes().decode(), server_cert=own.cert_chain_pems[0].bytes().decode())
    )


if __name__ == "__main__":
    main()
