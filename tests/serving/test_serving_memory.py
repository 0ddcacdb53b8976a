"""What an unloaded version leaves behind: nothing."""

import gc
import shutil

import numpy as np
import psutil
import pytest
import tensorflow as tf

from serving.errors import ServingError
from serving.models.session import load
from serving.options import Options
from serving.repository.loader import Loader
from serving.repository.versions import give_memory_back
from serving.telemetry.metrics import Metrics

pytestmark = pytest.mark.xdist_group("serving")

MEBIBYTE = 2**20


@pytest.fixture(scope="module")
def large_path(tmp_path_factory):
    """Weights of 16 MiB, under a graph of some hundred operations."""
    directory = tmp_path_factory.mktemp("large")
    module = tf.Module()
    module.large = tf.Variable(tf.zeros([4 * MEBIBYTE]))
    module.small = [tf.Variable(tf.eye(64)) for _ in range(60)]

    def run(x):
        for matrix in module.small:
            x = tf.nn.relu(x @ matrix)
        return {"y": x + module.large[0]}

    module.run = tf.function(run, input_signature=[tf.TensorSpec([None, 64], tf.float32)])
    tf.saved_model.save(module, str(directory), module.run)
    return directory


@pytest.mark.slow
def test_memory_is_given_back(large_path):
    # 15 reloads keep 20 MiB where nothing is given back, and 240 MiB where models are not closed.
    process, resident = psutil.Process(), []
    for _ in range(20):
        model = load(large_path)
        model.run("", {"x": np.ones((4, 64), np.float32)})
        model.close()
        del model
        give_memory_back()
        resident.append(process.memory_info().rss / MEBIBYTE)
    assert resident[-1] - resident[4] < 6


@pytest.mark.slow
def test_model_whose_batching_file_is_wrong_is_not_kept(large_path, tmp_path):
    shutil.copytree(large_path, tmp_path / "1")
    (tmp_path / "1" / "batching_params.pbtxt").write_text("no_such_field: 1")
    loader = Loader(Options(enable_batching=True, enable_per_model_batching_parameters=True), Metrics())
    process, resident = psutil.Process(), []
    for _ in range(10):  # 16 MiB each
        with pytest.raises(ServingError, match="Invalid protobuf file"):
            loader(tmp_path / "1")
        gc.collect()
        give_memory_back()
        resident.append(process.memory_info().rss / MEBIBYTE)
    loader.close()
    assert resident[-1] - resident[1] < 40


@pytest.mark.slow
def test_unloaded_version_leaves_no_work_to_the_collector(large_path):
    # A search of all objects for those that nothing reaches stalls every request for 0.2 s.
    gc.collect()
    gc.disable()
    try:
        model = load(large_path)
        model.run("", {"x": np.ones((4, 64), np.float32)})
        model.close()
        del model
        assert gc.collect() < 100  # a tf.Graph left 770
    finally:
        gc.enable()
