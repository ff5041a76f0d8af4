"""Mitigation before, in and after training, for scikit-learn and for JAX.

The estimators need the extra ``mitigation`` (``pip install 'fairjax[mitigation]'``) and
are imported when they are first used; :mod:`fairjax.mitigation.quantile_repair` needs
nothing more than fairjax does.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fairjax.mitigation.disparate_impact import DisparateImpactRemover

_HOMES = {"DisparateImpactRemover": "disparate_impact"}

__all__ = ["DisparateImpactRemover"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
