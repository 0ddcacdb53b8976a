"""One set of prepared digits, and one short run on them, for all tests of the trainer."""

import contextlib
import pathlib
import resource

import pytest

from training.config import Config
from training.train import fit

SMALL = Config(
    filters=(4, 8),
    convolutions=1,
    steps=6,
    warmup_steps=2,
    batch_size=1000,  # 1,438 images: a full batch and a ragged one in each epoch
    crop_padding=1,
    cpu_devices=2,
    log_every=2,
    evaluate_every=3,
    checkpoint_every=2,
    deterministic=False,
)


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("tfds")


@pytest.fixture
def small_config():
    return SMALL


@pytest.fixture(autouse=True)
def _prepared_data(monkeypatch, data_dir):
    monkeypatch.setenv("TFDS_DATA_DIR", str(data_dir))


@pytest.fixture(scope="session")
def trained(tmp_path_factory, data_dir) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("runs") / "digits"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TFDS_DATA_DIR", str(data_dir))
        fit(SMALL, folder)
    return folder


@pytest.fixture
def largest_file():
    """Makes a disk that is full after so many bytes of a file."""

    @contextlib.contextmanager
    def limit(num_bytes):
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limit
