"""Weights of the objectives: fixed, random, from gradient norms, or from losses."""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, UInt

from fairjax.keys import as_key
from fairjax.reconcilers.core import (
    CurrentRows,
    Step,
    check_preference,
    make_step,
    reconcile,
    row_preference,
    transformation,
)
from fairjax.types import (
    Numbers,
    Scalar,
    check_choice,
    check_decay,
    check_nonnegative,
    check_positive,
    check_whole,
    is_known,
)

Likelihood = Literal["regression", "classification"]

# FAMO clips losses to at least this much above their minimum.
_FLOOR = 1e-8


class BalanceMagnitudesState(NamedTuple):
    """State of :func:`balance_magnitudes` in mode ``"loss_ratio"``.

    Attributes:
      initial_losses: ``[K]``, the first finite positive loss of each objective; 0
        until there is one.
    """

    initial_losses: Float[Array, " K"]


class RandomWeightingState(NamedTuple):
    """State of :func:`random_weighting`.

    Attributes:
      key_data: The data of the key from which the next weights are drawn.
    """

    key_data: UInt[Array, " words"]


class GroupDROState(NamedTuple):
    """State of :func:`group_dro`.

    Attributes:
      shares: ``[K]``, the groups' weights, which sum to 1.
    """

    shares: Float[Array, " K"]


class DWAState(NamedTuple):
    """State of :func:`dwa`.

    Attributes:
      sums: ``[K]``, sums of the losses in the present period.
      counts: ``[K]``, the number of losses in each sum.
      last: ``[K]``, the mean losses of the last period; 0 where there are none.
      before: ``[K]``, the mean losses of the period before the last.
      updates: ``[]``, the number of updates so far in the present period.
    """

    sums: Float[Array, " K"]
    counts: Int[Array, " K"]
    last: Float[Array, " K"]
    before: Float[Array, " K"]
    updates: Int[Array, ""]


class UncertaintyWeightingState(NamedTuple):
    """State of :func:`uncertainty_weighting`.

    Attributes:
      log_variances: ``[K]``, the log-variance of each objective, at first 0.
    """

    log_variances: Float[Array, " K"]


class IMTLLState(NamedTuple):
    """State of :func:`imtl_l`.

    Attributes:
      log_scales: ``[K]``, the log-scale of each objective, at first 0.
    """

    log_scales: Float[Array, " K"]


class CRMOGMState(NamedTuple):
    """State of :func:`cr_mogm`.

    Attributes:
      average: ``[K]``, the moving average of each objective's weight.
      known: ``[K]``, whether an objective has been in use.
    """

    average: Float[Array, " K"]
    known: Bool[Array, " K"]


class FAMOState(NamedTuple):
    """State of :func:`famo`.

    Attributes:
      logits: ``[K]``, the logits of the weights, at first 0.
      optimizer: The state of Adam on the logits.
      losses: ``[K]``, the losses of the last update; NaN where there was none.
    """

    logits: Float[Array, " K"]
    optimizer: Any
    losses: Float[Array, " K"]


class GradNormState(NamedTuple):
    """State of :func:`gradnorm`.

    Attributes:
      shares: ``[K]``, the objectives' weights, which sum to K.
      initial_losses: ``[K]``, the first finite positive loss of each objective; 0
        until there is one.
    """

    shares: Float[Array, " K"]
    initial_losses: Float[Array, " K"]


def combine(
    reduction: Literal["sum", "mean"] | Numbers = "sum",
) -> Step:
    r"""Adds the rows up into one row, the update.

    ``"sum"`` is :math:`\sum_i g_i`; ``"mean"`` divides by the number of rows in use;
    weights ``[R]`` give :math:`\sum_i w_i g_i`.

    Returns:
      A step ``[R, K] -> [1, K]``.

    Raises:
      ValueError: The reduction is unknown; a weight is negative or not finite (traced
        weights are not checked); or there is not one weight for each row.

    Example:
      >>> import jax.numpy as jnp, fairjax
      >>> step = fairjax.steps.combine("mean")
      >>> step.update(jnp.eye(2), jnp.eye(2), step.init(2))[0]
      Array([[0.5, 0.5]], dtype=float32)
    """
    named = isinstance(reduction, str)
    if named:
        check_choice("reduction", reduction, "sum", "mean", other="weights")
    elif is_known(reduction):
        given = np.asarray(reduction)
        bad = np.flatnonzero(~(np.isfinite(given) & (given >= 0)))
        if given.ndim == 1 and bad.size:
            raise ValueError(
                f"weights must be finite and 0 or more; got {given[bad[0]]} for row "
                f"{bad[0]}, which would ascend its objective."
            )

    def update(rows: CurrentRows, state: Any) -> tuple[Array, Any]:
        coefficients = rows.coefficients
        used = rows.used.astype(coefficients.dtype)
        if not named:
            weights = jnp.asarray(reduction, coefficients.dtype)
            if weights.shape != used.shape:
                raise ValueError(
                    f"combine needs {len(used)} weights, one for each row; got shape "
                    f"{weights.shape}."
                )
            used = used * weights
        elif reduction == "mean":
            used = used / jnp.maximum(jnp.sum(used), 1)
        return jnp.sum(used[:, None] * coefficients, axis=0, keepdims=True), state

    return make_step(update)


