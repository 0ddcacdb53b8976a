"""The paper's model A on ImageNet: 19 layers, slopes per channel.

The paper reaches 22.97 % top-1 and 6.28 % top-5 error, densely over several scales; 25.59 and 8.23 % with ten views.
Projected by `python -m benchmarks.projection`, not measured: 11 hours on 8 GPUs.

python -m training fit --config imagenet_a --data_dir ~/tensorflow_datasets --workdir runs/imagenet_a
"""

from training.config import Config

config = Config(
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
    shuffle_buffer=100_000,  # of 110 KB each: 11 GB of memory, 8 % of an epoch
    steps=800_800,  # 80 epochs of 1,281,167 images
    learning_rate=0.01,
    warmup_steps=0,
    schedule="plateau",
    momentum=0.9,
    weight_decay=5e-4,
    evaluate_every=10_010,
    checkpoint_every=2_002,
    log_every=100,
)
