"""A folder of your own photos: <data_dir>/train/<class>/*.jpg and <data_dir>/val/<class>/*.jpg.

Two CPU cores: 110 images/s, 20 minutes. 5 kinds of flowers, 2,935 photos: 21.6 % error on 731 others.

keras-prelu fit image_folder --data_dir ~/photos --workdir runs/photos
"""

from training.config import Config

config = Config(
    dataset="image_folder",
    test_split="val",
    image_size=64,
    filters=(32, 64, 128, 256),
    steps=2_000,
    batch_size=64,
    learning_rate=0.02,
    crop_padding=8,
    flip=True,
)
