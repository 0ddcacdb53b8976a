"""A version's directory -> a model that is ready to answer."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorflow as tf

from serving.config_file import read_text_message
from serving.model import Model, load
from serving.options import Options
from serving.warmup import warm_up


def make_loader(options: Options) -> Callable[[Path], Model]:
    """What loads versions as these options ask. Raises ServingError where a file that they name can't be followed."""
    session_config = make_session_config(options)

    def load_version(directory: Path) -> Model:
        model = load(directory, options.saved_model_tags.split(","), session_config)
        model.checks_method_names = options.enable_signature_method_name_check
        if options.enable_model_warmup:
            try:
                warm_up(model, directory, max(1, options.num_request_iterations_for_warmup))
            except BaseException:
                model.close()
                raise
        return model

    return load_version


def make_session_config(options: Options) -> Any:
    """The ConfigProto of the sessions: the file's, then what the flags say (server.cc)."""
    config = tf.compat.v1.ConfigProto()
    if options.tensorflow_session_config_file:
        read_text_message(options.tensorflow_session_config_file, config)
    both = options.tensorflow_session_parallelism
    if options.tensorflow_intra_op_parallelism or options.tensorflow_inter_op_parallelism:
        config.intra_op_parallelism_threads = options.tensorflow_intra_op_parallelism
        config.inter_op_parallelism_threads = options.tensorflow_inter_op_parallelism
    elif both:
        config.intra_op_parallelism_threads = config.inter_op_parallelism_threads = both
    return config
