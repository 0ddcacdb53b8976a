"""The studies by name: what the paper claims, and the trials that measure it here."""

from training.reproduce import cost, decay, depth, imagenet, init, rectifiers, signals, slopes, views
from training.reproduce.study import Study

STUDIES: dict[str, Study] = {
    "init": init.STUDY,
    "rectifiers": rectifiers.STUDY,
    "slopes": slopes.STUDY,
    "decay": decay.STUDY,
    "views": views.STUDY,
    "depth": depth.STUDY,
    "signals": signals.STUDY,
    "cost": cost.STUDY,
    "imagenet": imagenet.STUDY,
}
