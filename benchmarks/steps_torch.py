"""The same steps in PyTorch."""

import numpy as np
import torch

from benchmarks.interleaved import Step

RECTIFIERS = {"relu": lambda channels: torch.nn.ReLU(), "prelu": torch.nn.PReLU}


def network_step(rectifier: str) -> Step:
    """One training step of three stages of three 3x3 convolutions with 32, 64 and 128 channels."""
    torch.manual_seed(0)
    layers: list[torch.nn.Module] = []
    before = 3
    for stage, filters in enumerate((32, 64, 128)):
        if stage:
            layers.append(torch.nn.MaxPool2d(2))
        for _ in range(3):
            layers += [torch.nn.Conv2d(before, filters, 3, padding="same"), RECTIFIERS[rectifier](filters)]
            before = filters
    layers += [torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(before, 10)]
    model = torch.nn.Sequential(*layers).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), 1e-3, momentum=0.9)
    rng = np.random.default_rng(0)
    images = torch.tensor(rng.normal(size=(128, 3, 32, 32)).astype("float32"))
    images = images.to(memory_format=torch.channels_last)
    labels = torch.tensor(rng.integers(0, 10, 128))

    def step() -> float:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def layer_step(rectifier: str) -> Step:
    """Forward and backward of the rectifier alone."""
    layer = RECTIFIERS[rectifier](64)
    rng = np.random.default_rng(0)
    x, upstream = (
        torch.tensor(rng.normal(size=(64, 64, 56, 56)).astype("float32")).to(memory_format=torch.channels_last)
        for _ in range(2)
    )
    x.requires_grad_()

    def step() -> None:
        torch.autograd.grad(layer(x), [x, *layer.parameters()], upstream)

    return step
