"""Errors that others have published, to be seen beside a run's own."""

from typing import NamedTuple


class Published(NamedTuple):
    """A network's top-1 error on a set's test images in percent, its top-5 error where it is told, and who tells."""

    name: str
    error: float
    source: str
    top5: float | None = None


_PAPER = "He et al. 2015"
_ALL_CNN = "Springenberg et al. 2015, table 3, with augmentation"
_FASHION = "zalandoresearch/fashion-mnist, benchmark"

# On the validation images of ImageNet 2012: tables 2, 4, 5 and 6 of "Delving Deep into Rectifiers", by the network, its
# rectifier and how the images were shown.
_IMAGENET = {
    ("14-layer", "relu", "ten"): (33.82, 13.34),
    ("14-layer", "prelu_shared", "ten"): (32.71, 12.87),
    ("14-layer", "prelu", "ten"): (32.64, 12.75),
    ("A", "relu", "ten"): (26.48, 8.59),
    ("A", "prelu", "ten"): (25.59, 8.23),
    ("B", "prelu", "ten"): (25.53, 8.13),
    ("C", "prelu", "ten"): (24.27, 7.38),
    ("A", "relu", "dense 256"): (26.25, 8.25),
    ("A", "prelu", "dense 256"): (25.81, 8.08),
    ("A", "relu", "dense 384"): (24.77, 7.26),
    ("A", "prelu", "dense 384"): (24.20, 7.03),
    ("A", "relu", "dense 480"): (25.46, 7.63),
    ("A", "prelu", "dense 480"): (24.83, 7.39),
    ("A", "relu", "dense 256,384,480"): (24.02, 6.51),
    ("A", "prelu", "dense 256,384,480"): (22.97, 6.28),
    ("B", "prelu", "dense 256,384,480"): (22.85, 6.27),
    ("C", "prelu", "dense 256,384,480"): (21.59, 5.71),
}

_OTHERS = {
    "cifar10": (
        Published("All-CNN-C", 7.25, _ALL_CNN),
        Published("Network in Network", 8.81, _ALL_CNN),
        Published("Maxout", 9.38, _ALL_CNN),
    ),
    "cifar100": (
        Published("All-CNN-C", 33.71, _ALL_CNN),
        Published("Network in Network", 35.68, _ALL_CNN),
        Published("Maxout", 38.57, _ALL_CNN),
    ),
    "fashion_mnist": (
        Published("2 convolutions and pooling", 8.4, _FASHION),
        Published("ResNet-18", 5.1, _FASHION),
    ),
}


def published_errors(dataset: str) -> list[Published]:
    """What is known of a tensorflow-datasets set, best first; empty where nothing is."""
    if not dataset.startswith("imagenet2012"):
        return sorted(_OTHERS.get(dataset, ()), key=lambda each: each.error)
    rows = [
        Published(f"{network}, {rectifier}, {views}", top1, _PAPER, top5)
        for (network, rectifier, views), (top1, top5) in _IMAGENET.items()
    ]
    return sorted(rows, key=lambda each: each.error)