def balance_magnitudes(
    mode: Literal["equal_norms", "loss_ratio", "none"] = "equal_norms",
    *,
    reference: Literal["mean", "min", "max"] | int = "mean",
    strength: Scalar | Numbers = 1.0,
    clamp: tuple[Scalar, Scalar] | None = None,
) -> Step:
    r"""Scales each row by a positive factor, so that no objective dominates.

    - ``"equal_norms"``: :math:`\alpha_i = \beta_i\, \nu / \|g_i\|`, where :math:`\nu`
      is the reference norm: the mean, least or greatest norm of the rows in use, or
      the norm of row ``reference``. The reference row keeps its length, so with
      ``reference=0, strength=0.3`` every other gradient gets 0.3 of the first
      gradient's norm. If the reference row is zero or masked, all rows keep their
      lengths.
    - ``"loss_ratio"``: :math:`\alpha_i = \beta_i\, r_i / \bar r` with
      :math:`r_i = \ell_i / \ell_i^0`: objectives whose loss has fallen less get more
      weight (the relative inverse training rate of GradNorm). Needs ``losses``.
    - ``"none"``: :math:`\alpha_i = \beta_i`.

    Args:
      mode: One of the modes above.
      reference: See above; read in mode ``"equal_norms"`` only.
      strength: :math:`\beta`, one number or one for each row, ≥ 0; may be traced.
      clamp: The least and the greatest factor allowed, or None; may be traced.

    Returns:
      A step ``[R, K] -> [R, K]``. Zero and masked rows keep the factor 1.

    Raises:
      ValueError: The mode or the reference is unknown; a strength is negative; the
        limits are negative or exchanged. At the update: mode ``"loss_ratio"`` gets no
        losses, or follows a step that changed the number of rows; or the strength or
        the reference does not fit the number of rows.

    References:
      Chen et al., *GradNorm*, ICML 2018, for the ratio.

    Example:
      >>> import jax.numpy as jnp, fairjax
      >>> step = fairjax.steps.balance_magnitudes(reference=0, strength=0.5)
      >>> gram = jnp.diag(jnp.array([4.0, 100.0]))
      >>> step.update(jnp.eye(2), gram, step.init(2))[0]
      Array([[1. , 0. ],
             [0. , 0.1]], dtype=float32)
    """
    check_choice("mode", mode, "equal_norms", "loss_ratio", "none")
    if is_known(strength) and not np.all(np.asarray(strength) >= 0):
        raise ValueError(f"strength must be 0 or more; got {strength}.")
    known = None if clamp is None or not is_known(clamp) else np.asarray(clamp)
    if known is not None and not 0 <= known[0] <= known[1]:
        raise ValueError(
            f"clamp must be the least and the greatest factor, 0 or more; got {clamp}."
        )
    if isinstance(reference, str):
        other = "a row's number"
        check_choice("reference", reference, "mean", "min", "max", other=other)
    else:
        check_whole("reference", reference, 0)

    def init(number: int) -> BalanceMagnitudesState | optax.EmptyState:
        if mode != "loss_ratio":
            return optax.EmptyState()
        return BalanceMagnitudesState(jnp.zeros(number, jnp.float32))

    def update(rows: CurrentRows, state: Any) -> tuple[Array, Any]:
        used = rows.used
        beta = jnp.asarray(strength, rows.coefficients.dtype)
        if beta.shape not in ((), used.shape):
            raise ValueError(
                f"strength must be one number or {len(used)}, one for each row; got "
                f"shape {beta.shape}."
            )
        factors = jnp.broadcast_to(beta, used.shape)
        if mode == "equal_norms":
            squares = jnp.diagonal(rows.own)
            used &= squares > 0
            norms = jnp.sqrt(jnp.where(used, squares, 1.0))
            level = _reference_norm(reference, norms, used)
            factors = factors * level / norms
            if not isinstance(reference, str):
                used &= used[reference]
        elif mode == "loss_ratio":
            losses, _ = usable_losses("balance_magnitudes('loss_ratio')", rows)
            ratios, initial, known = loss_ratios(losses, state.initial_losses, used)
            state = BalanceMagnitudesState(initial.astype(jnp.float32))
            factors = jnp.where(known, factors * ratios, factors)
        if clamp is not None:
            factors = jnp.clip(factors, clamp[0], clamp[1])
        if mode == "equal_norms" and not isinstance(reference, str):
            factors = factors.at[reference].set(1.0)
        return jnp.where(used, factors, 1.0)[:, None] * rows.coefficients, state

    return make_step(update, init)


def random_weighting_step(*, key: Array | int = 0) -> Step:
    r"""Weighs the rows by random weights, drawn at each update.

    .. math:: w = \operatorname{softmax}(z), \qquad z_i \sim \mathcal N(0, 1).

    Args:
      key: A key, or a seed; may be traced.

    Returns:
      A step ``[R, K] -> [1, K]``. The weights of the rows in use sum to 1.

    References:
      Lin et al., *Reasonable Effectiveness of Random Weighting: A Litmus Test for
      Multi-Task Learning*, TMLR 2022.

    Example:
      >>> import jax.numpy as jnp, fairjax
      >>> step = fairjax.steps.random_weighting(key=3)
      >>> weights, state = step.update(jnp.eye(2), jnp.eye(2), step.init(2))
      >>> weights.sum().round(3)
      Array(1., dtype=float32)

      As an optax transformation:

      >>> tx = fairjax.random_weighting(num_objectives=2)
      >>> rows = jnp.array([[1.0, 0.0], [0.0, 1.0]])
      >>> tx.update(rows, tx.init(jnp.zeros(2)))[0].sum().round(3)
      Array(1., dtype=float32)
    """

    def update(rows: CurrentRows, state: RandomWeightingState) -> tuple[Array, Any]:
        # The diagonal shows zero gradients, without a product of K×K matrices.
        present = jnp.diagonal(rows.gramian) > 0
        mask = present if rows.mask is None else present & rows.mask
        used = rows._replace(mask=mask).used
        after, draw = jax.random.split(jax.random.wrap_key_data(state.key_data))
        drawn = jax.random.normal(draw, used.shape, rows.coefficients.dtype)
        weights = jnp.where(used, jax.nn.softmax(drawn, where=used), 0.0)
        return rows.weighted(weights), RandomWeightingState(jax.random.key_data(after))

    return make_step(
        update, lambda _: RandomWeightingState(jax.random.key_data(as_key(key)))
    )


