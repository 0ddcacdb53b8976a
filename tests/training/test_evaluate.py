import dataclasses
import json
import shutil

import numpy as np
import pytest

from training.classifier import load_classifier
from training.data.datasets import open_images_of
from training.errors import InputError
from training.evaluation.evaluate import describe, evaluate_runs, write
from training.evaluation.views import Protocol, score
from training.run.folder import Run
from training.train import fit

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("evaluate")]  # they share runs


@pytest.fixture(scope="module")
def run(trained):
    return Run(trained)


@pytest.fixture(scope="module")
def other(small_config_of_module, tmp_path_factory):
    folder = tmp_path_factory.mktemp("other")
    fit(dataclasses.replace(small_config_of_module, seed=1, flip=True), folder)
    return Run(folder)


@pytest.fixture(scope="module")
def small_config_of_module(run):
    return run.read()[0]


def test_centre_has_the_error_of_training_s_last_evaluation(run):
    result = evaluate_runs([run], Protocol())
    last = run.last_evaluation()
    assert result["images"] == 359
    assert result["top1_error"] == pytest.approx(1 - last["accuracy"])
    assert result["loss"] == pytest.approx(last["loss"], abs=1e-5)
    assert sum(each["images"] for each in result["classes"].values()) == 359
    right = [each["images"] * each["recall"] for each in result["classes"].values()]
    assert sum(right) / 359 == pytest.approx(1 - result["top1_error"])
    for name in ("precision", "recall", "f1"):
        assert result[name] == pytest.approx(np.mean([each[name] for each in result["classes"].values()]))


def test_another_split_may_be_evaluated(run):
    assert evaluate_runs([run], Protocol(split="train[:100]"))["images"] == 100


def scored(run, protocol):
    classifier = load_classifier(run)
    return score(classifier, open_images_of(classifier.config), protocol)


def test_networks_are_averaged(run, other):
    first, second = (scored(each, Protocol()) for each in (run, other))
    mean = (first.scores + second.scores) / 2
    result = evaluate_runs([run, other], Protocol())
    assert result["top1_error"] == pytest.approx((mean.argmax(axis=1) != first.labels).mean())
    assert "359 images, centre, 2 networks" in describe(result)


@pytest.mark.parametrize(
    ("protocol", "name"),
    [(Protocol(views="ten"), "ten 9"), (Protocol(views="dense", scales=(8, 12)), "dense 8,12")],
    ids=["ten", "dense"],
)
def test_other_views_score_every_image(run, other, protocol, name):
    for each in (run, other):  # without mirrored images and with them
        result = evaluate_runs([each], protocol)
        assert (result["views"], result["images"]) == (name, 359)
        assert 0 <= result["top1_error"] < 1


def test_dense_at_the_networks_own_size_is_the_centre(run):
    centre, dense = scored(run, Protocol()), scored(run, Protocol(views="dense", scales=(8,)))
    np.testing.assert_allclose(dense.scores, centre.scores, atol=1e-5)


def test_scales_are_those_of_the_paper_in_proportion():
    assert Protocol(views="ten").for_shape((224, 224, 3)).name == "ten 256"
    assert Protocol(views="dense").for_shape((224, 224, 3)).name == "dense 256,384,480"
    assert Protocol(views="dense").for_shape((32, 32, 3)).name == "dense 37,55,69"


def test_runs_of_other_classes_are_refused(run, tmp_path, small_config):
    classes = tmp_path / "photos"
    rng = np.random.default_rng(0)
    from PIL import Image

    for split in ("train", "test"):
        for name in ("a", "b"):
            (classes / split / name).mkdir(parents=True)
            Image.fromarray(rng.integers(0, 255, (8, 8, 3), "uint8")).save(classes / split / name / "1.png")
    config = dataclasses.replace(
        small_config, dataset="image_folder", data_dir=str(classes), image_size=8, batch_size=2, steps=3
    )
    fit(config, tmp_path / "run")
    with pytest.raises(InputError, match="were not trained on the same set"):
        evaluate_runs([run, Run(tmp_path / "run")], Protocol())


