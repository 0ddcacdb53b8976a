"""Whether SIGTERM drops a request: 16 REST and 16 gRPC streams ask without a pause while the server is told to end.

    python -m benchmarks.serving_drain [--rounds 5] [--seconds 3] [--delay 0]

A request is answered, or refused: by status 503, by UNAVAILABLE, or because nobody listens. All else is dropped, and
the exit status is 1. The model counts its runs: where the last number is more than the answers, an answer got lost.
"""

import argparse
import http.client
import json
import os
import signal
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import grpc
import psutil
from tensorflow_serving.apis import prediction_service_pb2_grpc

from benchmarks.layer import machine
from benchmarks.serving_processes import Running, serving
from benchmarks.serving_soak import publish, request, sample, save

STREAMS = 16  # of each transport
_BODY = json.dumps({"instances": [0]})


class Outcome:
    """What became of the requests of all streams."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.num_answers = 0
        self.last_run = 0  # several answers may bring one number, as the model counts before it reads
        self._lock = threading.Lock()

    def answered(self, transport: str, run: int) -> None:
        """Notes the number of the run that an answer brought."""
        with self._lock:
            self.counts[f"{transport} answered"] += 1
            self.num_answers += 1
            self.last_run = max(self.last_run, run)

    def ended(self, how: str) -> None:
        """Notes how a stream ended."""
        with self._lock:
            self.counts[how] += 1


def main() -> int:
    """Runs the rounds, prints, and returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving_drain", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3, help="of load before the signal")
    parser.add_argument("--delay", type=float, default=0, help="--shutdown_delay_seconds of the server")
    arguments = parser.parse_args()
    print(f"{machine()}; load average {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as name:
        template = Path(name) / "template"
        save(template, 1)
        base_path = Path(name) / "m"
        base_path.mkdir()
        publish(template, base_path, 1)
        clean = [drain(base_path, arguments) for _ in range(arguments.rounds)]
    return 0 if all(clean) else 1


def drain(base_path: Path, arguments: argparse.Namespace) -> bool:
    """One round. Returns whether no request was dropped."""
    outcome = Outcome()
    flags = (f"--shutdown_delay_seconds={arguments.delay}", f"--grpc_max_threads={STREAMS}")
    with serving(sample(base_path), *flags) as server:
        process = psutil.Process(server.pid)
        targets = [_ask_rest, _ask_grpc] * STREAMS
        streams = [threading.Thread(target=target, args=(server, outcome)) for target in targets]
        for stream in streams:
            stream.start()
        time.sleep(arguments.seconds)
        process.send_signal(signal.SIGTERM)
        told = time.monotonic()
        status = process.wait(timeout=60)
        took = time.monotonic() - told
        for stream in streams:
            stream.join()
    lost = outcome.last_run - outcome.num_answers - 1  # one was the warm-up
    dropped = sum(count for how, count in outcome.counts.items() if "dropped" in how)
    print(f"{dict(sorted(outcome.counts.items()))}; runs without an answer: {lost}; ", end="")
    print(f"ended {took:.1f} s after SIGTERM with status {status}")
    return not dropped and not lost and status == 0


def _ask_rest(server: Running, outcome: Outcome) -> None:
    """Asks over connections that are kept alive until it is refused."""
    path = server.predict_url.partition(str(server.rest))[2]
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", server.rest, timeout=60)
        try:
            connection.connect()
        except ConnectionError:  # nothing has been sent
            return outcome.ended("REST refused: nobody listens")
        try:
            keeps_alive = True
            while keeps_alive:
                connection.request("POST", path, _BODY)
                answer = connection.getresponse()
                body = json.loads(answer.read())
                if answer.status != 200:
                    return outcome.ended(f"REST {'refused' if answer.status == 503 else 'dropped'}: {answer.status}")
                outcome.answered("REST", int(body["predictions"][0]["runs"]))
                keeps_alive = answer.headers.get("Connection") != "close"
        except (OSError, http.client.HTTPException) as error:
            return outcome.ended(f"REST dropped: {type(error).__name__}")
        finally:
            connection.close()


def _ask_grpc(server: Running, outcome: Outcome) -> None:
    message = request()
    own = [("grpc.use_local_subchannel_pool", 1)]  # a connection for each stream
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc}", options=own) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        while True:
            try:
                answer = stub.Predict(message, timeout=60)
            except grpc.RpcError as error:
                how = "refused" if error.code() is grpc.StatusCode.UNAVAILABLE else "dropped"
                return outcome.ended(f"gRPC {how}: {error.code().name}, {error.details().partition(';')[0][:60]}")
            outcome.answered("gRPC", answer.outputs["runs"].int64_val[0])


if __name__ == "__main__":
    raise SystemExit(main())