def gradnorm_step(*, alpha: Scalar = 1.5, learning_rate: Scalar = 0.025) -> Step:
    r"""Learns weights that give slow objectives longer gradients (GradNorm).

    Let :math:`r_k` be the ratio of the objective's loss to its first loss, divided by
    the mean of these ratios. The weights descend

    .. math:: \sum_k \Big| \frac{w_k \|g_k\| - \bar G\, r_k^{\alpha}}{\bar G} \Big|,
        \qquad \bar G = \operatorname{mean}_k w_k \|g_k\|,

    with :math:`\bar G` held fixed, and are then scaled to sum to K. The division by
    :math:`\bar G` is ours, so that the learning rate does not depend on the gradients'
    scale; the lower bound 0 of the weights is ours too. The paper uses norms in the
    last shared layer; this step uses norms of the gradients that are reconciled. The
    weights before the descent make the update.

    Args:
      alpha: :math:`\alpha` ≥ 0; 0 asks for equal norms; may be traced.
      learning_rate: Learning rate of the weights; may be traced.

    Returns:
      A step ``[K, K] -> [1, K]`` that needs ``losses [K]``. A masked objective adds
      nothing and keeps its weight.

    Raises:
      ValueError: ``alpha`` or the learning rate is negative. At the update: there is
        not one loss for each row.

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

      As an optax transformation:

      >>> tx = fairjax.gradnorm(num_objectives=2)
      >>> rows = jnp.array([[1.0, 0.0], [0.0, 3.0]])
      >>> tx.update(rows, tx.init(jnp.zeros(2)), losses=jnp.ones(2))[0]
      Array([1., 3.], dtype=float32)
    """
    check_nonnegative("alpha", alpha)
    check_nonnegative("learning_rate", learning_rate)

    def init(number: int) -> GradNormState:
        return GradNormState(
            jnp.ones(number, jnp.float32), jnp.zeros(number, jnp.float32)
        )

    def update(rows: CurrentRows, state: GradNormState) -> tuple[Array, GradNormState]:
        losses, present = usable_losses("gradnorm", rows)
        squares = jnp.diagonal(rows.own)
        ratios, initial, known = loss_ratios(losses, state.initial_losses, present)
        known &= squares > 0
        norms = jnp.sqrt(jnp.where(known, squares, 0.0))
        lengths = state.shares * norms
        mean = jnp.sum(lengths) / jnp.maximum(jnp.sum(known), 1)
        mean = jnp.where(mean > 0, mean, 1.0)
        slopes = norms / mean * jnp.sign(lengths / mean - ratios**alpha)
        moved = jnp.maximum(state.shares - learning_rate * slopes, 0.0)
        # The known objectives keep their total weight, so that absence costs nothing.
        share = jnp.sum(jnp.where(known, state.shares, 0.0))
        total = jnp.sum(jnp.where(known, moved, 0.0))
        moved = moved * (share / jnp.where(total > 0, total, 1.0))
        weights = jnp.where(known & (total > 0), moved, state.shares)
        used = jnp.where(present, state.shares, 0.0)
        state = GradNormState(weights.astype(jnp.float32), initial.astype(jnp.float32))
        return rows.weighted(used), state

    return make_step(update, init)


