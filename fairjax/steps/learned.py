"""Weights of the losses that are learned, by a gradient step of their own."""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float

from fairjax.steps._losses import loss_ratios, present_rows, require_losses
from fairjax.steps._rows import row_gramian
from fairjax.steps._weighting import one_row
from fairjax.types import (
    Coefficients,
    Gramian,
    Mask,
    Numbers,
    Scalar,
    Step,
    check_nonnegative,
)

Likelihood = Literal["regression", "classification"]

# FAMO's losses are at least this much above their minimum.
_FLOOR = 1e-8


class UncertaintyWeightingState(NamedTuple):
    """Carried by :func:`uncertainty_weighting`.

    Attributes:
      log_variances: ``[K]``, at first 0.
    """

    log_variances: Float[Array, " K"]


class FAMOState(NamedTuple):
    """Carried by :func:`famo`.

    Attributes:
      logits: ``[K]``, at first 0.
      optimizer: The state of the logits' own Adam.
      losses: ``[K]``, the losses of the last update; NaN where there was none.
    """

    logits: Float[Array, " K"]
    optimizer: Any
    losses: Float[Array, " K"]


class GradNormState(NamedTuple):
    """Carried by :func:`gradnorm`.

    Attributes:
      shares: ``[K]``, the objectives' weights; they sum to K.
      initial_losses: ``[K]``, the first finite positive loss seen of each objective;
        0 until then.
    """

    shares: Float[Array, " K"]
    initial_losses: Float[Array, " K"]


def uncertainty_weighting(
    *, learning_rate: Scalar = 0.01, likelihood: Likelihood = "classification"
) -> Step:
    r"""Weigh losses by learned variances: homoscedastic uncertainty.

    With log-variances :math:`s_k`, the objective is
    :math:`\sum_k c\, e^{-s_k} \ell_k + \tfrac12 s_k`, where :math:`c` is 1 for
    classification and ½ for regression. So the weights are

    .. math:: w_k = c\, e^{-s_k}, \qquad
        s_k \leftarrow s_k - \eta \left(\tfrac12 - c\, e^{-s_k} \ell_k\right).

    In the paper the model's optimiser learns the log-variances. Here they are the
    step's own state, which a plain gradient step of its own updates from the same
    losses, after the weights have been taken: they do not feel the model's schedule,
    momentum or weight decay.

    Args:
      learning_rate: :math:`\eta` ≥ 0; may be traced. Keep it below the inverse of the
        losses: a longer step overshoots.
      likelihood: ``"classification"`` or ``"regression"``.

    Returns:
      A step ``[K, K] -> [1, K]`` that needs ``losses [K]``. A masked objective adds
      nothing, and keeps its log-variance.

    Raises:
      ValueError: An unknown likelihood or a negative learning rate; at the update, no
        losses, or not one a row.

    References:
      Kendall, Gal and Cipolla, *Multi-Task Learning Using Uncertainty to Weigh Losses
      for Scene Geometry and Semantics*, CVPR 2018, equations 7 and 10.

    Example:
      >>> import jax.numpy as jnp, fairjax
      >>> step = fairjax.steps.uncertainty_weighting(learning_rate=1.0)
      >>> losses = jnp.array([0.5, 1.5])
      >>> weights, state = step.update(
      ...     jnp.eye(2), jnp.eye(2), step.init(2), losses=losses
      ... )
      >>> weights, state.log_variances
      (Array([[1., 1.]], dtype=float32), Array([0., 1.], dtype=float32))
    """
    if likelihood not in ("regression", "classification"):
        raise ValueError(
            f"likelihood is 'regression' or 'classification', not {likelihood!r}."
        )
    check_nonnegative("learning_rate", learning_rate)
    share = 0.5 if likelihood == "regression" else 1.0

    def init(num_objectives: int) -> UncertaintyWeightingState:
        return UncertaintyWeightingState(jnp.zeros(num_objectives, jnp.float32))

    def update(
        coefficients: Coefficients,
        gramian: Gramian,
        state: UncertaintyWeightingState,
        *,
        losses: Float[Array, " K"] | None = None,
        mask: Mask | None = None,
        **extra: Any,
    ) -> tuple[Float[Array, "1 K"], UncertaintyWeightingState]:
        del gramian, extra
        losses = require_losses("uncertainty_weighting", losses, coefficients)
        present = present_rows(losses, coefficients, mask)
        weights = jnp.where(present, share * jnp.exp(-state.log_variances), 0.0)
        slopes = 0.5 - weights * jnp.where(present, losses, 0.0)
        moved = state.log_variances - learning_rate * slopes
        moved = jnp.where(present, moved, state.log_variances).astype(jnp.float32)
        return one_row(weights, coefficients), UncertaintyWeightingState(moved)

    return Step(init, update)


