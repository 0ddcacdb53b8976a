"""A dry run tells what a run takes, and leaves nothing."""

import re

import pytest

from training.__main__ import main

DIGITS = ["fit", "--config", "digits", "--filters", "4", "--convolutions", "1", "--cpu_devices", "1", "--dry_run"]


def run(capsys, tmp_path, *words):
    assert main([*DIGITS, "--workdir", str(tmp_path / "run"), *words]) == 0
    assert not (tmp_path / "run").exists()
    return capsys.readouterr().out


def test_config_is_resolved_and_what_differs_is_marked(capsys, tmp_path):
    shown = run(capsys, tmp_path, "--epochs", "10", "--evaluate_every", "0")
    fields = dict(re.findall(r"^[* ]  (\w+) +(\S+)$", shown, re.MULTILINE))
    assert (fields["steps"], fields["evaluate_every"], fields["filters"]) == ("120", "12", "4")
    assert re.search(r"^\*  filters ", shown, re.MULTILINE)
    assert re.search(r"^   seed ", shown, re.MULTILINE)
    assert re.search(r"^steps per epoch +12 of 128 images$", shown, re.MULTILINE)
    assert re.search(r"^steps +120, 10 epochs$", shown, re.MULTILINE)
    assert re.search(r"^images per epoch +1,438 of 10 classes$", shown, re.MULTILINE)


@pytest.mark.parametrize("accumulation", [1, 4])
def test_memory_is_that_of_weights_and_activations(capsys, tmp_path, accumulation):
    shown = run(
        capsys, tmp_path, *("--filters", "1024", "--gradient_accumulation_steps", str(accumulation), "--ema_decay=0.9")
    )
    sizes = {name: float(size) for name, size in re.findall(r"^(.+?) {2,}([\d.]+) MiB$", shown, re.MULTILINE)}
    # a convolution, its slopes and a dense layer; the statistics of the optimizer are the velocity and two counters
    parameters = 1024 * (9 + 1 + 1 + 10) + 10
    assert sizes["weights"] == pytest.approx(parameters * 4 / 2**20, abs=0.1)
    assert sizes["gradients"] == sizes["optimizer"] == sizes["moving average"] == sizes["weights"]
    images = 128 // accumulation
    # in 0..1, convolution, slopes, mean of each channel, scores
    numbers = images * (64 + 2 * 64 * 1024 + 1024 + 10)
    assert sizes[f"activations of {images} images"] == pytest.approx(numbers * 4 / 2**20, rel=0.02)
    assert sizes["together"] == pytest.approx(sum(sizes.values()) - sizes["together"], abs=0.3)
