"""The paper's networks on ImageNet, with a slope per channel, by the paper's recipe.

| config | network | top-1 and top-5 error of the paper, ten views | dense views at several scales |
|---|---|---|---|
| imagenet_14layer | 14 layers, at one scale (section 2.1) | 32.64, 12.75 % (ReLU: 33.82, 13.34 %) | |
| imagenet_a | A: 19 layers | 25.59, 8.23 % | 22.97, 6.28 % |
| imagenet_b | B: 22 layers | 25.53, 8.13 % | 22.85, 6.27 % |
| imagenet_c | C: 22 wider layers | 24.27, 7.38 % | 21.59, 5.71 % |

imagenet_a_fast and imagenet_c_fast take the same steps in bfloat16 and without determinism. None of them was trained by
this project; docs/results/imagenet.md projects what they take.

keras-prelu fit imagenet_c
"""

from dataclasses import replace
from typing import Any

from training.config import Config

_A = Config(
    dataset="imagenet2012",
    test_split="validation",
    image_size=224,
    network="A",
    subtract_mean=True,
    scale_min=256,
    scale_max=512,
    test_scale=256,
    flip=True,
    pca_colour=0.1,
    dropout=0.5,
    batch_size=128,
    epochs=80,
    learning_rate=0.01,
    warmup_steps=0,
    schedule="plateau",
    momentum=0.9,
    weight_decay=5e-4,
    evaluate_every=0,
    checkpoint_every=2_002,
    log_every=100,
)
_C = replace(_A, network="C")
_FAST: dict[str, Any] = {"precision": "mixed_bfloat16", "deterministic": False, "steps_per_execution": 10}

configs = {
    "imagenet_14layer": replace(_A, network="14-layer", scale_max=256, epochs=75),
    "imagenet_a": _A,
    "imagenet_b": replace(_A, network="B"),
    "imagenet_c": _C,
    "imagenet_a_fast": replace(_A, **_FAST),
    "imagenet_c_fast": replace(_C, **_FAST),
}
