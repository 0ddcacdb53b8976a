"""The command that makes warm-up requests of a request log."""

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from serving.repository.warmup_requests import main


@pytest.fixture
def write_log(tmp_path, predict_request):
    """Writes a log of requests for these numbers, each answered at another time."""

    def write(name, *numbers):
        path = tmp_path / name
        with tf.io.TFRecordWriter(str(path)) as writer:
            for second, number in enumerate(numbers):
                log = prediction_log_pb2.PredictionLog(log_metadata={"timestamp_secs": second})
                log.predict_log.request.CopyFrom(predict_request("identity", x=np.float32([number])))
                log.predict_log.response.outputs["y"].CopyFrom(tf.make_tensor_proto(number))
                writer.write(log.SerializeToString())
        return path

    return write


def requests(path):
    records = tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
    return [prediction_log_pb2.PredictionLog.FromString(record) for record in records]


def numbers(path):
    return [tf.make_ndarray(log.predict_log.request.inputs["x"]).item() for log in requests(path)]


def test_each_request_is_there_once_without_its_answer(write_log, tmp_path, predict_request, capsys):
    output = tmp_path / "1" / "assets.extra" / "tf_serving_warmup_requests"
    assert main([str(write_log("a", 1, 2, 1)), str(write_log("b", 2, 3)), "--output", str(output)]) == 0
    assert numbers(output) == [1, 2, 3]
    (first, *_) = requests(output)
    assert first == prediction_log_pb2.PredictionLog(
        predict_log={"request": predict_request("identity", x=np.float32([1]))}
    )
    assert capsys.readouterr().out == f"3 requests in {output}\n"
    assert [path.name for path in output.parent.iterdir()] == [output.name]


def test_the_first_so_many(write_log, tmp_path):
    assert main([str(write_log("a", *range(9))), "--output", str(tmp_path / "out"), "--number", "4"]) == 0
    assert numbers(tmp_path / "out") == [0, 1, 2, 3]


def test_log_that_a_kill_cut_is_read_as_far_as_it_goes(write_log, tmp_path):
    path = write_log("a.part", 1, 2, 3)
    path.write_bytes(path.read_bytes()[:-5])
    assert main([str(path), "--output", str(tmp_path / "out")]) == 0
    assert numbers(tmp_path / "out") == [1, 2]


REFUSED = {
    "none": (None, "there is no file {path}"),
    "empty": (b"", "there are no requests in the log"),
    "text": (b"these are not records, but long enough", "{path} holds no TFRecords, or cannot be read"),
}


@pytest.mark.parametrize(("content", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_log_is_refused(tmp_path, capsys, content, message):
    path = tmp_path / "log"
    if content is not None:
        path.write_bytes(content)
    assert main([str(path), "--output", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == message.format(path=path) + "\n"
    assert not (tmp_path / "out").exists()


def test_record_of_something_else_is_refused(tmp_path, capsys):
    path = tmp_path / "log"
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(b"\xff")
    assert main([str(path), "--output", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == f"{path} holds no PredictionLogs\n"


@pytest.mark.parametrize("number", ["0", "1001"])
def test_no_more_than_a_version_may_have(capsys, number):
    with pytest.raises(SystemExit):
        main(["log", "--output", "out", "--number", number])
    assert "from 1 to 1000, the most that a version may have" in capsys.readouterr().err
