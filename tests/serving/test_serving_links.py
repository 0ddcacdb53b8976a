"""Links in a model's directory, and paths of the machine in what clients are told."""

import pytest
import tensorflow as tf

from serving.errors import ServingError
from serving.repository.storage import check_links

pytestmark = pytest.mark.xdist_group("serving")


@pytest.fixture
def base_path(tmp_path):
    """base/1 with a file, and a file and a directory outside."""
    (tmp_path / "base" / "1" / "variables").mkdir(parents=True)
    (tmp_path / "base" / "1" / "saved_model.pb").write_text("here")
    (tmp_path / "outside" / "1").mkdir(parents=True)
    (tmp_path / "outside" / "file").write_text("there")
    return tmp_path / "base"


OUT = {
    "version": ("2", "../outside/1"),
    "file": ("1/fingerprint.pb", "../../outside/file"),
    "directory": ("1/assets", "../../outside"),
    "deep": ("1/variables/index", "../../../outside/file"),
    "absolute": ("1/passwords", "/etc/passwd"),
    "sibling-with-the-same-beginning": ("1/assets", "../../base2"),
    "missing": ("1/assets", "../../nowhere"),
}


@pytest.mark.parametrize(("link", "target"), OUT.values(), ids=OUT)
def test_link_that_leads_out_is_refused(base_path, link, target):
    (base_path / link).symlink_to(target)
    with pytest.raises(ServingError, match=f"PERMISSION_DENIED: {link} is a link that leads out of the model's base"):
        check_links(base_path / link[0])


def test_link_behind_a_link_is_refused(base_path):
    (base_path / "common").mkdir()
    (base_path / "common" / "file").symlink_to("../../outside/file")
    (base_path / "1" / "assets").symlink_to("../common")
    with pytest.raises(ServingError, match="1/assets/file is a link"):
        check_links(base_path / "1")


def test_links_inside_are_followed(base_path):
    # As Kubernetes mounts a ConfigMap, and with a circle.
    (base_path / "..2026_11_23" / "2").mkdir(parents=True)
    (base_path / "..data").symlink_to("..2026_11_23")
    (base_path / "2").symlink_to("..data/2")
    (base_path / "..2026_11_23" / "2" / "self").symlink_to(".")
    check_links(base_path / "2")


def test_base_path_may_be_a_link(base_path, tmp_path):
    (tmp_path / "current").symlink_to(base_path)
    check_links(tmp_path / "current" / "1")


def test_version_outside_is_refused_unless_it_is_allowed(serve, rest_client, zoo_path, tmp_path):
    (tmp_path / "1").symlink_to(zoo_path / "00000123")
    with pytest.raises(ServingError, match="PERMISSION_DENIED: 1 is a link that leads out of the model's base path"):
        serve(tmp_path).__enter__()
    with serve(tmp_path, allow_links_out_of_base_path=True) as server, rest_client(server) as rest:
        assert rest.post("/v1/models/zoo:predict", json={"instances": [1]}).json() == {"predictions": [2.5]}


class Reads(tf.Module):
    """Reads a file that its asset names, each time it runs."""

    def __init__(self, path):
        self.asset = tf.saved_model.Asset(str(path))

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def read(self, x):
        missing = tf.strings.join([self.asset.asset_path, ".missing"])
        return {"y": tf.strings.length(tf.io.read_file(missing)) + tf.cast(x, tf.int32)}


def test_run_that_fails_tells_no_path_of_the_machine(serve, rest_client, tmp_path):
    (tmp_path / "words.txt").write_text("word")
    module, base_path = Reads(tmp_path / "words.txt"), tmp_path / "models"
    tf.saved_model.save(module, str(base_path / "1"), module.read)
    with serve(base_path) as server, rest_client(server) as rest:
        answer = rest.post("/v1/models/zoo:predict", json={"instances": [1]})
    assert answer.status_code == 404
    assert "<model_base_path>/1/assets/words.txt.missing" in answer.json()["error"]
    assert str(tmp_path) not in answer.text
