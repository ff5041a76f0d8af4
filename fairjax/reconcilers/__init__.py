"""Reconcilers. Each module holds the solvers, steps and methods of one kind.

This package exports the functions that make a custom reconciler. :func:`weighting`,
:func:`solving` or :func:`make_step` makes a step; :func:`transformation` makes a method
of the step.
"""

from fairjax.reconcilers.core import make_step, solving, transformation, weighting

__all__ = ["make_step", "solving", "transformation", "weighting"]
