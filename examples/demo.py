"""The project's main job on real images: train, export, serve and classify handwritten digits.

`make demo` runs it. Arguments are passed on to the training: `python examples/demo.py --steps 100`.
"""

import base64
import contextlib
import json
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

WORKDIR = pathlib.Path("runs/digits")
MODEL = "digits"
HELD_OUT = 6  # images to classify
ENDING = (signal.SIGINT, signal.SIGTERM)
TOLERANCE = 1e-5  # of a score, between the served model and the Keras model
READY_WITHIN = 120  # seconds
SHADES = " .:-=+*#%@"

Answer = list[tuple[str, float]]


def main(*steps: Callable[[], None]) -> int:
    """Runs these steps, or all; returns 0 when every answer agrees with the Keras model, 130 after Ctrl-C."""
    for number in ENDING:  # a shell starts what runs in its background with SIGINT ignored
        signal.signal(number, signal.default_int_handler)
    try:
        for step in steps or (train, export, serve):
            step()
        return 0
    except subprocess.CalledProcessError as error:
        return int(error.returncode)
    except KeyboardInterrupt:
        print("\ndemo: interrupted", file=sys.stderr)
        return 130


def train() -> None:
    """Trains anew; the arguments of the command line are passed on."""
    if WORKDIR.exists():
        print(f"Removing the earlier demo's {WORKDIR}")
        shutil.rmtree(WORKDIR)
    _run("training", "fit", "--config", "digits", "--workdir", str(WORKDIR), *sys.argv[1:])


def export() -> None:
    """Publishes the trained network."""
    _run("training", "export", "--workdir", str(WORKDIR))


def serve() -> None:
    """Asks a server for held-out images. Raises CalledProcessError where it differs from the Keras model."""
    grpc_port, rest_port = _free_ports(2)
    flags = [
        f"--model_name={MODEL}",
        f"--model_base_path={(WORKDIR / 'export').resolve()}",
        f"--port={grpc_port}",
        f"--rest_api_port={rest_port}",
    ]
    with _child("serving", *flags) as server:
        difference = _classify_held_out(server, grpc_port, rest_port)
    _print_next_steps()
    if difference > TOLERANCE:
        print(f"demo: the answers differ from the Keras model by {difference:.1e}", file=sys.stderr)
        raise subprocess.CalledProcessError(1, server.args)


def _classify_held_out(server: subprocess.Popen[bytes], grpc_port: int, rest_port: int) -> float:
    """Shows held-out images with their answers; returns how far any served score is from the Keras model's."""
    images, labels, expected = _held_out()
    url = f"http://127.0.0.1:{rest_port}/v1/models/{MODEL}"
    _wait_until_ready(server, url)
    over_rest = classify_over_rest(url, images)
    over_grpc = classify_over_grpc(grpc_port, images)
    difference = 0.0
    for image, label, keras_scores, rest, rpc in zip(images, labels, expected, over_rest, over_grpc, strict=True):
        print(f"\n{picture(image)}\n  label {label}   REST {_top(rest)}   gRPC {_top(rpc)}")
        for answer in (rest, rpc):
            difference = max(difference, *(abs(score - keras_scores[name]) for name, score in answer))
    print(f"\nREST, gRPC and the Keras model agree to {difference:.1e} on {len(images)} images.", flush=True)
    return difference


def classify_over_rest(url: str, images: list[bytes]) -> list[Answer]:
    """Asks the classify signature over REST: for each encoded image its labels and scores, best first."""
    examples = [{"image/encoded": {"b64": base64.b64encode(image).decode()}} for image in images]
    body = json.dumps({"signature_name": "classify", "examples": examples}).encode()
    with urllib.request.urlopen(urllib.request.Request(f"{url}:classify", body)) as response:
        results = json.load(response)["results"]
    return [[(label, score) for label, score in answer] for answer in results]


def classify_over_grpc(port: int, images: list[bytes]) -> list[Answer]:
    """Asks the same over gRPC, with tensorflow-serving-api's own stubs."""
    import grpc
    from tensorflow_serving.apis import classification_pb2, prediction_service_pb2_grpc

    request = classification_pb2.ClassificationRequest()
    request.model_spec.name = MODEL
    request.model_spec.signature_name = "classify"
    for image in images:
        example = request.input.example_list.examples.add()
        example.features.feature["image/encoded"].bytes_list.value.append(image)
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        response = prediction_service_pb2_grpc.PredictionServiceStub(channel).Classify(request, timeout=60)
    return [[(each.label, each.score) for each in answer.classes] for answer in response.result.classifications]


