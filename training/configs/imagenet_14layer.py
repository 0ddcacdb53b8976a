"""The paper's 14-layer network on ImageNet, with slopes per channel (section 2.1), trained and tested at one scale.

The paper reaches 32.64 % top-1 and 12.75 % top-5 error with ten views; with ReLU 33.82 and 13.34 %.
Projected by `python -m benchmarks.projection`, not measured: 2 hours on 8 GPUs if 13,500 images per second are decoded.

python -m training fit --config imagenet_14layer --data_dir ~/tensorflow_datasets --workdir runs/imagenet_14layer
"""

from training.config import Config

config = Config(
    dataset="imagenet2012",
    test_split="validation",
    image_size=224,
    network="14-layer",
    subtract_mean=True,
    scale_min=256,
    scale_max=256,
    test_scale=256,
    flip=True,
    pca_colour=0.1,
    dropout=0.5,
    batch_size=128,
    shuffle_buffer=100_000,  # of 110 KB each: 11 GB of memory, 8 % of an epoch
    steps=750_750,  # 75 epochs of 1,281,167 images
    learning_rate=0.01,
    warmup_steps=0,
    schedule="plateau",
    momentum=0.9,
    weight_decay=5e-4,
    evaluate_every=10_010,
    checkpoint_every=2_002,
    log_every=100,
)
