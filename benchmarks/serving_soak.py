"""Whether the server holds: versions that come and go under load, and memory over many requests and reloads.

    python -m benchmarks.serving_soak [--seconds 60] [--requests 200000] [--reloads 100]

1. A new version every second under 32 streams: no request may fail, and no answer may come from a version that has not
   been warmed up. Each version counts its own runs, so an answer that is its first run would give it away.
2. The server's memory after a tenth of the requests, and after all of them; after ten to twenty reloads, and in
   the last ten.

The exit status is 1 where a request failed, an answer came too early, or memory grew by 2 % or more.
"""

import argparse
import os
import shutil
import statistics
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2, prediction_service_pb2_grpc

from benchmarks.layer import machine
from benchmarks.serving_load import grpc_message, load_grpc
from benchmarks.serving_models import Sample
from benchmarks.serving_processes import serving

STREAMS = 32
GROWTH = 0.02  # of memory, at most
_FLAGS = ("--file_system_poll_wait_seconds=0.1",)


class Numbered(tf.Module):
    """Answers with its number, and with how often it has run."""

    def __init__(self, number: int) -> None:
        self.number = tf.Variable(number, dtype=tf.int64)
        self.runs = tf.Variable(0, dtype=tf.int64)
        self.table = tf.Variable(tf.zeros([256, 1024]))  # a megabyte, so that a version that stays shows

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "x")])
    def run(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        """The number and the count, for each row."""
        y = x + tf.reduce_sum(self.table)
        return {
            "version": tf.fill(tf.shape(x), self.number),
            "runs": tf.fill(tf.shape(x), self.runs.assign_add(1)),
            "y": y,
        }


def main() -> int:
    """Runs both parts, prints, and returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving_soak", description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="of reloads under load")
    parser.add_argument("--requests", type=int, default=200_000)
    parser.add_argument("--reloads", type=int, default=100)
    arguments = parser.parse_args()
    if arguments.reloads < 20:
        parser.error(f"--reloads {arguments.reloads}: the first ten are not counted, and fewer than ten say little")
    print(f"{machine()}; load average {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        template = folder / "template"
        save(template, 1)
        holds = [
            reload_under_load(folder / "reloaded", template, arguments.seconds),
            memory_over_requests(folder / "asked", template, arguments.requests),
            memory_over_reloads(folder / "often", template, arguments.reloads),
        ]
    return 0 if all(holds) else 1


def save(directory: Path, number: int) -> None:
    """A version with a warm-up request."""
    module = Numbered(number)
    tf.saved_model.save(module, str(directory), module.run)
    log = prediction_log_pb2.PredictionLog()
    log.predict_log.request.CopyFrom(request())
    (directory / "assets.extra").mkdir()
    with tf.io.TFRecordWriter(str(directory / "assets.extra" / "tf_serving_warmup_requests")) as writer:
        writer.write(log.SerializeToString())


def request() -> predict_pb2.PredictRequest:
    """One row."""
    return predict_pb2.PredictRequest.FromString(grpc_message(sample(Path()), "m"))


def sample(base_path: Path) -> Sample:
    """The model at a place, and its one row."""
    return Sample(base_path, "x", np.array(0, np.float32))


def publish(template: Path, base_path: Path, version: int, keep: int = 2) -> None:
    """The next version, whole at once; the oldest goes."""
    unfinished = base_path / "unfinished"
    shutil.copytree(template, unfinished)
    unfinished.rename(base_path / str(version))
    shutil.rmtree(base_path / str(version - keep), ignore_errors=True)


def reload_under_load(base_path: Path, template: Path, seconds: int) -> bool:
    """A new version every second. Returns whether every request was answered by a version that was warm."""
    base_path.mkdir()
    publish(template, base_path, 1)
    answers: Counter[int] = Counter()
    problems: list[str] = []
    stop = threading.Event()
    with serving(sample(base_path), *_FLAGS) as server, grpc.insecure_channel(f"127.0.0.1:{server.grpc}") as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)

        def ask() -> None:
            message = request()
            while not stop.is_set():
                try:
                    answer = stub.Predict(message, timeout=30)
                except grpc.RpcError as error:
                    problems.append(f"{error.code().name}: {error.details()}")
                    continue
                answers[answer.model_spec.version.value] += 1
                if answer.outputs["runs"].int64_val[0] < 2:
                    problems.append(f"version {answer.model_spec.version.value} answered before it was warm")

        threads = [threading.Thread(target=ask) for _ in range(STREAMS)]
        for thread in threads:
            thread.start()
        for version in range(2, seconds + 2):
            time.sleep(1)
            publish(template, base_path, version)
        time.sleep(1)
        stop.set()
        for thread in threads:
            thread.join()
    print(
        f"{seconds} reloads under {STREAMS} streams: {sum(answers.values())} answers of {len(answers)} versions, ",
        end="",
    )
    print(f"{len(problems)} failed or came too early {dict(Counter(problems).most_common(3)) or ''}")
    return not problems


def memory_over_requests(base_path: Path, template: Path, requests: int) -> bool:
    """The same request again and again. Returns whether memory stays what it was after the first tenth."""
    base_path.mkdir()
    publish(template, base_path, 1)
    message = request().SerializeToString()
    with serving(sample(base_path), *_FLAGS) as server:
        load_grpc(server.grpc, message, STREAMS, max(STREAMS, requests // 10))
        before = server.resident_bytes()
        load_grpc(server.grpc, message, STREAMS, requests - requests // 10)
        return _told(f"{requests} requests", before, server.resident_bytes()) and not server.failures()


def memory_over_reloads(base_path: Path, template: Path, reloads: int) -> bool:
    """A new version as soon as the last one serves. Returns whether memory stays what it was after ten."""
    base_path.mkdir()
    publish(template, base_path, 1)
    with serving(sample(base_path), *_FLAGS) as server, grpc.insecure_channel(f"127.0.0.1:{server.grpc}") as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        sizes = []
        for version in range(2, reloads + 2):
            publish(template, base_path, version)
            while stub.Predict(request(), timeout=30).model_spec.version.value < version:
                time.sleep(0.01)
            sizes.append(server.resident_bytes())
    # While a version comes and another goes, memory depends on the moment: the middle of ten such moments.
    return _told(f"{reloads} reloads", statistics.median(sizes[10:20]), statistics.median(sizes[-10:]))


def _told(what: str, before: float, after: float) -> bool:
    growth = after / before - 1
    print(f"memory over {what}: {before / 2**20:.1f} MiB -> {after / 2**20:.1f} MiB, {growth:+.2%}")
    return growth < GROWTH


if __name__ == "__main__":
    raise SystemExit(main())
