"""CIFAR-100 with the network of cifar10, for twice as many epochs. `tfds build cifar100` prepares it.

Not trained yet: a step costs as much as one of cifar10.

keras-prelu fit cifar100
"""

from training.config import Config

config = Config(
    dataset="cifar100",
    network="keras_prelu.networks.normalized:normalized_network",
    filters=(64, 256, 256),
    precision="mixed_bfloat16",
    steps=4_312,
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
