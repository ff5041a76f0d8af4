"""Conversion of a record of the imaging data sets to arrays for a model."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from fairjax._extra import extra
from fairjax.types import check_whole

with extra("data", needed_by="reading the imaging data sets"):
    from PIL import Image


def decode(record: Mapping[str, Any], image_size: int) -> dict[str, Any]:
    """Resizes and standardises a record's images, and makes arrays of other values.

    An image ``x`` becomes ``(x − mean(x)) / sd(x)``. Each slice of a volume is
    standardised by its own mean and standard deviation. A constant slice, as of an
    absent modality, becomes 0. Resizing is bilinear; where an image shrinks, all pixels
    that fall on a pixel of the result contribute.

    Args:
      record: One record of ``FairVision`` or ``FairVLMed``: ``image`` uint8
        ``[H, W, 1]``, ``volume`` uint8 ``[N, h, w, 1]``, and numbers.
      image_size: Side ``S`` of the result in pixels.

    Returns:
      The record with ``image`` float32 ``[S, S, 1]``, ``volume`` float32
      ``[N, S, S, 1]``, ``age`` float32, ``label`` and ``attributes`` int32, ``present``
      bool; texts stay texts.

    Raises:
      ValueError: If ``image_size`` is not an integer of 1 or more.

    Example:
      >>> import numpy as np
      >>> from fairjax.data import decode
      >>> image = np.arange(16, dtype=np.uint8).reshape(4, 4, 1)
      >>> record = decode({"image": image, "label": 1}, 2)
      >>> record["image"][..., 0].round(2), record["label"]
      (array([[-1.21, -0.73],
             [ 0.73,  1.21]], dtype=float32), array(1, dtype=int32))
    """
    check_whole("image_size", image_size)
    decoded = {name: _numbers(value) for name, value in record.items()}
    if "image" in record:
        decoded["image"] = _standardized(record["image"], image_size)
    if "volume" in record:
        slices = [_standardized(one, image_size) for one in record["volume"]]
        decoded["volume"] = np.stack(slices)
    return decoded


def _standardized(image: Any, size: int) -> Float[np.ndarray, "size size 1"]:
    plane = Image.fromarray(np.asarray(image)[..., 0].astype(np.float32))
    plane = plane.resize((size, size), Image.Resampling.BILINEAR)
    pixels = np.asarray(plane, np.float64)
    deviation = pixels.std()
    centred = pixels - pixels.mean()
    # The deviation of a constant image is rounding error.
    scaled = centred / deviation if deviation > 1e-6 else np.zeros_like(pixels)
    return scaled.astype(np.float32)[..., None]


def _numbers(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _numbers(inner) for name, inner in value.items()}
    if isinstance(value, bytes):
        return value.decode("utf-8")
    if isinstance(value, str):
        return value
    array = np.asarray(value)
    kinds = {"i": np.int32, "u": np.int32, "f": np.float32}
    return array.astype(kinds.get(array.dtype.kind, array.dtype))