def famo_step(
    *,
    learning_rate: Scalar = 0.025,
    weight_decay: Scalar = 1e-5,
    minimum: Scalar | Numbers = 0.0,
) -> Step:
    r"""Weighs objectives so that all losses fall at one relative rate (FAMO).

    With logits :math:`\xi`, :math:`z = \operatorname{softmax}(\xi)` and losses
    :math:`\ell` above their minimum :math:`b`,

    .. math:: w_k = c\, \frac{z_k}{\ell_k - b_k}, \qquad
        c = \Big(\sum_k \frac{z_k}{\ell_k - b_k}\Big)^{-1},

    and Adam moves the logits along :math:`(\partial z / \partial \xi)^\top \delta` with
    :math:`\delta = \log(\ell^{\text{before}} - b) - \log(\ell^{\text{after}} - b)`.

    The paper compares losses of one batch before and after the update on this batch. A
    step gets one evaluation for each update. So :math:`\ell^{\text{before}}` are the
    losses at the last update, and :math:`\ell^{\text{after}}` the losses at the present
    update; if these are on different batches, :math:`\delta` is noisier. For the
    paper's comparison pass ``replayed_losses [K]`` to ``update``: the losses of the
    last update's batch at the present parameters. They then serve as
    :math:`\ell^{\text{after}}`.

    Args:
      learning_rate: Learning rate of Adam on the logits; may be traced.
      weight_decay: Weight decay of the logits, added to their gradient; may be traced.
      minimum: :math:`b`, one number or one for each objective; may be traced. Losses
        below ``minimum + 1e-8`` count as ``minimum + 1e-8``.

    Returns:
      A step ``[K, K] -> [1, K]`` that needs ``losses [K]``. The weights of the
      objectives in use sum to 1; masked objectives keep their logits.

    Raises:
      ValueError: The learning rate or the weight decay is negative. At the update:
        there is not one loss for each row.

    References:
      Liu et al., *FAMO: Fast Adaptive Multitask Optimization*, NeurIPS 2023. The
      paper's algorithm has a weight decay of 1e-3, the authors' code 1e-5.

    Example:
      >>> import jax.numpy as jnp, fairjax
      >>> step = fairjax.steps.famo()
      >>> losses = jnp.array([1.0, 3.0])
      >>> step.update(jnp.eye(2), jnp.eye(2), step.init(2), losses=losses)[0]
      Array([[0.75, 0.25]], dtype=float32)

      As an optax transformation:

      >>> tx = fairjax.famo(num_objectives=2)
      >>> rows = jnp.array([[1.0, 0.0], [0.0, 1.0]])
      >>> tx.update(rows, tx.init(jnp.zeros(2)), losses=jnp.array([1.0, 3.0]))[0]
      Array([0.75, 0.25], dtype=float32)
    """
    check_nonnegative("learning_rate", learning_rate)
    check_nonnegative("weight_decay", weight_decay)
    adam = optax.chain(
        optax.add_decayed_weights(jnp.asarray(weight_decay)),
        optax.adam(jnp.asarray(learning_rate)),
    )

    def init(number: int) -> FAMOState:
        logits = jnp.zeros(number, jnp.float32)
        none = jnp.full(number, jnp.nan, jnp.float32)
        return FAMOState(logits, adam.init(logits), none)

    def above(losses: Float[Array, " K"]) -> Float[Array, " K"]:
        return jnp.maximum(losses - jnp.asarray(minimum), _FLOOR)

    def update(rows: CurrentRows, state: FAMOState) -> tuple[Array, FAMOState]:
        losses, present = usable_losses("famo", rows)
        replayed = rows.extra.get("replayed_losses")
        for name, given in (("minimum", minimum), ("replayed_losses", replayed)):
            shape = () if given is None else jnp.asarray(given).shape
            if shape not in ((), losses.shape):
                raise ValueError(
                    f"famo needs one {name} for each of the {len(losses)} rows; got "
                    f"shape {shape}."
                )
        after = losses if replayed is None else replayed
        known = present & jnp.isfinite(state.losses) & jnp.isfinite(after)
        falls = jnp.where(known, jnp.log(above(state.losses) / above(after)), 0.0)
        logits, optimizer = _move_logits(adam, state, falls, known)
        shares = jax.nn.softmax(logits, where=present)
        weights = jnp.where(present, shares / above(losses), 0.0)
        total = jnp.sum(weights)
        weights = weights / jnp.where(total > 0, total, 1.0)
        seen = jnp.where(present, losses, jnp.nan).astype(jnp.float32)
        return rows.weighted(weights), FAMOState(logits, optimizer, seen)

    return make_step(update, init)


def uncertainty_weighting_step(
    *, learning_rate: Scalar = 0.01, likelihood: Likelihood = "classification"
) -> Step:
    r"""Weighs losses by learned variances (homoscedastic uncertainty).

    With log-variances :math:`s_k`, the objective is
    :math:`\sum_k c\, e^{-s_k} \ell_k + \tfrac12 s_k`, where :math:`c` is 1 for
    classification and ½ for regression. So the weights are

    .. math:: w_k = c\, e^{-s_k}, \qquad
        s_k \leftarrow s_k - \eta \left(\tfrac12 - c\, e^{-s_k} \ell_k\right).

    In the paper the model's optimiser learns the log-variances. Here the log-variances
    are state of the step. After the weights are computed, one plain gradient step on
    the same losses updates the log-variances. So the model's schedule, momentum and
    weight decay do not affect the log-variances.

    Args:
      learning_rate: :math:`\eta` ≥ 0; may be traced. Keep it below the inverse of the
        losses, since a longer step overshoots.
      likelihood: ``"classification"`` or ``"regression"``.

    Returns:
      A step ``[K, K] -> [1, K]`` that needs ``losses [K]``. A masked objective adds
      nothing, and keeps its log-variance.

    Raises:
      ValueError: The likelihood is unknown, or the learning rate is negative. At the
        update: there is not one loss for each row.

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

      As an optax transformation:

      >>> tx = fairjax.uncertainty_weighting(num_objectives=2)
      >>> rows = jnp.array([[1.0, 0.0], [0.0, 3.0]])
      >>> tx.update(rows, tx.init(jnp.zeros(2)), losses=jnp.ones(2))[0]
      Array([1., 3.], dtype=float32)
    """
    check_choice("likelihood", likelihood, "regression", "classification")
    check_nonnegative("learning_rate", learning_rate)
    share = 0.5 if likelihood == "regression" else 1.0

    def update(
        rows: CurrentRows, state: UncertaintyWeightingState
    ) -> tuple[Array, UncertaintyWeightingState]:
        losses, present = usable_losses("uncertainty_weighting", rows)
        weights = jnp.where(present, share * jnp.exp(-state.log_variances), 0.0)
        slopes = 0.5 - weights * jnp.where(present, losses, 0.0)
        moved = state.log_variances - learning_rate * slopes
        moved = jnp.where(present, moved, state.log_variances).astype(jnp.float32)
        return rows.weighted(weights), UncertaintyWeightingState(moved)

    return make_step(
        update, lambda k: UncertaintyWeightingState(jnp.zeros(k, jnp.float32))
    )


