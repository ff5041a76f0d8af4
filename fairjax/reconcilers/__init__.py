"""Reconcilers, a family a file: each holds its solvers, steps and methods.

Here is what a reconciler of one's own is made of. A step is made by :func:`weighting`,
:func:`solving` or :func:`make_step`; :func:`transformation` makes a method of it.
"""

from fairjax.reconcilers.core import make_step, solving, transformation, weighting

__all__ = ["make_step", "solving", "transformation", "weighting"]
