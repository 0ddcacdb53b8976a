"""A version's directory -> a model that is ready to answer."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import tensorflow as tf
from tensorflow.core.protobuf.rewriter_config_pb2 import RewriterConfig

from serving.batching.runner import BatchedRunner, BatchingOptions, BatchScheduler, from_message
from serving.errors import Code, ServingError
from serving.models import c_api, tflite
from serving.models.guard import GuardedRunner
from serving.models.model import Model, load
from serving.options import Options
from serving.repository.links import check_links
from serving.repository.warmup import warm_up
from serving.telemetry.metrics import Metrics
from serving.wire.protos import BatchingParameters, read_text

T = TypeVar("T")

OWN_BATCHING_FILE = "batching_params.pbtxt"
"""What a version's directory may hold, and `enable_per_model_batching_parameters` reads."""

_DEFAULT_THREAD_POOL = "model_server_batch_threads"


class Loader:
    """Loads versions as options ask. Raises ServingError where a file that they name can't be followed."""

    def __init__(self, options: Options, metrics: Metrics) -> None:
        self._options = options
        self._metrics = metrics
        self._session_config = make_session_config(options)
        if not options.xla_cpu_compilation_enabled and not options.xla_gpu_compilation_enabled:
            c_api.forbid_xla()
        self._scheduler = BatchScheduler(_batching_options(options)) if options.enable_batching else None

    def __call__(self, directory: Path) -> Model:
        """Reads a version and warms it up."""
        path = str(directory)
        model = _recorded(lambda: self._read(directory), lambda *ended: self._metrics.record_load(path, *ended))
        try:
            if self._options.enable_model_warmup:
                self._warm_up(model, directory)
        except BaseException:
            model.close()
            raise
        return model

    def close(self) -> None:
        """Ends what the versions shared, once all of them are closed."""
        if self._scheduler is not None:
            self._scheduler.close()

    def _read(self, directory: Path) -> Model:
        if not self._options.allow_links_out_of_base_path:
            check_links(directory)
        # What may be wrong with a file comes before the model, which somebody would have to close.
        batching = None if self._scheduler is None else self._batching_of(directory, self._scheduler)
        model = self._load(directory)
        runner = model.runner
        if self._scheduler is not None and batching is not None:
            runner = BatchedRunner(self._scheduler, runner, batching, self._metrics.record_batch)
        runner = GuardedRunner(runner, directory.parent, self._options.max_image_pixels)
        return Model(runner, model.signatures, self._options.enable_signature_method_name_check)

    def _load(self, directory: Path) -> Model:
        options = self._options
        if options.prefer_tflite_model and (directory / tflite.MODEL_FILE).is_file():
            return tflite.load(directory, options.num_tflite_pools * options.num_tflite_interpreters_per_pool)
        return load(directory, options.saved_model_tags.split(","), self._session_config)

    def _batching_of(self, directory: Path, scheduler: BatchScheduler) -> BatchingOptions | None:
        shared = scheduler.options
        if not self._options.enable_per_model_batching_parameters:
            return shared
        path = directory / OWN_BATCHING_FILE
        if not path.is_file():
            return None
        own = from_message(read_text(path, BatchingParameters))
        return replace(own, num_batch_threads=shared.num_batch_threads, thread_pool_name=shared.thread_pool_name)

    def _warm_up(self, model: Model, directory: Path) -> None:
        num_read = 0

        def run() -> None:
            nonlocal num_read
            num_read = warm_up(model, directory, max(1, self._options.num_request_iterations_for_warmup))

        def record(code: Code, seconds: float) -> None:
            if num_read or code is not Code.OK:
                self._metrics.record_warmup(str(directory), code, seconds, num_read)

        _recorded(run, record)


def make_session_config(options: Options) -> Any:
    """The ConfigProto of the sessions: the file's, then what the flags say (server.cc)."""
    config = tf.compat.v1.ConfigProto()
    if options.tensorflow_session_config_file:
        config = read_text(options.tensorflow_session_config_file, tf.compat.v1.ConfigProto)
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


def _recorded(work: Callable[[], T], record: Callable[[Code, float], None]) -> T:
    started = time.monotonic()
    code = Code.INTERNAL
    try:
        result = work()
        code = Code.OK
    except ServingError as error:
        code = error.code
        raise
    finally:
        record(code, time.monotonic() - started)
    return result
