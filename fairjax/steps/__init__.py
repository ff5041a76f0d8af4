r"""Coefficient steps: the algebra of reconciliation.

A reconciler never needs the gradients themselves, only which combination of them each
current row is: a matrix :math:`C` [R, K], at first the identity. A step maps
:math:`C \to C'`; the rows' own Gram matrix is :math:`C G C^\top`. Steps chain in
:func:`fairjax.reconcile`.
"""

from fairjax.steps.magnitude import balance_magnitudes
from fairjax.steps.projection import Order, project_conflicts
from fairjax.steps.reduction import combine

__all__ = ["Order", "balance_magnitudes", "combine", "project_conflicts"]
