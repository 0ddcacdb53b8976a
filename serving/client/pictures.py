"""Pictures -> what a model takes them as: encoded bytes, or pixels."""

import io
import os
import pathlib
import sys
from typing import Any, TypeGuard

import numpy as np


def is_picture(value: object) -> bool:
    """Whether a value is a file, its bytes, or a picture of Pillow's."""
    return isinstance(value, os.PathLike | bytes) or _is_pillow(value)


def encoded(value: Any) -> bytes:
    """The bytes of a file, as they are; a picture of Pillow's becomes a PNG.

    Raises:
        OSError: The file cannot be read.
    """
    if _is_pillow(value):
        buffer = io.BytesIO()
        value.save(buffer, "PNG")
        return buffer.getvalue()
    return value if isinstance(value, bytes) else pathlib.Path(value).read_bytes()


def pixels(value: Any, channels: int | None) -> np.ndarray:
    """uint8 [height, width, channels] of a picture, grey where there is to be one channel, else RGB; at its own size.

    Raises:
        OSError: The file cannot be read, or is no picture.
    """
    from PIL import Image

    opened = value if _is_pillow(value) else Image.open(io.BytesIO(encoded(value)))
    values = np.asarray(opened.convert("L" if channels == 1 else "RGB"))
    return values[..., np.newaxis] if channels == 1 else values


def _is_pillow(value: object) -> TypeGuard[Any]:
    module = sys.modules.get("PIL.Image")  # whoever has a picture has imported it
    return module is not None and isinstance(value, module.Image)
