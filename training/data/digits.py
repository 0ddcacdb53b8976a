"""The handwritten digits that scikit-learn ships, as a tensorflow-datasets set."""

from typing import Any

import numpy as np
import tensorflow_datasets as tfds


class Digits(tfds.core.GeneratorBasedBuilder):
    """The 1,797 handwritten digits that scikit-learn ships, so that nothing is downloaded: 8x8 pixels, ten classes.

    Every fifth image in scikit-learn's order is in the test split, so that both splits have digits of all writers.
    Pixels are its counts 0..16 scaled to 0..255.
    """

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> Any:
        return self.dataset_info_from_configs(
            description="Optical recognition of handwritten digits, as scikit-learn ships them.",
            homepage="https://archive.ics.uci.edu/dataset/80/optical+recognition+of+handwritten+digits",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(8, 8, 1)),
                    "label": tfds.features.ClassLabel(num_classes=10),
                }
            ),
            supervised_keys=("image", "label"),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        from sklearn.datasets import load_digits

        digits = load_digits()
        images = np.round(digits.images[..., None] * (255 / 16)).astype(np.uint8)
        is_test = np.arange(len(images)) % 5 == 4
        return {
            "train": self._generate_examples(images[~is_test], digits.target[~is_test]),
            "test": self._generate_examples(images[is_test], digits.target[is_test]),
        }

    def _generate_examples(self, images: Any, labels: Any) -> Any:
        for index, (image, label) in enumerate(zip(images, labels, strict=True)):
            yield index, {"image": image, "label": int(label)}
