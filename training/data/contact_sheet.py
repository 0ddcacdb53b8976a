"""Training images side by side, as the network will see them."""

import math
import pathlib

import numpy as np
from PIL import Image, ImageDraw

from training.errors import InputError

_COLUMNS = 8
_LEAST_SIDE = 64  # pixels; smaller images are enlarged by whole numbers
_CAPTION = 14  # pixels
_GAP = 4
_BACKGROUND = "white"


def write_sheet(path: pathlib.Path, images: np.ndarray, captions: list[str]) -> None:
    """Writes images and what stands below each as one picture, in the format that the path's ending tells.

    Args:
        path: A file, replaced if it is there.
        images: `(number, height, width, channels)`, values 0..255; what lies beyond is cut off.
        captions: One for each, cut where it is longer than its image.

    Raises:
        InputError: The file cannot be written.
    """
    try:
        _sheet(images, captions).save(path)
    except (OSError, ValueError) as error:  # ValueError: an ending that Pillow does not know
        raise InputError(f"{path} cannot be written: {getattr(error, 'strerror', None) or error}") from None


def _sheet(images: np.ndarray, captions: list[str]) -> Image.Image:
    factor = max(1, math.ceil(_LEAST_SIDE / min(images.shape[1:3])))
    height, width = images.shape[1] * factor, images.shape[2] * factor
    columns = min(_COLUMNS, len(images))
    rows = math.ceil(len(images) / columns)
    size = (columns * (width + _GAP) + _GAP, rows * (height + _CAPTION + _GAP) + _GAP)
    sheet = Image.new("RGB", size, _BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    for index, (pixels, caption) in enumerate(zip(images, captions, strict=True)):
        left = _GAP + index % columns * (width + _GAP)
        top = _GAP + index // columns * (height + _CAPTION + _GAP)
        sheet.paste(_picture(pixels).resize((width, height), Image.Resampling.NEAREST), (left, top))
        draw.text((left, top + height), _shortened(draw, caption, width), fill="black")
    return sheet


def _picture(pixels: np.ndarray) -> Image.Image:
    values = np.clip(np.round(pixels), 0, 255).astype(np.uint8)
    return Image.fromarray(values.squeeze(-1) if values.shape[-1] == 1 else values).convert("RGB")


def _shortened(draw: ImageDraw.ImageDraw, text: str, width: int) -> str:
    while text and draw.textlength(text) > width:
        text = text[:-1]
    return text
