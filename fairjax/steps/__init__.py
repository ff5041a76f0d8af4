r"""Coefficient steps: the algebra of reconciliation.

A reconciler never needs the gradients themselves, only which combination of them each
current row is: a matrix :math:`C` [R, K], at first the identity. A step maps
:math:`C \to C'`; the rows' own Gram matrix is :math:`C G C^\top`. Steps chain in
:func:`fairjax.reconcile`.
"""

from fairjax.steps._orders import Order
from fairjax.steps.alignment import aligned_mtl, config, imtl_g
from fairjax.steps.bargaining import fairgrad_alpha, nash_mtl
from fairjax.steps.dual_cone import dualproj, upgrad
from fairjax.steps.learned import famo, gradnorm, uncertainty_weighting
from fairjax.steps.levels import by_level
from fairjax.steps.magnitude import balance_magnitudes
from fairjax.steps.positive_sum import positive_sum
from fairjax.steps.projection import project_conflicts
from fairjax.steps.reduction import combine
from fairjax.steps.simplex import cagrad, mgda
from fairjax.steps.vaccine import gradvac
from fairjax.steps.weighting import dwa, group_dro, random_weighting

__all__ = [
    "Order",
    "aligned_mtl",
    "balance_magnitudes",
    "by_level",
    "cagrad",
    "combine",
    "config",
    "dualproj",
    "dwa",
    "fairgrad_alpha",
    "famo",
    "gradnorm",
    "gradvac",
    "group_dro",
    "imtl_g",
    "mgda",
    "nash_mtl",
    "positive_sum",
    "project_conflicts",
    "random_weighting",
    "uncertainty_weighting",
    "upgrad",
]
