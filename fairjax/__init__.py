"""Fairness in healthcare AI as composable, compiled gradient reconciliation."""

from importlib.metadata import version

from fairjax import losses, methods, modulation, reconciled, solvers, steps, training
from fairjax.gram import combine, gramian
from fairjax.groups import Partition, partition
from fairjax.jacobian import value_and_jacobian
from fairjax.methods import *  # noqa: F403
from fairjax.objectives import (
    CellFunction,
    CellObjectives,
    OutputObjectives,
    RunningMeans,
    cell_objectives,
    output_objectives,
    stack_objectives,
)
from fairjax.reconciled import reconciled_value_and_grad
from fairjax.reconcilers.core import ReconcileState, Step, reconcile
from fairjax.reconcilers.wrappers import (
    AccumulateState,
    accumulate,
    per_label,
    per_objective,
)

__version__ = version("fairjax")

__all__ = [
    "AccumulateState",
    "CellFunction",
    "CellObjectives",
    "OutputObjectives",
    "Partition",
    "ReconcileState",
    "RunningMeans",
    "Step",
    "accumulate",
    "cell_objectives",
    "combine",
    "gramian",
    "losses",
    "modulation",
    "output_objectives",
    "partition",
    "per_label",
    "per_objective",
    "reconcile",
    "reconciled",
    "reconciled_value_and_grad",
    "solvers",
    "stack_objectives",
    "steps",
    "training",
    "value_and_jacobian",
]
__all__ += methods.__all__