def famo(
    *,
    learning_rate: Scalar = 0.025,
    weight_decay: Scalar = 1e-5,
    minimum: Scalar | Numbers = 0.0,
) -> Step:
    r"""Let all losses fall at one relative rate (FAMO).

    With logits :math:`\xi`, :math:`z = \operatorname{softmax}(\xi)` and losses
    :math:`\ell` above their minimum :math:`b`,

    .. math:: w_k = c\, \frac{z_k}{\ell_k - b_k}, \qquad
        c = \Big(\sum_k \frac{z_k}{\ell_k - b_k}\Big)^{-1},

    and Adam moves the logits along :math:`(\partial z / \partial \xi)^\top \delta` with
    :math:`\delta = \log(\ell^{\text{before}} - b) - \log(\ell^{\text{after}} - b)`.

    Which losses are compared: the paper evaluates one batch before and after its
    update. A step sees one evaluation an update, so :math:`\ell^{\text{before}}` are
    the losses of the last update, and :math:`\ell^{\text{after}}` those of this one,
    another batch perhaps, which adds noise to :math:`\delta`. For the paper's
    comparison pass ``replayed_losses [K]`` to ``update``: the last update's batch
    evaluated with today's parameters; they are then :math:`\ell^{\text{after}}`.

    Args:
      learning_rate: Of the logits' Adam; may be traced.
      weight_decay: Of the logits, added to their gradient; may be traced.
      minimum: :math:`b`, one number or one for each objective; losses count as 1e-8
        above it at least. May be traced.

    Returns:
      A step ``[K, K] -> [1, K]`` that needs ``losses [K]``. The weights of the
      objectives in use sum to 1; a masked one keeps its logit.

    Raises:
      ValueError: A negative rate or decay; at the update, no losses, or not one a row.

    References:
      Liu et al., *FAMO: Fast Adaptive Multitask Optimization*, NeurIPS 2023. The
      paper's algorithm has a weight decay of 1e-3, the authors' code 1e-5.

    Example:
      >>> import jax.numpy as jnp, fairjax
      >>> step = fairjax.steps.famo()
      >>> losses = jnp.array([1.0, 3.0])
      >>> step.update(jnp.eye(2), jnp.eye(2), step.init(2), losses=losses)[0]
      Array([[0.75, 0.25]], dtype=float32)
    """
    check_nonnegative("learning_rate", learning_rate)
    check_nonnegative("weight_decay", weight_decay)
    adam = optax.chain(
        optax.add_decayed_weights(jnp.asarray(weight_decay)),
        optax.adam(jnp.asarray(learning_rate)),
    )

    def init(num_objectives: int) -> FAMOState:
        logits = jnp.zeros(num_objectives, jnp.float32)
        none = jnp.full(num_objectives, jnp.nan, jnp.float32)
        return FAMOState(logits, adam.init(logits), none)

    def above(losses: Float[Array, " K"]) -> Float[Array, " K"]:
        return jnp.maximum(losses - jnp.asarray(minimum), _FLOOR)

    def update(
        coefficients: Coefficients,
        gramian: Gramian,
        state: FAMOState,
        *,
        losses: Float[Array, " K"] | None = None,
        mask: Mask | None = None,
        replayed_losses: Float[Array, " K"] | None = None,
        **extra: Any,
    ) -> tuple[Float[Array, "1 K"], FAMOState]:
        del gramian, extra
        losses = require_losses("famo", losses, coefficients)
        for name, given in (("minimum", minimum), ("replayed_losses", replayed_losses)):
            shape = () if given is None else jnp.asarray(given).shape
            if shape not in ((), losses.shape):
                raise ValueError(
                    f"famo needs one {name} for each row: {len(losses)} rows, not the "
                    f"shape {shape}."
                )
        present = present_rows(losses, coefficients, mask)
        after = losses if replayed_losses is None else replayed_losses
        known = present & jnp.isfinite(state.losses) & jnp.isfinite(after)
        logits, optimizer = _move_logits(
            adam,
            state,
            jnp.where(known, jnp.log(above(state.losses) / above(after)), 0.0),
            known,
        )
        shares = jax.nn.softmax(logits, where=present)
        weights = jnp.where(present, shares / above(losses), 0.0)
        total = jnp.sum(weights)
        weights = weights / jnp.where(total > 0, total, 1.0)
        seen = jnp.where(present, losses, jnp.nan).astype(jnp.float32)
        return one_row(weights, coefficients), FAMOState(logits, optimizer, seen)

    return Step(init, update)