def imtl_l_step(*, learning_rate: Scalar = 0.01) -> Step:
    r"""Weighs losses by learned scales that bring them to one magnitude (IMTL-L).

    With log-scales :math:`s_k`, the objective is :math:`\sum_k e^{s_k} \ell_k - s_k`,
    which is least where all scaled losses are 1. So the weights are

    .. math:: w_k = e^{s_k}, \qquad s_k \leftarrow s_k - \eta (e^{s_k} \ell_k - 1).

    In the paper the model's optimiser learns the log-scales. Here one plain gradient
    step on the same losses updates them after the weights are computed. It is twice
    :func:`uncertainty_weighting` for classification, with :math:`-s_k` as
    log-variances.

    Args:
      learning_rate: :math:`\eta` ≥ 0; may be traced.

    Returns:
      A step ``[K, K] -> [1, K]`` that needs ``losses [K]``. A masked objective adds
      nothing, and keeps its log-scale.

    Raises:
      ValueError: The learning rate is negative. At the update: there is not one loss
        for each row.

    References:
      Liu et al., *Towards Impartial Multi-Task Learning*, ICLR 2021, section 3.2.

    Example:
      >>> import jax.numpy as jnp, fairjax
      >>> step = fairjax.steps.imtl_l(learning_rate=1.0)
      >>> losses = jnp.array([0.5, 1.5])
      >>> weights, state = step.update(
      ...     jnp.eye(2), jnp.eye(2), step.init(2), losses=losses
      ... )
      >>> weights, state.log_scales
      (Array([[1., 1.]], dtype=float32), Array([ 0.5, -0.5], dtype=float32))

      As an optax transformation:

      >>> tx = fairjax.imtl_l(num_objectives=2)
      >>> rows = jnp.array([[1.0, 0.0], [0.0, 3.0]])
      >>> tx.update(rows, tx.init(jnp.zeros(2)), losses=jnp.ones(2))[0]
      Array([1., 3.], dtype=float32)
    """
    check_nonnegative("learning_rate", learning_rate)

    def update(rows: CurrentRows, state: IMTLLState) -> tuple[Array, IMTLLState]:
        losses, present = usable_losses("imtl_l", rows)
        weights = jnp.where(present, jnp.exp(state.log_scales), 0.0)
        slopes = weights * jnp.where(present, losses, 0.0) - 1
        moved = state.log_scales - learning_rate * slopes
        moved = jnp.where(present, moved, state.log_scales).astype(jnp.float32)
        return rows.weighted(weights), IMTLLState(moved)

    return make_step(update, lambda k: IMTLLState(jnp.zeros(k, jnp.float32)))


def geometric_mean_step() -> Step:
    r"""Follows the geometric mean of the losses (geometric loss strategy).

    .. math:: L = \Bigl(\prod_k \ell_k\Bigr)^{1/m}, \qquad
        w_k = \frac{\partial L}{\partial \ell_k} = \frac{L}{m\, \ell_k}

    for m objectives in use. A loss in other units changes all weights by one factor,
    and the direction stays.

    Returns:
      A step ``[K, K] -> [1, K]`` that needs ``losses [K]``. An objective whose loss is
      not positive adds nothing, as if masked.

    Raises:
      ValueError: At the update: there is not one loss for each row.

    References:
      Chennupati et al., *MultiNet++: Multi-Stream Feature Aggregation and Geometric
      Loss Strategy for Multi-Task Learning*, CVPR workshops 2019.

    Example:
      >>> import jax.numpy as jnp, fairjax
      >>> step = fairjax.steps.geometric_mean()
      >>> losses = jnp.array([1.0, 4.0])
      >>> step.update(jnp.eye(2), jnp.eye(2), step.init(2), losses=losses)[0]
      Array([[1.  , 0.25]], dtype=float32)

      As an optax transformation:

      >>> tx = fairjax.geometric_mean(num_objectives=2)
      >>> rows = jnp.array([[1.0, 0.0], [0.0, 4.0]])
      >>> tx.update(rows, tx.init(jnp.zeros(2)), losses=losses)[0]
      Array([1., 1.], dtype=float32)
    """

    def update(rows: CurrentRows, state: Any) -> tuple[Array, Any]:
        losses, present = usable_losses("geometric_mean", rows)
        present = present & (losses > 0)
        safe = jnp.where(present, losses, 1.0)
        number = jnp.maximum(jnp.sum(present), 1)
        mean = jnp.exp(jnp.sum(jnp.log(safe)) / number)
        return rows.weighted(jnp.where(present, mean / (number * safe), 0.0)), state

    return make_step(update)


