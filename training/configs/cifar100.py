"""CIFAR-100 with learnt slopes: the network of cifar10, twice as wide. `tfds build cifar100` prepares it.

Not trained yet: a step costs four times as much as one of cifar10.

python -m training fit --config cifar100 --workdir runs/cifar100
"""

from training.config import Config

config = Config(
    dataset="cifar100",
    filters=(64, 128, 256),
    convolutions=3,
    steps=11_730,
    learning_rate=0.05,
    warmup_steps=400,
    weight_decay=5e-4,
    dropout=0.3,
    crop_padding=4,
    flip=True,
    evaluate_every=391,
    shuffle_buffer=50_000,
)
