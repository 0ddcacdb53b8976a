"""Loads a version's directory: reads the model, wraps its runner as options ask, and warms it up."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from tensorflow.core.protobuf.config_pb2 import ConfigProto
from tensorflow.core.protobuf.rewriter_config_pb2 import RewriterConfig

from serving.batching.options import BatchingOptions, from_message
from serving.batching.runner import BatchedRunner
from serving.batching.scheduler import BatchScheduler
from serving.errors import Code, ServingError
from serving.models import c_api, session, tflite
from serving.models.guard import GuardedRunner
from serving.models.model import Model
from serving.options import Options
from serving.repository.storage import base_path_of, check_links, size_of
from serving.repository.warmup import WARMUP_FILE, warm_up
from serving.telemetry.metrics import Metrics
from serving.wire.protos import BatchingParameters, read_text

OWN_BATCHING_FILE = "batching_params.pbtxt"
"""The file in a version's directory that `enable_per_model_batching_parameters` reads."""

_DEFAULT_THREAD_POOL = "model_server_batch_threads"


class Loader:
    """Loads versions as options ask. Raises ServingError if a file that they name can't be followed."""

    def __init__(self, options: Options, metrics: Metrics) -> None:
        self._options = options
        self._metrics = metrics
        self._session_config = make_session_config(options)
        if not options.xla_cpu_compilation_enabled and not options.xla_gpu_compilation_enabled:
            c_api.forbid_xla()
        self._scheduler = BatchScheduler(_batching_options(options)) if options.enable_batching else None

    def __call__(self, directory: Path) -> Model:
        """Reads a version and warms it up."""
        with _timed(lambda code, seconds: self._metrics.record_load(str(directory), code, seconds)):
            model = self._read(directory)
        try:
            if self._options.enable_model_warmup and (directory / WARMUP_FILE).is_file():
                self._warm_up(model, directory)
        except BaseException:
            model.close()
            raise
        return model

    def close(self) -> None:
        """Ends the threads that the versions shared, once all versions are closed."""
        if self._scheduler is not None:
            self._scheduler.close()

    def _read(self, directory: Path) -> Model:
        options = self._options
        if not options.allow_links_out_of_base_path:
            check_links(directory)
        # Errors in this file come before the model, which somebody would have to close.
        batching = self._batching_options(directory)
        if options.prefer_tflite_model and (directory / tflite.MODEL_FILE).is_file():
            num_bytes = size_of(directory, tflite.MODEL_FILE)
            model = tflite.load(directory, options.num_tflite_pools * options.num_tflite_interpreters_per_pool)
        else:
            num_bytes = size_of(directory, *session.MODEL_FILES)
            model = session.load(directory, options.saved_model_tags.split(","), self._session_config)
        runner, fill = model.runner, model.batch_fill
        if self._scheduler is not None and batching is not None:
            runner = batched = BatchedRunner(self._scheduler, runner, batching, self._metrics.record_batch)
            fill = batched.fill
        runner = GuardedRunner(runner, base_path_of(directory), options.max_image_pixels)
        return Model(runner, model.signatures, options.enable_signature_method_name_check, num_bytes, fill)

    def _batching_options(self, directory: Path) -> BatchingOptions | None:
        if self._scheduler is None:
            return None
        shared, path = self._scheduler.options, directory / OWN_BATCHING_FILE
        if not self._options.enable_per_model_batching_parameters:
            return shared
        if not path.is_file():
            return None
        own = from_message(read_text(path, BatchingParameters))
        return replace(own, num_batch_threads=shared.num_batch_threads, thread_pool_name=shared.thread_pool_name)

    def _warm_up(self, model: Model, directory: Path) -> None:
        num_read = 0
        with _timed(lambda code, seconds: self._metrics.record_warmup(str(directory), code, seconds, num_read)):
            num_read = warm_up(model, directory, max(1, self._options.num_request_iterations_for_warmup))


def make_session_config(options: Options) -> ConfigProto:
    """The ConfigProto of the sessions: the file's, overridden by flags (server.cc)."""
    config = ConfigProto()
    if options.tensorflow_session_config_file:
        config = read_text(options.tensorflow_session_config_file, ConfigProto)
    # Exports remember the device they were made on; a server without it is no reason to refuse them.
    config.allow_soft_placement = True
    if options.per_process_gpu_memory_fraction:
        config.gpu_options.per_process_gpu_memory_fraction = options.per_process_gpu_memory_fraction
    if options.mixed_precision == "bfloat16":
        config.graph_options.rewrite_options.auto_mixed_precision_onednn_bfloat16 = RewriterConfig.ON
    both = options.tensorflow_session_parallelism
    if options.tensorflow_intra_op_parallelism or options.tensorflow_inter_op_parallelism:
        config.intra_op_parallelism_threads = options.tensorflow_intra_op_parallelism
        config.inter_op_parallelism_threads = options.tensorflow_inter_op_parallelism
    elif both:
        config.intra_op_parallelism_threads = config.inter_op_parallelism_threads = both
    return config


def _batching_options(options: Options) -> BatchingOptions:
    if options.batching_parameters_file:
        return from_message(read_text(options.batching_parameters_file, BatchingParameters))
    return BatchingOptions(thread_pool_name=_DEFAULT_THREAD_POOL)


@contextmanager
def _timed(record: Callable[[Code, float], None]) -> Iterator[None]:
    """Records the code with which the work in the context ended, and its seconds."""
    started, code = time.monotonic(), Code.INTERNAL
    try:
        yield
        code = Code.OK
    except ServingError as error:
        code = error.code
        raise
    finally:
        record(code, time.monotonic() - started)