def stch_step(
    *,
    mu: Scalar = 0.1,
    preference: Numbers | None = None,
    ideal: Numbers | None = None,
) -> Step:
    r"""Follows a smooth greatest loss (smooth Tchebycheff scalarisation).

    .. math:: L = \mu \log \sum_k e^{\lambda_k (\ell_k - z_k) / \mu}, \qquad
        w_k = \lambda_k\, \mathrm{softmax}_k(\lambda (\ell - z) / \mu) .

    Args:
      mu: :math:`\mu > 0`, in units of :math:`\lambda \ell`; with a small one the
        worst objective has almost all weight; may be traced.
      preference: :math:`\lambda [K]`, ≥ 0; by default 1/m for m objectives in use.
      ideal: :math:`z [K]`, the least losses; by default 0.

    Returns:
      A step ``[K, K] -> [1, K]`` that needs ``losses [K]``.

    Raises:
      ValueError: :math:`\mu` is not positive, or the preference is not one of
        :func:`fairjax.steps.upgrad`. At the update: there is not one loss for each row.

    References:
      Lin et al., *Smooth Tchebycheff Scalarization for Multi-Objective Optimization*,
      ICML 2024, equation 10.

    Example:
      >>> import jax.numpy as jnp, fairjax
      >>> step = fairjax.steps.stch(preference=[1.0, 3.0])
      >>> losses = jnp.array([3.0, 1.0])
      >>> step.update(jnp.eye(2), jnp.eye(2), step.init(2), losses=losses)[0]
      Array([[0.5, 1.5]], dtype=float32)

      As an optax transformation, with λ = ½:

      >>> tx = fairjax.stch(num_objectives=2)
      >>> rows = jnp.array([[1.0, 0.0], [0.0, 4.0]])
      >>> tx.update(rows, tx.init(jnp.zeros(2)), losses=jnp.ones(2))[0]
      Array([0.25, 1.  ], dtype=float32)
    """
    check_positive("mu", mu)
    check_preference(preference)

    def update(rows: CurrentRows, state: Any) -> tuple[Array, Any]:
        losses, present = usable_losses("stch", rows)
        given = row_preference(preference, rows.own)
        if given is None:
            given = jnp.full_like(losses, 1 / jnp.maximum(jnp.sum(present), 1))
        above = losses if ideal is None else losses - jnp.asarray(ideal, losses.dtype)
        scaled = jnp.where(present, given * above, 0.0) / mu
        shares = jax.nn.softmax(scaled, where=present)
        return rows.weighted(jnp.where(present, given * shares, 0.0)), state

    return make_step(update)


def dwa_step(*, every: int = 1, temperature: Scalar = 2.0) -> Step:
    r"""Weighs objectives by how slowly their losses fall (dynamic weight average).

    With :math:`L_k(t)` the mean loss of period :math:`t`,

    .. math:: r_k = \frac{L_k(t-1)}{L_k(t-2)}, \qquad
        w_k = m\, \frac{e^{r_k / T}}{\sum_i e^{r_i / T}}

    for m objectives in use. All weights are 1 during the first two periods, in which
    the ratio is not yet known.

    Args:
      every: The number of updates in a period; in the paper, a period is an epoch.
        Ratios of single batches are mostly noise.
      temperature: :math:`T > 0`; large for nearly equal weights; may be traced.

    Returns:
      A step ``[K, K] -> [1, K]`` that needs ``losses [K]``. A masked objective adds
      nothing to the update or to its mean. An objective without two positive means has
      the ratio 1.

    Raises:
      ValueError: ``every`` is below 1, or the temperature is not positive. At the
        update: there is not one loss for each row.

    References:
      Liu, Johns and Davison, *End-to-End Multi-Task Learning with Attention*, CVPR
      2019, equation 7.

    Example:
      >>> import jax.numpy as jnp, fairjax
      >>> step = fairjax.steps.dwa(temperature=1 / jnp.log(3.0))
      >>> state = step.init(2)
      >>> for losses in ([2.0, 2.0], [2.0, 0.002], [2.0, 0.002]):
      ...     weights, state = step.update(
      ...         jnp.eye(2), jnp.eye(2), state, losses=jnp.array(losses)
      ...     )
      >>> weights.round(2)
      Array([[1.5, 0.5]], dtype=float32)

      As an optax transformation:

      >>> tx = fairjax.dwa(num_objectives=2)
      >>> rows = jnp.array([[1.0, 0.0], [0.0, 3.0]])
      >>> tx.update(rows, tx.init(jnp.zeros(2)), losses=jnp.ones(2))[0]
      Array([1., 3.], dtype=float32)
    """
    check_whole("every", every)
    check_positive("temperature", temperature)

    def init(number: int) -> DWAState:
        # Separate buffers, so that the state can be donated.
        return DWAState(
            sums=jnp.zeros(number, jnp.float32),
            counts=jnp.zeros(number, jnp.int32),
            last=jnp.zeros(number, jnp.float32),
            before=jnp.zeros(number, jnp.float32),
            updates=jnp.zeros((), jnp.int32),
        )

    def update(rows: CurrentRows, state: DWAState) -> tuple[Array, DWAState]:
        losses, present = usable_losses("dwa", rows)
        known = (state.last > 0) & (state.before > 0)
        ratios = state.last / jnp.where(known, state.before, 1.0)
        ratios = jnp.where(known, ratios, 1.0)
        shares = jax.nn.softmax(ratios / temperature, where=present)
        weights = jnp.where(present, shares, 0.0) * jnp.sum(present)
        sums = state.sums + jnp.where(present, losses, 0.0).astype(jnp.float32)
        counts = state.counts + present
        updates = state.updates + 1
        ends = updates == every
        mean = jnp.where(counts > 0, sums / jnp.maximum(counts, 1), 0.0)
        state = DWAState(
            sums=jnp.where(ends, 0.0, sums),
            counts=jnp.where(ends, 0, counts),
            # An objective absent throughout a period keeps its means.
            last=jnp.where(ends & (counts > 0), mean, state.last),
            before=jnp.where(ends & (counts > 0), state.last, state.before),
            updates=jnp.where(ends, 0, updates),
        )
        return rows.weighted(weights), state

    return make_step(update, init)


