r"""Coefficient steps, from which reconcilers are made.

A step does not read the gradients themselves. The step reads and returns a matrix
:math:`C` [R, K]: each row holds the coefficients of one combination of the K gradients.
At first :math:`C` is the identity. A step maps :math:`C \to C'`; the Gram matrix of the
combined rows is :math:`C G C^\top`. :func:`fairjax.reconcile` chains steps.
"""

from fairjax.reconcilers._orders import Order
from fairjax.reconcilers.bargaining import fairgrad_alpha_step as fairgrad_alpha
from fairjax.reconcilers.bargaining import nash_mtl_step as nash_mtl
from fairjax.reconcilers.cones import dualproj_step as dualproj
from fairjax.reconcilers.cones import pcd_step as pcd
from fairjax.reconcilers.cones import positive_sum_step as positive_sum
from fairjax.reconcilers.cones import upgrad_step as upgrad
from fairjax.reconcilers.geometry import aligned_mtl_step as aligned_mtl
from fairjax.reconcilers.geometry import config_step as config
from fairjax.reconcilers.geometry import conflict_free_step as conflict_free
from fairjax.reconcilers.geometry import imtl_g_step as imtl_g
from fairjax.reconcilers.hulls import cagrad_step as cagrad
from fairjax.reconcilers.hulls import mgda_step as mgda
from fairjax.reconcilers.hulls import modo_step as modo
from fairjax.reconcilers.hulls import sdmgrad_step as sdmgrad
from fairjax.reconcilers.levels import by_level
from fairjax.reconcilers.projection import gradvac_step as gradvac
from fairjax.reconcilers.projection import project_conflicts
from fairjax.reconcilers.weights import balance_magnitudes, combine, cr_mogm
from fairjax.reconcilers.weights import dwa_step as dwa
from fairjax.reconcilers.weights import famo_step as famo
from fairjax.reconcilers.weights import geometric_mean_step as geometric_mean
from fairjax.reconcilers.weights import gradnorm_step as gradnorm
from fairjax.reconcilers.weights import group_dro_step as group_dro
from fairjax.reconcilers.weights import imtl_l_step as imtl_l
from fairjax.reconcilers.weights import random_weighting_step as random_weighting
from fairjax.reconcilers.weights import stch_step as stch
from fairjax.reconcilers.weights import (
    uncertainty_weighting_step as uncertainty_weighting,
)

__all__ = [
    "Order",
    "aligned_mtl",
    "balance_magnitudes",
    "by_level",
    "cagrad",
    "combine",
    "config",
    "conflict_free",
    "cr_mogm",
    "dualproj",
    "dwa",
    "fairgrad_alpha",
    "famo",
    "geometric_mean",
    "gradnorm",
    "gradvac",
    "group_dro",
    "imtl_g",
    "imtl_l",
    "mgda",
    "modo",
    "nash_mtl",
    "pcd",
    "positive_sum",
    "project_conflicts",
    "random_weighting",
    "sdmgrad",
    "stch",
    "uncertainty_weighting",
    "upgrad",
]
