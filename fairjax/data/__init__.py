"""Data for models: imaging data sets, batches by length, and prefetching.

The data sets need the extra ``data`` (``pip install 'fairjax[data]'``) and are imported
at first use. The modules :mod:`fairjax.data.buckets` and :mod:`fairjax.data.prefetch`
need no extra.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fairjax.data.coding import Coding
    from fairjax.data.decoding import decode
    from fairjax.data.fairvision import FairVision, FairVisionConfig
    from fairjax.data.fairvlmed import FairVLMed, FairVLMedConfig

_HOMES = {
    "Coding": "coding",
    "FairVLMed": "fairvlmed",
    "FairVLMedConfig": "fairvlmed",
    "FairVision": "fairvision",
    "FairVisionConfig": "fairvision",
    "decode": "decoding",
}

__all__ = [
    "Coding",
    "FairVLMed",
    "FairVLMedConfig",
    "FairVision",
    "FairVisionConfig",
    "decode",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