def group_dro_step(step_size: Scalar) -> Step:
    r"""Weighs groups by exponentiated ascent on the worst-case loss (group DRO).

    .. math:: q_k \propto q_k\, e^{\eta\, \ell_k}, \qquad d = \sum_k q_k\, g_k.

    Args:
      step_size: :math:`\eta` ≥ 0; may be traced. 0 gives equal weights.

    Returns:
      A step ``[K, K] -> [1, K]`` that needs ``losses [K]``. Masked groups, such as
      groups without an example in the batch, keep their weight and add nothing.

    Raises:
      ValueError: The step size is negative. At the update: there is not one loss for
        each row.

    References:
      Sagawa et al., *Distributionally Robust Neural Networks for Group Shifts*, ICLR
      2020, algorithm 1.

    Example:
      >>> import jax.numpy as jnp, fairjax
      >>> step = fairjax.steps.group_dro(jnp.log(3.0))
      >>> losses = jnp.array([1.0, 0.0])
      >>> step.update(jnp.eye(2), jnp.eye(2), step.init(2), losses=losses)[0]
      Array([[0.75, 0.25]], dtype=float32)

      As an optax transformation:

      >>> tx = fairjax.group_dro(num_objectives=2, step_size=jnp.log(3.0))
      >>> rows = jnp.array([[1.0, 0.0], [0.0, 1.0]])
      >>> tx.update(rows, tx.init(jnp.zeros(2)), losses=jnp.array([1.0, 0.0]))[0]
      Array([0.75, 0.25], dtype=float32)
    """
    check_nonnegative("step_size", step_size)

    def update(rows: CurrentRows, state: GroupDROState) -> tuple[Array, GroupDROState]:
        losses, present = usable_losses("group_dro", rows)
        exponents = step_size * jnp.where(present, losses, 0.0)
        # A shift of all exponents, only against overflow: the weights stay the same.
        exponents -= jnp.maximum(jnp.max(exponents) - 60.0, 0.0)
        grown = state.shares * jnp.exp(exponents)
        # The groups present keep their total weight, so that absence costs nothing.
        share = jnp.sum(jnp.where(present, state.shares, 0.0))
        total = jnp.sum(jnp.where(present, grown, 0.0))
        scale = share / jnp.where(total > 0, total, 1.0)
        weights = jnp.where(present, grown * scale, state.shares)
        weights = weights.astype(jnp.float32)
        used = jnp.where(present, weights, 0.0)
        return rows.weighted(used), GroupDROState(weights)

    return make_step(update, lambda k: GroupDROState(jnp.full(k, 1 / k, jnp.float32)))


def cr_mogm(*, decay: Scalar = 0.9) -> Step:
    r"""Averages the weights of the steps before it over updates (CR-MOGM).

    .. math:: \bar w \leftarrow \alpha \bar w + (1 - \alpha) w ,

    from the first weights on. Weights that depend on the gradients of a batch make a
    biased update. The paper shows that methods converge with averaged weights, if
    :math:`\alpha` rises towards 1 as the learning rate falls.

    Args:
      decay: :math:`\alpha` in [0, 1); may be traced, and so follow a schedule.

    Returns:
      A step ``[1, K] -> [1, K]``, for use after a step that leaves one row. A masked
      objective keeps its average and adds nothing.

    Raises:
      ValueError: The decay is out of range. At the update: there are several rows.

    References:
      Zhou et al., *On the Convergence of Stochastic Multi-Objective Gradient
      Manipulation and Beyond*, NeurIPS 2022.

    Example:
      The weights of MGDA are (.8, .2), and then (.5, .5).

      >>> import jax.numpy as jnp, fairjax
      >>> from fairjax import steps
      >>> tx = fairjax.reconcile(
      ...     steps.mgda(), steps.cr_mogm(decay=0.5), num_objectives=2
      ... )
      >>> _, state = tx.update(jnp.diag(jnp.array([1.0, 2.0])), tx.init(jnp.zeros(2)))
      >>> update, _ = tx.update(jnp.eye(2), state)
      >>> [round(float(entry), 3) for entry in update]
      [0.65, 0.35]
    """
    check_decay(decay)

    def init(number: int) -> CRMOGMState:
        return CRMOGMState(jnp.zeros(number, jnp.float32), jnp.zeros(number, bool))

    def update(rows: CurrentRows, state: CRMOGMState) -> tuple[Array, CRMOGMState]:
        if len(rows.coefficients) != 1:
            raise ValueError(
                f"cr_mogm must get one row of weights; got {len(rows.coefficients)}. "
                "Put it after steps.combine('sum') or another step that leaves one row."
            )
        weights = rows.coefficients[0]
        used = jnp.isfinite(weights)
        used = used if rows.mask is None else used & rows.mask
        before = jnp.where(state.known, state.average, weights)
        average = decay * before + (1 - decay) * weights
        kept = jnp.where(used, average, state.average).astype(jnp.float32)
        after = jnp.where(used, average, 0.0).astype(weights.dtype)
        return after[None], CRMOGMState(kept, state.known | used)

    return make_step(update, init)