def gradnorm(*, alpha: Scalar = 1.5, learning_rate: Scalar = 0.025) -> Step:
    r"""Learn weights that give slow objectives longer gradients (GradNorm).

    With :math:`r_k` the objective's loss over its first, over the mean of these, the
    weights descend

    .. math:: \sum_k \Big| \frac{w_k \|g_k\| - \bar G\, r_k^{\alpha}}{\bar G} \Big|,
        \qquad \bar G = \operatorname{mean}_k w_k \|g_k\|,

    with :math:`\bar G` held fixed, and are then scaled to sum to K. The division is
    ours, so that the learning rate does not depend on the gradients' scale; so is a
    weight's least value, 0. The paper takes the norms in the last shared layer; ours
    are those of the gradients that are reconciled. Today's weights make today's update.

    Args:
      alpha: :math:`\alpha` ≥ 0: 0 asks for equal norms; may be traced.
      learning_rate: Of the weights; may be traced.

    Returns:
      A step ``[K, K] -> [1, K]`` that needs ``losses [K]``. A masked objective adds
      nothing and keeps its weight.

    Raises:
      ValueError: A negative alpha or learning rate; at the update, no losses, or not
        one a row.

    References:
      Chen et al., *GradNorm: Gradient Normalization for Adaptive Loss Balancing in Deep
      Multitask Networks*, ICML 2018, algorithm 1.

    Example:
      >>> import jax.numpy as jnp, fairjax
      >>> step = fairjax.steps.gradnorm(learning_rate=0.4)
      >>> gram = jnp.diag(jnp.array([1.0, 9.0]))
      >>> weights, state = step.update(
      ...     jnp.eye(2), gram, step.init(2), losses=jnp.ones(2)
      ... )
      >>> weights, [round(float(weight), 3) for weight in state.shares]
      (Array([[1., 1.]], dtype=float32), [1.5, 0.5])
    """
    check_nonnegative("alpha", alpha)
    check_nonnegative("learning_rate", learning_rate)

    def init(num_objectives: int) -> GradNormState:
        return GradNormState(
            jnp.ones(num_objectives, jnp.float32),
            jnp.zeros(num_objectives, jnp.float32),
        )

    def update(
        coefficients: Coefficients,
        gramian: Gramian,
        state: GradNormState,
        *,
        losses: Float[Array, " K"] | None = None,
        mask: Mask | None = None,
        **extra: Any,
    ) -> tuple[Float[Array, "1 K"], GradNormState]:
        del extra
        losses = require_losses("gradnorm", losses, coefficients)
        present = present_rows(losses, coefficients, mask)
        squares = jnp.diagonal(row_gramian(coefficients, gramian))
        ratios, initial, known = loss_ratios(losses, state.initial_losses, present)
        known &= squares > 0
        norms = jnp.sqrt(jnp.where(known, squares, 0.0))
        lengths = state.shares * norms
        mean = jnp.sum(lengths) / jnp.maximum(jnp.sum(known), 1)
        mean = jnp.where(mean > 0, mean, 1.0)
        slopes = norms / mean * jnp.sign(lengths / mean - ratios**alpha)
        moved = jnp.maximum(state.shares - learning_rate * slopes, 0.0)
        # Those known share what they had, so that absence costs nothing.
        share = jnp.sum(jnp.where(known, state.shares, 0.0))
        total = jnp.sum(jnp.where(known, moved, 0.0))
        moved = moved * (share / jnp.where(total > 0, total, 1.0))
        weights = jnp.where(known & (total > 0), moved, state.shares)
        used = jnp.where(present, state.shares, 0.0)
        state = GradNormState(weights.astype(jnp.float32), initial.astype(jnp.float32))
        return one_row(used, coefficients), state

    return Step(init, update)


def _move_logits(
    adam: optax.GradientTransformationExtraArgs | optax.GradientTransformation,
    state: FAMOState,
    falls: Float[Array, " K"],
    known: Bool[Array, " K"],
) -> tuple[Float[Array, " K"], Any]:
    """One step of Adam for the logits of objectives whose fall is known, if any."""
    shares = jax.nn.softmax(state.logits, where=known)
    shares = jnp.where(known, shares, 0.0)
    slopes = shares * (falls - jnp.sum(shares * falls))
    changes, optimizer = adam.update(
        slopes.astype(jnp.float32), state.optimizer, state.logits
    )
    logits = jnp.where(known, state.logits + jnp.asarray(changes), state.logits)
    moves = jnp.any(known)

    def keep_or_take(old: Array, new: Array) -> Array:
        return jnp.where(moves, new, old)

    optimizer = jax.tree.map(keep_or_take, state.optimizer, optimizer)
    return logits.astype(jnp.float32), optimizer
