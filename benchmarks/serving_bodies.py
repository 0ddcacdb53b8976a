"""A photo of 224x224x3 float32 to the server in each kind of body: what it costs beside the run itself.

    python -m benchmarks.serving_bodies [--rounds 5]

Client and server share the machine; load comes from wrk and h2load, one request at a time. The kinds take turns, and
medians of the rounds are shown.
"""

import argparse
import os
import statistics
import tempfile
from functools import partial
from pathlib import Path

from benchmarks.layer import machine
from benchmarks.serving import MODEL, SECONDS, Measure, in_turns, run_here
from benchmarks.serving_load import grpc_message, load_grpc, load_rest, rest_body
from benchmarks.serving_models import Sample, save_photos
from benchmarks.serving_processes import Running, serving
from serving.rest.content import JSON, NPY, PROTOBUF
from serving.rest.npy import write_npy


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving_bodies", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        photo, jpeg = save_photos(Path(folder) / "photos")
        bodies = bodies_of(photo, jpeg)
        with serving(photo) as server:
            taken = in_turns(candidates(photo, jpeg, bodies, server), rounds)
    print(f"{machine()}; load average {os.getloadavg()[1]:.1f} over the last five minutes.\n")
    print("| | kB | milliseconds, in all |\n|---|---|---|")
    for name, loads in taken.items():
        size = f"{len(bodies[name][0]) / 1e3:.0f}" if name in bodies else ""
        print(f"| {name} | {size} | {statistics.median(load.median for load in loads) * 1e3:.2f} |")


def bodies_of(photo: Sample, jpeg: Sample) -> dict[str, tuple[bytes, str, str]]:
    """What is sent, its type, and the query of its address."""
    message = grpc_message(photo, MODEL)
    return {
        "JSON": (rest_body(photo), JSON, ""),
        ".npy": (write_npy(photo.batch), NPY, ""),
        "PredictRequest over HTTP": (message, PROTOBUF, ""),
        "JPEG in base64": (rest_body(jpeg), JSON, ""),
        "JPEG as it is": (jpeg.example.item(), "image/jpeg", "?signature_name=jpeg"),
        "PredictRequest over gRPC": (message, "", ""),
    }


def candidates(
    photo: Sample, jpeg: Sample, bodies: dict[str, tuple[bytes, str, str]], server: Running
) -> dict[str, Measure]:
    """A stream of single requests of each kind, and runs in this process."""
    measures: dict[str, Measure] = {
        "in process": lambda: run_here(photo, 1),
        "JPEG in process": lambda: run_here(jpeg, 1),
    }
    for name, (body, content_type, query) in bodies.items():
        if content_type:
            measures[name] = partial(load_rest, server.predict_url + query, body, 1, SECONDS, content_type)
        else:
            measures[name] = partial(load_grpc, server.grpc, body, 1, round(SECONDS * 300))
    return measures


if __name__ == "__main__":
    main()