def scalarize(
    *, num_objectives: int, reduction: Literal["sum", "mean"] | Numbers = "sum"
) -> optax.GradientTransformationExtraArgs:
    """Computes the gradient of a weighted sum of the objectives (scalarisation).

    This is ``reconcile(steps.combine(reduction))``; see :func:`fairjax.steps.combine`.
    With weights that were chosen on validation data, linear scalarisation is the
    baseline that every other method has to beat (Xin et al. 2022). Weights may be
    traced, so that a grid of weights trains in parallel under ``vmap``. Without stacked
    gradients, scalarisation is cheaper; this method gives it the diagnostics of other
    methods.

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
    return reconcile(combine(reduction), num_objectives=num_objectives)


def equal_norms(
    *,
    num_objectives: int,
    reference: Literal["mean", "min", "max"] | int = "mean",
    strength: Scalar | Numbers = 1.0,
    clamp: tuple[Scalar, Scalar] | None = None,
    reduction: Literal["sum", "mean"] | Numbers = "sum",
) -> optax.GradientTransformationExtraArgs:
    """Scales gradients to one length, then adds them up.

    This is ``reconcile(steps.balance_magnitudes("equal_norms", ...),
    steps.combine(...))``. For the formula, the arguments and the errors see
    :func:`fairjax.steps.balance_magnitudes`.

    Example:
      >>> import jax.numpy as jnp, fairjax
      >>> tx = fairjax.equal_norms(num_objectives=2)
      >>> rows = jnp.array([[1.0, 0.0], [0.0, 3.0]])
      >>> tx.update(rows, tx.init(jnp.zeros(2)))[0]
      Array([2., 2.], dtype=float32)
    """
    balance = balance_magnitudes(
        "equal_norms", reference=reference, strength=strength, clamp=clamp
    )
    return reconcile(balance, combine(reduction), num_objectives=num_objectives)


random_weighting = transformation(random_weighting_step)
gradnorm = transformation(gradnorm_step)
famo = transformation(famo_step)
uncertainty_weighting = transformation(uncertainty_weighting_step)
imtl_l = transformation(imtl_l_step)
geometric_mean = transformation(geometric_mean_step)
stch = transformation(stch_step)
dwa = transformation(dwa_step)
group_dro = transformation(group_dro_step, step_size=0.01)


def usable_losses(
    name: str, rows: CurrentRows
) -> tuple[Float[Array, " R"], Bool[Array, " R"]]:
    """Returns the rows' losses, and which rows are in use and have a finite loss.

    Raises:
      ValueError: There is not one loss for each row.

    Example:
      >>> import jax.numpy as jnp
      >>> losses = jnp.array([1.0, jnp.nan])
      >>> rows = CurrentRows(jnp.eye(2), jnp.eye(2), losses, None, {})
      >>> usable_losses("dwa", rows)[1]
      Array([ True, False], dtype=bool)
    """
    if rows.losses is None:
        raise ValueError(f"{name} needs the losses: pass losses=values to update.")
    number = len(rows.coefficients)
    if rows.losses.shape != (number,):
        raise ValueError(
            f"{name} needs one loss for each row: {number} rows, losses of shape "
            f"{rows.losses.shape}. Put it before steps that change the number of rows."
        )
    return rows.losses, rows.used & jnp.isfinite(rows.losses)


def loss_ratios(
    losses: Float[Array, " K"],
    initial: Float[Array, " K"],
    used: Bool[Array, " K"],
) -> tuple[Float[Array, " K"], Float[Array, " K"], Bool[Array, " K"]]:
    """Returns relative loss ratios, the first usable losses, and which are known.

    A ratio is a loss divided by the objective's first usable loss, and by the mean of
    these quotients.

    Example:
      >>> import jax.numpy as jnp
      >>> used = jnp.array([True, True])
      >>> loss_ratios(jnp.array([1.0, 6.0]), jnp.array([2.0, 4.0]), used)[0]
      Array([0.5, 1.5], dtype=float32)
    """
    usable = jnp.isfinite(losses) & (losses > 0) & used
    fresh = (initial == 0) & usable
    initial = jnp.where(fresh, losses, initial)
    known = usable & (initial > 0)
    ratios = jnp.where(known, losses / jnp.where(known, initial, 1.0), 0.0)
    mean = jnp.sum(ratios) / jnp.maximum(jnp.sum(known), 1)
    return ratios / jnp.where(mean > 0, mean, 1.0), initial, known


def _reference_norm(
    reference: str | int, norms: Float[Array, " R"], used: Bool[Array, " R"]
) -> Float[Array, ""]:
    if not isinstance(reference, str):
        if not 0 <= reference < norms.shape[0]:
            raise ValueError(
                f"reference must be a row, 0 to {norms.shape[0] - 1}; got {reference}."
            )
        return norms[reference]
    if reference == "min":
        return jnp.min(jnp.where(used, norms, jnp.inf))
    if reference == "max":
        return jnp.max(jnp.where(used, norms, 0.0))
    return jnp.sum(jnp.where(used, norms, 0.0)) / jnp.maximum(jnp.sum(used), 1)


def _move_logits(
    adam: optax.GradientTransformationExtraArgs | optax.GradientTransformation,
    state: FAMOState,
    falls: Float[Array, " K"],
    known: Bool[Array, " K"],
) -> tuple[Float[Array, " K"], Any]:
    """Takes a step of Adam on the logits of objectives with a known fall, if any."""
    shares = jax.nn.softmax(state.logits, where=known)
    shares = jnp.where(known, shares, 0.0)
    slopes = shares * (falls - jnp.sum(shares * falls))
    changes, optimizer = adam.update(
        slopes.astype(jnp.float32), state.optimizer, state.logits
    )
    logits = jnp.where(known, state.logits + jnp.asarray(changes), state.logits)
    moves = jnp.any(known)
    optimizer = jax.tree.map(
        lambda old, new: jnp.where(moves, new, old), state.optimizer, optimizer
    )
    return logits.astype(jnp.float32), optimizer