@pytest.mark.parametrize(
    ("protocol", "message"),
    [
        (Protocol(views="ten", scales=(7,)), "scale 7 is below what the network sees, 8 pixels"),
        (Protocol(scales=(9,)), "scales are for ten and dense views"),
        (Protocol(split="nope"), "digits has no split 'nope'"),
    ],
)
def test_what_does_not_fit_is_named(run, protocol, message):
    with pytest.raises(InputError, match=message):
        evaluate_runs([run], protocol)


def test_data_that_is_not_there_is_named(run):
    with pytest.raises(InputError, match="'/nowhere', which is no folder"):
        evaluate_runs([run], Protocol(), data_dir="/nowhere")


def test_two_devices_give_the_figures_of_one(run):
    expected, found = (evaluate_runs([run], Protocol(), devices=each) for each in ("CPU:0", "CPU:0,CPU:1"))
    assert found.pop("loss") == pytest.approx(expected.pop("loss"), abs=1e-6)
    assert found.pop("calibration_error") == pytest.approx(expected.pop("calibration_error"), abs=1e-6)
    assert (found.pop("calibration_bins"), expected.pop("calibration_bins")) != (None, None)
    assert found == expected


def test_best_checkpoint_is_evaluated_where_it_is_asked_for(run, other, tmp_path):
    shutil.copytree(run.folder, tmp_path / "run")
    copy = Run(tmp_path / "run")
    (copy.checkpoints / "best.npz").unlink()
    with pytest.raises(InputError, match="holds no best checkpoint: `fit` saves one when it evaluates; take the last"):
        evaluate_runs([copy], Protocol(), checkpoint="best")
    shutil.copy(other.checkpoints / "4.npz", copy.checkpoints / "best.npz")
    best, last = (evaluate_runs([copy], Protocol(), checkpoint=each) for each in ("best", "last"))
    assert (best["checkpoint"], best["steps"], last["checkpoint"], last["steps"]) == ("best", [4], "last", [6])
    (copy.checkpoints / "6.npz").unlink()
    shutil.copy(other.checkpoints / "4.npz", copy.checkpoints)
    assert best["loss"] == evaluate_runs([copy], Protocol())["loss"] != last["loss"]


def test_run_that_never_saved_is_named(tmp_path):
    with pytest.raises(InputError, match="holds no run"):
        evaluate_runs([Run(tmp_path)], Protocol())


def test_result_is_json_and_text(run, tmp_path):
    result = evaluate_runs([run], Protocol())
    write(result, tmp_path / "deep" / "result.json")
    assert json.loads((tmp_path / "deep" / "result.json").read_text())["top1_error"] == result["top1_error"]
    lines = describe(result).splitlines()
    assert lines[0] == "digits test: 359 images, centre"
    assert lines[1] == f"top-1 error {result['top1_error']:.2%}, top-5 error {result['top5_error']:.2%}"
    assert lines[4].split() == ["class", "images", "precision,", "%", "recall,", "%", "F1,", "%"]
    figures = [f"{100 * result[name]:.3g}" for name in ("precision", "recall", "f1")]
    assert lines[5].split() == ["all,", "mean", "359", *figures]
    assert len(lines) == 6 + 10
    with pytest.raises(InputError, match="cannot be written: File exists; name another --json"):
        write(result, tmp_path / "deep" / "result.json" / "file")


def test_imagenet_stands_beside_the_paper(run):
    result = evaluate_runs([run], Protocol()) | {"dataset": "imagenet2012"}
    line = next(line for line in describe(result).splitlines() if line.startswith("C, prelu, dense"))
    assert line.split() == ["C,", "prelu,", "dense", "256,384,480", "21.59", "5.71", "He", "et", "al.", "2015"]
