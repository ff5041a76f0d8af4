"""Each published method as one optax transformation: its steps, chained and named."""

from fairjax.methods.bargaining import fairgrad_alpha, nash_mtl
from fairjax.methods.cones import cagrad, dualproj, mgda, positive_sum, upgrad
from fairjax.methods.dropping import GradDropState, graddrop
from fairjax.methods.geometry import aligned_mtl, config, imtl_g
from fairjax.methods.surgery import PCGRAD_VARIANTS, fairgrad, gradvac, pcgrad
from fairjax.methods.weights import (
    dwa,
    equal_norms,
    famo,
    gradnorm,
    group_dro,
    random_weighting,
    scalarize,
    uncertainty_weighting,
)

__all__ = [
    "PCGRAD_VARIANTS",
    "GradDropState",
    "aligned_mtl",
    "cagrad",
    "config",
    "dualproj",
    "dwa",
    "equal_norms",
    "fairgrad",
    "fairgrad_alpha",
    "famo",
    "graddrop",
    "gradnorm",
    "gradvac",
    "group_dro",
    "imtl_g",
    "mgda",
    "nash_mtl",
    "pcgrad",
    "positive_sum",
    "random_weighting",
    "scalarize",
    "uncertainty_weighting",
    "upgrad",
]
