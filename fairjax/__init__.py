"""Fairness in healthcare AI as composable, compiled gradient reconciliation."""

from importlib.metadata import version

from fairjax import losses, modulation, solvers, steps, training
from fairjax.gramian import combine, gramian
from fairjax.groups import Partition, partition
from fairjax.jacobian import value_and_jacobian
from fairjax.methods import (
    PCGRAD_VARIANTS,
    GradDropState,
    aligned_mtl,
    cagrad,
    config,
    dualproj,
    dwa,
    equal_norms,
    fairgrad,
    fairgrad_alpha,
    famo,
    graddrop,
    gradnorm,
    gradvac,
    group_dro,
    imtl_g,
    mgda,
    nash_mtl,
    pcgrad,
    positive_sum,
    random_weighting,
    scalarize,
    uncertainty_weighting,
    upgrad,
)
from fairjax.objectives import (
    CellFunction,
    CellObjectives,
    RunningMeans,
    cell_objectives,
    stack_objectives,
)
from fairjax.reconcile import ReconcileState, reconcile
from fairjax.types import Step
from fairjax.wrappers import AccumulateState, accumulate, per_label, per_objective

__version__ = version("fairjax")

__all__ = [
    "PCGRAD_VARIANTS",
    "AccumulateState",
    "CellFunction",
    "CellObjectives",
    "GradDropState",
    "Partition",
    "ReconcileState",
    "RunningMeans",
    "Step",
    "accumulate",
    "aligned_mtl",
    "cagrad",
    "cell_objectives",
    "combine",
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
    "gramian",
    "group_dro",
    "imtl_g",
    "losses",
    "mgda",
    "modulation",
    "nash_mtl",
    "partition",
    "pcgrad",
    "per_label",
    "per_objective",
    "positive_sum",
    "random_weighting",
    "reconcile",
    "scalarize",
    "solvers",
    "stack_objectives",
    "steps",
    "training",
    "uncertainty_weighting",
    "upgrad",
    "value_and_jacobian",
]