def picture(image: bytes) -> str:
    """An encoded grey image in characters, two a pixel, which is about square in a terminal."""
    import tensorflow as tf

    pixels = tf.io.decode_image(image, channels=1).numpy()[..., 0]
    rows = ((pixels / 255 * (len(SHADES) - 1)).round().astype(int)).tolist()
    return "\n".join("  " + "".join(SHADES[shade] * 2 for shade in row) for row in rows)


def _held_out() -> tuple[list[bytes], list[str], list[dict[str, float]]]:
    """Held-out images, their labels, and the scores by label that the Keras model gives them."""
    from training.environment import start_tensorflow

    start_tensorflow()
    import tensorflow as tf

    from training.classifier import load_network
    from training.data.datasets import open_image_set
    from training.data.preprocessing import decode_image
    from training.run.folder import Run

    run = Run(WORKDIR)
    config, names, image_shape = run.read()
    examples = open_image_set(config.dataset, config.data_dir).encoded(config.test_split).take(HELD_OUT)
    images, labels = zip(*((encoded.numpy(), names[label]) for encoded, label in examples), strict=True)
    pixels = tf.stack([decode_image(image, image_shape) for image in images])
    scores = tf.nn.softmax(load_network(run)(pixels)).numpy().tolist()
    return list(images), list(labels), [dict(zip(names, row, strict=True)) for row in scores]


def _wait_until_ready(server: subprocess.Popen[bytes], url: str) -> None:
    deadline = time.monotonic() + READY_WITHIN
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise subprocess.CalledProcessError(server.returncode or 1, server.args)
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            status: Any = json.load(urllib.request.urlopen(url))
            if any(version["state"] == "AVAILABLE" for version in status["model_version_status"]):
                return
        time.sleep(0.2)
    print(f"demo: the server was not ready within {READY_WITHIN} s", file=sys.stderr)
    raise subprocess.CalledProcessError(1, server.args)


def _run(module: str, *arguments: str) -> None:
    with _child(module, *arguments) as process:
        if process.wait() != 0:
            raise subprocess.CalledProcessError(process.returncode, process.args)


@contextlib.contextmanager
def _child(module: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Starts `python -m module`, and sees to it that the process is gone in the end, whatever happens."""
    print(f"\n$ python -m {module} {' '.join(arguments)}", flush=True)
    held = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)  # a KeyboardInterrupt inside Popen would lose the process

    def ignore_ctrl_c() -> None:  # until the module handles it: Python prints a traceback if interrupted as it starts
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, held)

    process = subprocess.Popen([sys.executable, "-m", module, *arguments], preexec_fn=ignore_ctrl_c)
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)
        yield process
    finally:
        while process.poll() is None:
            try:
                process.terminate()
                process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                process.kill()
            except KeyboardInterrupt:  # Ctrl-C once more, while it ends
                process.kill()


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _top(answer: Answer, count: int = 3) -> str:
    return ", ".join(f"{label} {score:.1%}" for label, score in answer[:count])


def _print_next_steps() -> None:
    python = pathlib.Path(sys.executable)
    with contextlib.suppress(ValueError):
        python = python.relative_to(pathlib.Path.cwd())
    print(
        f"""
The run is in {WORKDIR}: checkpoints, TensorBoard logs, the exported model. Next:

  train on your own photos, <folder>/train/<class>/*.jpg and <folder>/val/<class>/*.jpg
    {python} -m training fit --config image_folder --data_dir <folder> --workdir runs/photos
    {python} -m training export --workdir runs/photos

  serve the digits
    {python} -m serving --model_name={MODEL} --model_base_path=$PWD/{WORKDIR}/export --port=8500 --rest_api_port=8501

  and ask for an empty image, or for the model's state, from another terminal
    curl http://localhost:8501/v1/models/{MODEL}
    {python} -c 'import json; print(json.dumps({{"instances": [[[[0]] * 8] * 8]}}))' |
      curl --data @- http://localhost:8501/v1/models/{MODEL}:predict"""
    )


if __name__ == "__main__":
    sys.exit(main())
