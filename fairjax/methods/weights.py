"""Methods that weigh the objectives: fixed, random, by norms or by losses."""

from typing import Literal

import optax
from jaxtyping import Array

from fairjax import steps
from fairjax.reconcile import reconcile
from fairjax.types import Numbers, Scalar


def scalarize(
    *, num_objectives: int, reduction: Literal["sum", "mean"] | Numbers = "sum"
) -> optax.GradientTransformationExtraArgs:
    """Linear scalarisation: the gradient of a weighted sum of the objectives.

    ``reconcile(steps.combine(reduction))``; see :func:`fairjax.steps.combine`. With
    weights that were chosen on validation data it is the baseline that every other
    method has to beat (Xin et al. 2022). Weights may be traced, so that a grid of
    them trains side by side under ``vmap``. It is cheaper without stacked gradients;
    here it is a method among others, with the same diagnostics.

    References:
      Xin et al., *Do Current Multi-Task Optimization Methods in Deep Learning Even
      Help?*, NeurIPS 2022.

    Example:
      >>> import jax.numpy as jnp, fairjax
      >>> tx = fairjax.scalarize(num_objectives=2, reduction=[1.0, 0.5])
      >>> rows = jnp.array([[1.0, 0.0], [0.0, 3.0]])
      >>> tx.update(rows, tx.init(jnp.zeros(2)))[0]
      Array([1. , 1.5], dtype=float32)
    """
    return reconcile(steps.combine(reduction), num_objectives=num_objectives)


def equal_norms(
    *,
    num_objectives: int,
    reference: Literal["mean", "min", "max"] | int = "mean",
    strength: Scalar | Numbers = 1.0,
    clamp: tuple[Scalar, Scalar] | None = None,
    reduction: Literal["sum", "mean"] | Numbers = "sum",
) -> optax.GradientTransformationExtraArgs:
    """Gradients scaled to one length, then added up.

    ``reconcile(steps.balance_magnitudes("equal_norms", ...), steps.combine(...))``; for
    the formula, the arguments and the errors see
    :func:`fairjax.steps.balance_magnitudes`.

    Example:
      >>> import jax.numpy as jnp, fairjax
      >>> tx = fairjax.equal_norms(num_objectives=2)
      >>> rows = jnp.array([[1.0, 0.0], [0.0, 3.0]])
      >>> tx.update(rows, tx.init(jnp.zeros(2)))[0]
      Array([2., 2.], dtype=float32)
    """
    balance = steps.balance_magnitudes(
        "equal_norms", reference=reference, strength=strength, clamp=clamp
    )
    return reconcile(balance, steps.combine(reduction), num_objectives=num_objectives)


def gradnorm(
    *, num_objectives: int, alpha: Scalar = 1.5, learning_rate: Scalar = 0.025
) -> optax.GradientTransformationExtraArgs:
    """GradNorm: weights learned so that slow objectives have longer gradients.

    ``reconcile(steps.gradnorm(...))``; for the formula, the arguments and the errors
    see :func:`fairjax.steps.gradnorm`. ``update`` needs ``losses=[K]``.

    References:
      Chen et al., *GradNorm: Gradient Normalization for Adaptive Loss Balancing in Deep
      Multitask Networks*, ICML 2018.

    Example:
      >>> import jax.numpy as jnp, fairjax
      >>> tx = fairjax.gradnorm(num_objectives=2)
      >>> rows = jnp.array([[1.0, 0.0], [0.0, 3.0]])
      >>> tx.update(rows, tx.init(jnp.zeros(2)), losses=jnp.ones(2))[0]
      Array([1., 3.], dtype=float32)
    """
    step = steps.gradnorm(alpha=alpha, learning_rate=learning_rate)
    return reconcile(step, num_objectives=num_objectives)


def random_weighting(
    *, num_objectives: int, key: Array | int = 0
) -> optax.GradientTransformationExtraArgs:
    """Random weights that sum to 1, drawn anew at each update.

    ``reconcile(steps.random_weighting(...))``; see
    :func:`fairjax.steps.random_weighting`.

    References:
      Lin et al., *Reasonable Effectiveness of Random Weighting: A Litmus Test for
      Multi-Task Learning*, TMLR 2022.

    Example:
      >>> import jax.numpy as jnp, fairjax
      >>> tx = fairjax.random_weighting(num_objectives=2)
      >>> rows = jnp.array([[1.0, 0.0], [0.0, 1.0]])
      >>> tx.update(rows, tx.init(jnp.zeros(2)))[0].sum().round(3)
      Array(1., dtype=float32)
    """
    return reconcile(steps.random_weighting(key=key), num_objectives=num_objectives)


