"""Fairness in healthcare AI as composable, compiled gradient reconciliation."""

from importlib.metadata import version

from fairjax import losses, solvers, steps, training
from fairjax.gramian import combine, gramian
from fairjax.groups import Partition, partition
from fairjax.jacobian import value_and_jacobian
from fairjax.objectives import (
    CellFunction,
    CellObjectives,
    RunningMeans,
    cell_objectives,
    stack_objectives,
)
from fairjax.reconcile import (
    ReconcileState,
    fairgrad,
    pcgrad,
    per_objective,
    reconcile,
)
from fairjax.types import Step

__version__ = version("fairjax")

__all__ = [
    "CellFunction",
    "CellObjectives",
    "Partition",
    "ReconcileState",
    "RunningMeans",
    "Step",
    "cell_objectives",
    "combine",
    "fairgrad",
    "gramian",
    "losses",
    "partition",
    "pcgrad",
    "per_objective",
    "reconcile",
    "solvers",
    "stack_objectives",
    "steps",
    "training",
    "value_and_jacobian",
]
