"""Weights that take no gradient: drawn at random, or from the course of the losses."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt

from fairjax.keys import as_key
from fairjax.steps._losses import present_rows, require_losses
from fairjax.steps._rows import row_mask
from fairjax.steps._weighting import one_row
from fairjax.types import (
    Coefficients,
    Gramian,
    Mask,
    Scalar,
    Step,
    check_nonnegative,
    check_whole,
    is_known,
)


class RandomWeightingState(NamedTuple):
    """Carried by :func:`random_weighting`.

    Attributes:
      key_data: The data of the key from which the next weights are drawn.
    """

    key_data: UInt[Array, " words"]


class GroupDROState(NamedTuple):
    """Carried by :func:`group_dro`.

    Attributes:
      shares: ``[K]``, the groups' weights; they sum to 1.
    """

    shares: Float[Array, " K"]


class DWAState(NamedTuple):
    """Carried by :func:`dwa`.

    Attributes:
      sums: ``[K]``, the losses of the present period, added up.
      counts: ``[K]``, how many of them there are.
      last: ``[K]``, the mean losses of the last period; 0 where there are none.
      before: ``[K]``, of the period before.
      updates: ``[]``, the updates of the present period so far.
    """

    sums: Float[Array, " K"]
    counts: Int[Array, " K"]
    last: Float[Array, " K"]
    before: Float[Array, " K"]
    updates: Int[Array, ""]


def random_weighting(*, key: Array | int = 0) -> Step:
    r"""Weigh the rows by random shares, drawn anew at each update.

    .. math:: w = \operatorname{softmax}(z), \qquad z_i \sim \mathcal N(0, 1).

    Args:
      key: A key, or a seed; may be traced.

    Returns:
      A step ``[R, K] -> [1, K]``. The rows in use share a weight of 1.

    References:
      Lin et al., *Reasonable Effectiveness of Random Weighting: A Litmus Test for
      Multi-Task Learning*, TMLR 2022.

    Example:
      >>> import jax.numpy as jnp, fairjax
      >>> step = fairjax.steps.random_weighting(key=3)
      >>> weights, state = step.update(jnp.eye(2), jnp.eye(2), step.init(2))
      >>> weights.sum().round(3)
      Array(1., dtype=float32)
    """

    def init(num_objectives: int) -> RandomWeightingState:
        del num_objectives
        return RandomWeightingState(jax.random.key_data(as_key(key)))

    def update(
        coefficients: Coefficients,
        gramian: Gramian,
        state: RandomWeightingState,
        *,
        mask: Mask | None = None,
        **extra: Any,
    ) -> tuple[Float[Array, "1 K"], RandomWeightingState]:
        del extra
        # Zero gradients are told from the diagonal alone: no product of K×K matrices.
        present = jnp.diagonal(gramian) > 0
        used = row_mask(coefficients, present if mask is None else present & mask)
        after, draw = jax.random.split(jax.random.wrap_key_data(state.key_data))
        drawn = jax.random.normal(draw, used.shape, coefficients.dtype)
        weights = jax.nn.softmax(drawn, where=used)
        state = RandomWeightingState(jax.random.key_data(after))
        return one_row(jnp.where(used, weights, 0.0), coefficients), state

    return Step(init, update)


def group_dro(step_size: Scalar) -> Step:
    r"""Weigh the groups' losses by exponentiated ascent on the worst-case loss.

    .. math:: q_k \propto q_k\, e^{\eta\, \ell_k}, \qquad d = \sum_k q_k\, g_k.

    Args:
      step_size: :math:`\eta` ≥ 0; may be traced. 0 gives equal weights.

    Returns:
      A step ``[K, K] -> [1, K]`` that needs ``losses [K]``. Masked groups (those
      without an example in the batch) keep their weight and add nothing.

    Raises:
      ValueError: A negative step size; at the update, no losses, or not one a row.

    References:
      Sagawa et al., *Distributionally Robust Neural Networks for Group Shifts*, ICLR
      2020, algorithm 1.

    Example:
      >>> import jax.numpy as jnp, fairjax
      >>> step = fairjax.steps.group_dro(jnp.log(3.0))
      >>> losses = jnp.array([1.0, 0.0])
      >>> step.update(jnp.eye(2), jnp.eye(2), step.init(2), losses=losses)[0]
      Array([[0.75, 0.25]], dtype=float32)
    """
    check_nonnegative("step_size", step_size)

    def init(num_objectives: int) -> GroupDROState:
        return GroupDROState(jnp.full(num_objectives, 1 / num_objectives, jnp.float32))

    def update(
        coefficients: Coefficients,
        gramian: Gramian,
        state: GroupDROState,
        *,
        losses: Float[Array, " K"] | None = None,
        mask: Mask | None = None,
        **extra: Any,
    ) -> tuple[Float[Array, "1 K"], GroupDROState]:
        del gramian, extra
        losses = require_losses("group_dro", losses, coefficients)
        present = present_rows(losses, coefficients, mask)
        exponents = step_size * jnp.where(present, losses, 0.0)
        # Only what would overflow is moved; the shares are the same.
        exponents -= jnp.maximum(jnp.max(exponents) - 60.0, 0.0)
        grown = state.shares * jnp.exp(exponents)
        # Only the weights present share what they had, so that absence costs nothing.
        share = jnp.sum(jnp.where(present, state.shares, 0.0))
        total = jnp.sum(jnp.where(present, grown, 0.0))
        scale = share / jnp.where(total > 0, total, 1.0)
        weights = jnp.where(present, grown * scale, state.shares)
        weights = weights.astype(jnp.float32)
        used = jnp.where(present, weights, 0.0)
        return one_row(used, coefficients), GroupDROState(weights)

    return Step(init, update)


def dwa(*, every: int = 1, temperature: Scalar = 2.0) -> Step:
    r"""Weigh objectives by how slowly their losses fall (dynamic weight average).

    With :math:`L_k(t)` the mean loss of period :math:`t`,

    .. math:: r_k = \frac{L_k(t-1)}{L_k(t-2)}, \qquad
        w_k = m\, \frac{e^{r_k / T}}{\sum_i e^{r_i / T}}

    for m objectives in use; 1 each during the first two periods, in which the ratio is
    not yet known.

    Args:
      every: The updates of a period: in the paper, those of an epoch. Over single
        batches the ratios are mostly noise.
      temperature: :math:`T > 0`; large for nearly equal weights; may be traced.

    Returns:
      A step ``[K, K] -> [1, K]`` that needs ``losses [K]``. A masked objective adds
      nothing to the update or to its mean. One without two usable means, positive ones,
      has the ratio 1.

    Raises:
      ValueError: An ``every`` below 1 or a temperature that is not positive; at the
        update, no losses, or not one a row.

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
    """
    check_whole("every", every)
    if is_known(temperature) and not temperature > 0:
        raise ValueError(f"temperature must be positive, not {temperature}.")

    def init(num_objectives: int) -> DWAState:
        # Each its own buffer, so that the state can be donated.
        return DWAState(
            sums=jnp.zeros(num_objectives, jnp.float32),
            counts=jnp.zeros(num_objectives, jnp.int32),
            last=jnp.zeros(num_objectives, jnp.float32),
            before=jnp.zeros(num_objectives, jnp.float32),
            updates=jnp.zeros((), jnp.int32),
        )

    def update(
        coefficients: Coefficients,
        gramian: Gramian,
        state: DWAState,
        *,
        losses: Float[Array, " K"] | None = None,
        mask: Mask | None = None,
        **extra: Any,
    ) -> tuple[Float[Array, "1 K"], DWAState]:
        del gramian, extra
        losses = require_losses("dwa", losses, coefficients)
        present = present_rows(losses, coefficients, mask)
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
        return one_row(weights, coefficients), state

    return Step(init, update)
