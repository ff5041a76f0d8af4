"""Published methods, each as one optax transformation made of steps."""

from fairjax.reconcilers.bargaining import fairgrad_alpha, nash_mtl
from fairjax.reconcilers.cones import dualproj, pcd, positive_sum, upgrad
from fairjax.reconcilers.dropping import GradDropState, graddrop
from fairjax.reconcilers.geometry import aligned_mtl, config, conflict_free, imtl_g
from fairjax.reconcilers.hulls import cagrad, mgda, modo, sdmgrad
from fairjax.reconcilers.projection import PCGRAD_VARIANTS, fairgrad, gradvac, pcgrad
from fairjax.reconcilers.weights import (
    dwa,
    equal_norms,
    famo,
    geometric_mean,
    gradnorm,
    group_dro,
    imtl_l,
    random_weighting,
    scalarize,
    stch,
    uncertainty_weighting,
)

__all__ = [
    "PCGRAD_VARIANTS",
    "GradDropState",
    "aligned_mtl",
    "cagrad",
    "config",
    "conflict_free",
    "dualproj",
    "dwa",
    "equal_norms",
    "fairgrad",
    "fairgrad_alpha",
    "famo",
    "geometric_mean",
    "graddrop",
    "gradnorm",
    "gradvac",
    "group_dro",
    "imtl_g",
    "imtl_l",
    "mgda",
    "modo",
    "nash_mtl",
    "pcd",
    "pcgrad",
    "positive_sum",
    "random_weighting",
    "scalarize",
    "sdmgrad",
    "stch",
    "uncertainty_weighting",
    "upgrad",
]
