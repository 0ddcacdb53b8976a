import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from serving.__main__ import main as serving_main
from serving.parity.command import main

NOBODY = "grpc://127.0.0.1:1"


def urls(server):
    return f"grpc://127.0.0.1:{server.grpc_port},http://127.0.0.1:{server.rest_port}"


@pytest.fixture(scope="module")
def plus(serve, save_plus, tmp_path_factory):
    """Servers of a model that adds 1, and of one that adds 2."""
    paths = [tmp_path_factory.mktemp(f"plus_{number}") for number in (1, 2)]
    for number, path in enumerate(paths, start=1):
        save_plus(path / "1", number)
    with serve(paths[0], "plus") as one, serve(paths[1], "plus") as two:
        yield one, two


def records(path, *requests):
    with tf.io.TFRecordWriter(str(path)) as writer:
        for request in requests:
            log = prediction_log_pb2.PredictionLog()
            log.predict_log.request.CopyFrom(request)
            writer.write(log.SerializeToString())
    return str(path)


@pytest.mark.slow
def test_a_server_answers_like_another_of_the_same_model(server, serve, zoo_path, capsys):
    with serve(zoo_path) as other:
        assert main([urls(server), urls(other), "--model", "zoo"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert int(line.split()[0]) > 500
    assert line.endswith(" answered alike, 0 not")


def test_other_numbers_are_told_over_both_transports(plus, capsys):
    assert main([*map(urls, plus), "--model", "plus"]) == 1
    out = capsys.readouterr().out
    call, difference = "PredictionService/Predict (serving_default, batch of 3)", "3 of 3 numbers differ, by 1 at most"
    assert f"{call}\n  outputs.y.values: {difference}\n" in out
    assert "/v1/models/plus:predict (serving_default, batch of 1, by row)\n  predictions[0]: 1." in out


def test_another_status_is_told(plus, serve, save_plus, tmp_path, capsys):
    save_plus(tmp_path / "1", 1)
    with serve(tmp_path, "plus", rest_api_max_body_bytes=16) as narrow:
        assert main([urls(plus[0]), urls(narrow), "--model", "plus"]) == 1
    out = capsys.readouterr().out
    assert "by column)\n  status: 200 application/json / 413 application/json\n" in out


def test_only_the_transport_that_both_have_is_compared(plus, capsys):
    one, two = plus
    assert main([urls(one), f"grpc://127.0.0.1:{two.grpc_port}", "--model", "plus"]) == 1
    assert "/v1/models" not in capsys.readouterr().out


def test_recorded_requests_are_sent(plus, predict_request, tmp_path, capsys):
    path = records(tmp_path / "requests", predict_request(model="another name", x=np.zeros(7, np.float32)))
    assert main([*map(urls, plus), "--model", "plus", "--records", path]) == 1
    assert "(record 1)\n  outputs.y.values: 7 of 7 numbers differ, by 1 at most" in capsys.readouterr().out


def test_a_server_that_ends_is_told(serve, plus, save_plus, tmp_path, capsys, monkeypatch):
    save_plus(tmp_path / "1", 1)
    with serve(tmp_path, "plus") as ending:
        monkeypatch.setattr("serving.parity.command._requests", _then(ending.stop))
        assert main([urls(plus[0]), urls(ending), "--model", "plus"]) == 1
    out = capsys.readouterr().out
    assert "status: OK / UNAVAILABLE" in out
    assert "status: 200 application/json / no answer: " in out


def _then(call):
    from serving.parity.command import _requests

    def requests(*args):
        yield from _requests(*args)
        call()

    return requests


def refused(capsys, *arguments):
    assert main(list(arguments)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_a_server_that_is_not_there(plus, capsys):
    line = refused(capsys, urls(plus[0]), NOBODY, "--model", "plus", "--timeout", "1")
    assert line.startswith(f"keras-prelu parity: UNAVAILABLE: {NOBODY}: ")


def test_a_model_that_is_not_there(plus, capsys):
    line = refused(capsys, *map(urls, plus), "--model", "cats")
    assert line.endswith("Servable not found for request: Latest(cats)")


def test_it_is_a_command_of_serving(capsys):
    assert serving_main(["parity", "here", "there", "--model", "plus"]) == 2
    assert "here is no server" in capsys.readouterr().err


def test_a_url_of_another_kind(plus, capsys):
    line = refused(capsys, urls(plus[0]), "localhost:8500", "--model", "plus")
    assert line.endswith(
        "localhost:8500 is no server; give grpc://host:8500 or http://host:8501, or both with a comma between"
    )


def test_servers_without_a_transport_in_common(plus, capsys):
    one, two = plus
    line = refused(capsys, f"grpc://127.0.0.1:{one.grpc_port}", f"http://127.0.0.1:{two.rest_port}", "--model", "plus")
    assert "have no transport in common" in line


def test_records_that_are_not_there(plus, capsys, tmp_path):
    line = refused(capsys, *map(urls, plus), "--model", "plus", "--records", str(tmp_path / "none"))
    assert f"{tmp_path}/none" in line


def test_records_that_are_none(plus, capsys, tmp_path):
    (tmp_path / "text").write_text("This text is longer than the header of a record.")
    line = refused(capsys, *map(urls, plus), "--model", "plus", "--records", str(tmp_path / "text"))
    assert f"{tmp_path}/text" in line


def test_a_record_that_is_no_request(plus, capsys, tmp_path):
    with tf.io.TFRecordWriter(str(tmp_path / "other")) as writer:
        writer.write(b"no log")
    line = refused(capsys, *map(urls, plus), "--model", "plus", "--records", str(tmp_path / "other"))
    assert f"{tmp_path}/other" in line
