"""The machine that this runs on: its CPU, its GPUs, and the versions of what is installed."""

import os
import pathlib
import platform
import re
import shutil
import subprocess
from importlib import metadata

_PACKAGES = (
    "keras_prelu",
    "keras",
    "tensorflow",
    "jax",
    "torch",
    "numpy",
    "protobuf",
    "grpcio",
    "tensorflow-datasets",
    "tensorflow-serving-api",
    "uvicorn",
    "ray",
)
_VARIABLES = re.compile("(KERAS|TF|CUDA|OMP|XLA|GRPC|TFDS|SERVING)_.*")


def cpu_name() -> str:
    """The CPU's name; its architecture where the system does not say."""
    name = re.search(r"^model name\s*: (.*)", cpu_info(), re.MULTILINE)
    return name[1] if name else platform.machine()


def cpu_info() -> str:
    """What Linux says of its CPUs; nothing elsewhere."""
    try:
        return pathlib.Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""


def describe_environment() -> str:
    """A line per fact that a report of a fault needs. Imports none of the packages."""
    rows = [
        ("system", platform.platform()),
        ("Python", f"{platform.python_version()} ({platform.python_implementation()})"),
        ("CPU", f"{cpu_name()}, {os.cpu_count()} threads"),
        *(("GPU", line) for line in _gpus()),
        *((package, _version(package)) for package in _PACKAGES),
        *sorted((name, value) for name, value in os.environ.items() if _VARIABLES.fullmatch(name)),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _gpus() -> list[str]:
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    if shutil.which(query[0]) is None:
        return ["no nvidia-smi"]
    return subprocess.run(query, capture_output=True, text=True).stdout.splitlines()
