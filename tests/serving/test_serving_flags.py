"""The command line, parsed."""

import pytest

from serving.flags import FlagError, Options, parse

SPELLINGS = {
    "equals": (["--port=1"], {"port": 1}),
    "next-argument": (["--port", "1", "--model_name", "m"], {"port": 1, "model_name": "m"}),
    "empty-text": (["--saved_model_tags="], {"saved_model_tags": ""}),
    "text-with-equals": (["--model_base_path=/a=b"], {"model_base_path": "/a=b"}),
    "bare-boolean": (["--enable_model_warmup", "--port=1"], {"enable_model_warmup": True, "port": 1}),
    "boolean-equals": (["--enable_model_warmup=FALSE"], {"enable_model_warmup": False}),
    "boolean-next-argument": (["--enable_model_warmup", "false"], {"enable_model_warmup": False}),
    "negative-number": (["--file_system_poll_wait_seconds", "-1"], {"file_system_poll_wait_seconds": -1.0}),
    "last-one-wins": (["--port=1", "--port=2"], {"port": 2}),
}


@pytest.mark.parametrize(("arguments", "values"), SPELLINGS.values(), ids=SPELLINGS)
def test_spelling(arguments, values):
    command_line = parse(arguments)
    assert command_line.options == Options(**values)
    assert command_line.unknown == []


def test_unknown_arguments_are_kept_apart():
    command_line = parse(["--colour=blue", "stray", "-port=1", "--port=2"])
    assert command_line.unknown == ["--colour=blue", "stray", "-port=1"]
    assert command_line.options.port == 2


@pytest.mark.parametrize("argument", ["--port=-1", "--port=", "--port=1.5", "--grpc_max_threads=0"])
def test_value_that_does_not_fit_is_refused(argument):
    with pytest.raises(FlagError) as caught:
        parse([argument])
    assert str(caught.value).startswith(f"{argument} ")


def test_defaults_are_those_of_tensorflow_serving():
    options = Options()
    assert (options.port, options.rest_api_port, options.model_name) == (8500, 0, "default")
    assert (options.file_system_poll_wait_seconds, options.rest_api_timeout_in_ms) == (1, 30000)
    assert options.enable_model_warmup is True
    assert options.host == "127.0.0.1"