def uncertainty_weighting(
    *,
    num_objectives: int,
    learning_rate: Scalar = 0.01,
    likelihood: Literal["regression", "classification"] = "classification",
) -> optax.GradientTransformationExtraArgs:
    """Losses weighed by learned variances (homoscedastic uncertainty).

    ``reconcile(steps.uncertainty_weighting(...))``; for the formula, the arguments and
    the errors see :func:`fairjax.steps.uncertainty_weighting`. ``update`` needs
    ``losses=[K]``.

    References:
      Kendall, Gal and Cipolla, *Multi-Task Learning Using Uncertainty to Weigh Losses
      for Scene Geometry and Semantics*, CVPR 2018.

    Example:
      >>> import jax.numpy as jnp, fairjax
      >>> tx = fairjax.uncertainty_weighting(num_objectives=2)
      >>> rows = jnp.array([[1.0, 0.0], [0.0, 3.0]])
      >>> tx.update(rows, tx.init(jnp.zeros(2)), losses=jnp.ones(2))[0]
      Array([1., 3.], dtype=float32)
    """
    step = steps.uncertainty_weighting(
        learning_rate=learning_rate, likelihood=likelihood
    )
    return reconcile(step, num_objectives=num_objectives)


def famo(
    *,
    num_objectives: int,
    learning_rate: Scalar = 0.025,
    weight_decay: Scalar = 1e-5,
    minimum: Scalar | Numbers = 0.0,
) -> optax.GradientTransformationExtraArgs:
    """FAMO: weights under which all losses fall at one relative rate.

    ``reconcile(steps.famo(...))``; for the formula, the arguments and the errors see
    :func:`fairjax.steps.famo`. ``update`` needs ``losses=[K]``.

    References:
      Liu et al., *FAMO: Fast Adaptive Multitask Optimization*, NeurIPS 2023.

    Example:
      >>> import jax.numpy as jnp, fairjax
      >>> tx = fairjax.famo(num_objectives=2)
      >>> rows = jnp.array([[1.0, 0.0], [0.0, 1.0]])
      >>> tx.update(rows, tx.init(jnp.zeros(2)), losses=jnp.array([1.0, 3.0]))[0]
      Array([0.75, 0.25], dtype=float32)
    """
    step = steps.famo(
        learning_rate=learning_rate, weight_decay=weight_decay, minimum=minimum
    )
    return reconcile(step, num_objectives=num_objectives)


def dwa(
    *, num_objectives: int, every: int = 1, temperature: Scalar = 2.0
) -> optax.GradientTransformationExtraArgs:
    """DWA: objectives weighed by how slowly their losses fall.

    ``reconcile(steps.dwa(...))``; for the formula, the arguments and the errors see
    :func:`fairjax.steps.dwa`. ``update`` needs ``losses=[K]``.

    References:
      Liu, Johns and Davison, *End-to-End Multi-Task Learning with Attention*, CVPR
      2019.

    Example:
      >>> import jax.numpy as jnp, fairjax
      >>> tx = fairjax.dwa(num_objectives=2)
      >>> rows = jnp.array([[1.0, 0.0], [0.0, 3.0]])
      >>> tx.update(rows, tx.init(jnp.zeros(2)), losses=jnp.ones(2))[0]
      Array([1., 3.], dtype=float32)
    """
    step = steps.dwa(every=every, temperature=temperature)
    return reconcile(step, num_objectives=num_objectives)


def group_dro(
    *, num_objectives: int, step_size: Scalar = 0.01
) -> optax.GradientTransformationExtraArgs:
    """GroupDRO: losses weighed by exponentiated ascent on the worst case.

    ``reconcile(steps.group_dro(...))``; for the formula, the arguments and the errors
    see :func:`fairjax.steps.group_dro`. ``update`` needs ``losses=[K]``.

    References:
      Sagawa et al., *Distributionally Robust Neural Networks for Group Shifts*, ICLR
      2020.

    Example:
      >>> import jax.numpy as jnp, fairjax
      >>> tx = fairjax.group_dro(num_objectives=2, step_size=jnp.log(3.0))
      >>> rows = jnp.array([[1.0, 0.0], [0.0, 1.0]])
      >>> tx.update(rows, tx.init(jnp.zeros(2)), losses=jnp.array([1.0, 0.0]))[0]
      Array([0.75, 0.25], dtype=float32)
    """
    return reconcile(steps.group_dro(step_size), num_objectives=num_objectives)
