"""CIFAR-10 in eleven epochs, with learnt slopes and batch normalization. `tfds build cifar10` prepares it.

Two CPU cores: 33 minutes of CPU time. Reached 7.83 % error on the 10,000 test images, where nine plain convolutions
reached 13.5 % in 15 epochs and 64 minutes; docs/results/README.md has what was tried. bfloat16 is fast where
the processor multiplies matrices of it (AMX), as this one did; elsewhere compare `--precision float32`.

keras-prelu fit cifar10
"""

from training.config import Config

config = Config(
    dataset="cifar10",
    network="keras_prelu.networks.normalized:normalized_network",
    filters=(64, 256, 256),
    precision="mixed_bfloat16",
    steps=2_156,
    batch_size=256,
    learning_rate=0.4,
    warmup_steps=300,
    nesterov=True,
    weight_decay=6e-4,
    label_smoothing=0.2,
    crop_padding=2,
    flip=True,
    evaluate_every=196,
)
