r"""PCGrad, FairGrad and GradVac: pairwise projections of gradients."""

import functools
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, UInt

from fairjax.keys import as_key
from fairjax.reconcilers._orders import Order, check_order, is_drawn, row_orders
from fairjax.reconcilers._units import matmul, usable_rows
from fairjax.reconcilers.core import CurrentRows, Step, make_step, reconcile
from fairjax.reconcilers.weights import balance_magnitudes, combine
from fairjax.types import (
    Scalar,
    check_choice,
    check_nonnegative,
    known_number,
    vary_like,
)

Condition = Literal["conflict", "always"]

PCGRAD_VARIANTS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "paper": MappingProxyType({}),
        "tensorflow": MappingProxyType({"order": "numbered", "include_self": True}),
        "pytorch": MappingProxyType({"include_self": True, "reduction": "mean"}),
        "libmtl": MappingProxyType({"include_self": True}),
        "torchjd": MappingProxyType({}),
    }
)
"""Options of :func:`pcgrad` that reproduce published versions.

``fairjax.pcgrad(num_objectives=3, **fairjax.PCGRAD_VARIANTS["libmtl"])``.

- ``"paper"``: algorithm 1 of Yu et al. (2020), which is the default: a random order for
  each objective, without the objective itself; the sum.
- ``"tensorflow"``: the authors' code (github.com/tianheyu927/PCGrad, commit 56b661f):
  the order of the objectives' numbers, because the code shuffles but drops the result;
  each objective also meets its own gradient; the sum.
- ``"pytorch"``: github.com/WeiChengTseng/Pytorch-PCGrad (commit 7b8860f): random orders
  that include the objective itself; the mean.
- ``"libmtl"``: LibMTL's ``PCGrad`` (commit 2d842d6): as ``"pytorch"``, but the sum.
- ``"torchjd"``: TorchJD 0.18's ``PCGrad``: as the paper.

With three objectives or more, a projected row can conflict with the original gradient
of the same row, so ``include_self`` changes a few updates.
"""


class ProjectConflictsState(NamedTuple):
    """State of :func:`project_conflicts`.

    Attributes:
      key_data: The data of the key from which the next order is drawn.
    """

    key_data: UInt[Array, " words"]


class GradVacState(NamedTuple):
    """State of :func:`gradvac`.

    Attributes:
      targets: ``[K, K]``, the target of the cosine between row ``i`` and row ``j``; at
        first 0.
      key_data: The data of the key from which the next order is drawn; None where the
        order is given.
    """

    targets: Float[Array, "K K"]
    key_data: UInt[Array, " words"] | None


@functools.partial(jax.jit, static_argnames=("condition", "include_self"))
def solve_project_conflicts(
    gramian: Float[Array, "R R"],
    order: Int[Array, "R R"],
    *,
    condition: Condition = "conflict",
    include_self: bool = False,
    epsilon: float | Float[Array, ""] = 0.0,
    mask: Bool[Array, " R"] | None = None,
) -> Float[Array, "R R"]:
    r"""Projects each row off the rows that conflict with it (PCGrad).

    Each row :math:`i` starts from :math:`\tilde g_i = g_i`, and meets the other rows
    :math:`j` in the order given for row :math:`i`:

    .. math:: \tilde g_i \leftarrow \tilde g_i
        - \frac{\tilde g_i \cdot g_j}{\|g_j\|^2 + \epsilon}\, g_j
        \quad\text{if } \tilde g_i \cdot g_j < 0,

    with the original :math:`g_j`. The formula needs inner products only, so the result
    is a matrix :math:`T` with :math:`\tilde g_i = \sum_j T_{ij} g_j`. The rows are
    projected in parallel, so that R vectorised steps do the R² projections.

    With three rows or more the result may still conflict with a row, because a later
    projection can undo an earlier projection.

    Args:
      gramian: ``[R, R]`` inner products of the rows.
      order: ``[R, R]``; row ``i`` holds the order in which row ``i`` meets the others.
        The row's own number is ignored, unless ``include_self``.
      condition: ``"conflict"`` projects where the inner product is negative;
        ``"always"`` projects off every other row.
      include_self: Whether a row also meets its own original gradient, as in some
        published code. A projected row may conflict with its original gradient.
      epsilon: Added to the squared norm in the denominator.
      mask: ``[R]``; rows where the mask is False are neither projected nor projected
        off.

    Returns:
      ``T [R, R]``: row ``i`` holds the coefficients of the projected row ``i``.

    References:
      Yu et al., *Gradient Surgery for Multi-Task Learning*, NeurIPS 2020, algorithm 1.

    Example:
      The rows (1, 0) and (−1, −1) become (.5, −.5) and (0, −1):

      >>> import jax.numpy as jnp
      >>> from fairjax import solvers
      >>> order = jnp.array([[0, 1], [0, 1]])
      >>> solvers.project_conflicts(jnp.array([[1.0, -1.0], [-1.0, 2.0]]), order)
      Array([[1. , 0.5],
             [1. , 1. ]], dtype=float32)
    """
    check_choice("condition", condition, "conflict", "always")
    rows = gramian.shape[0]
    row = jnp.arange(rows)
    norms = jnp.diagonal(gramian) + epsilon
    usable = jnp.diagonal(gramian) > 0
    if mask is not None:
        usable &= mask

    def project(step, carry):
        # products[i] = the inner products of the current row i with every row.
        coefficients, products = carry
        other = order[:, step]
        inner = products[row, other]
        applies = usable & usable[other]
        if not include_self:
            applies &= other != row
        if condition == "conflict":
            applies &= inner < 0
        share = jnp.where(applies, inner / jnp.where(applies, norms[other], 1.0), 0.0)
        coefficients = coefficients.at[row, other].add(-share)
        products = products - share[:, None] * gramian[other]
        return coefficients, products

    start = jnp.eye(rows, dtype=gramian.dtype), gramian
    return jax.lax.fori_loop(0, rows, project, vary_like(start, gramian))[0]


@jax.jit
def solve_gradvac(
    gramian: Float[Array, "R R"],
    order: Int[Array, "R R"],
    targets: Float[Array, "R R"],
    *,
    beta: float | Float[Array, ""] = 0.01,
    mask: Bool[Array, " R"] | None = None,
) -> tuple[Float[Array, "R R"], Float[Array, "R R"]]:
    r"""Raises each row's cosines with the other rows to moving targets (GradVac).

    Each row :math:`i` starts from :math:`\tilde g_i = g_i`, and meets the other rows
    :math:`j` in the order given for row :math:`i`. With :math:`\phi` the cosine between
    :math:`\tilde g_i` and :math:`g_j`, where :math:`\phi < \hat\phi_{ij}`

    .. math:: \tilde g_i \leftarrow \tilde g_i
        + \frac{\|\tilde g_i\| \left(\hat\phi_{ij} \sqrt{1 - \phi^2}
        - \phi \sqrt{1 - \hat\phi_{ij}^2}\right)}
        {\|g_j\| \sqrt{1 - \hat\phi_{ij}^2}}\, g_j,

    after which the cosine is :math:`\hat\phi_{ij}`. Then the target follows:
    :math:`\hat\phi_{ij} \leftarrow (1 - \beta) \hat\phi_{ij} + \beta \phi`. With
    targets of 0 this is :func:`fairjax.solvers.project_conflicts`.

    Args:
      gramian: ``[R, R]`` inner products of the rows.
      order: ``[R, R]``; row ``i`` holds the order in which row ``i`` meets the others.
      targets: ``[R, R]`` in (−1, 1): :math:`\hat\phi`; at first zeros.
      beta: The weight of the newest cosine in its target, in [0, 1]; may be traced.
      mask: ``[R]``; rows where the mask is False are left out and unchanged, and keep
        their targets.

    Returns:
      ``T [R, R]``, whose row ``i`` holds the coefficients of the new row ``i``; and the
      targets for the next update.

    References:
      Wang et al., *Gradient Vaccine: Investigating and Improving Multi-task
      Optimization in Massively Multilingual Models*, ICLR 2021, algorithm 1.

    Example:
      Rows of the lengths 1 and 4, with a cosine of −½. At first both are projected:

      >>> import jax.numpy as jnp
      >>> from fairjax import solvers
      >>> order = jnp.array([[0, 1], [0, 1]])
      >>> gram = jnp.array([[1.0, -2.0], [-2.0, 16.0]])
      >>> rows, targets = solvers.gradvac(gram, order, jnp.zeros((2, 2)), beta=0.5)
      >>> rows
      Array([[1.   , 0.125],
             [2.   , 1.   ]], dtype=float32)
      >>> targets
      Array([[ 0.  , -0.25],
             [-0.25,  0.  ]], dtype=float32)
    """
    rows = gramian.shape[0]
    row = jnp.arange(rows)
    used = usable_rows(gramian, mask)
    norms = jnp.sqrt(jnp.where(used, jnp.diagonal(gramian), 1.0))
    # A cosine of 1 would need an infinite multiple of the other row.
    most = 1.0 - jnp.finfo(gramian.dtype).eps

    def raise_cosines(step, carry):
        # products[i] and lengths[i]: inner products with every row, and length, of
        # the current row i.
        coefficients, products, lengths, expected = carry
        other = order[:, step]
        meets = (other != row) & used & used[other]
        cosines = products[row, other] / norms[other]
        cosines = jnp.clip(cosines / jnp.where(lengths > 0, lengths, 1.0), -1.0, 1.0)
        wanted = expected[row, other]
        aim = jnp.clip(wanted, -most, most)
        aside = jnp.sqrt((1 - cosines) * (1 + cosines))
        aside_then = jnp.sqrt((1 - aim) * (1 + aim))
        applies = meets & (cosines < wanted) & (lengths > 0)
        share = lengths / norms[other] * (aim * aside / aside_then - cosines)
        share = jnp.where(applies, share, 0.0)
        coefficients = coefficients.at[row, other].add(share)
        products = products + share[:, None] * gramian[other]
        # The part orthogonal to the other row stays; its fraction is now aside_then.
        lengths = jnp.where(applies, lengths * aside / aside_then, lengths)
        followed = jnp.where(meets, wanted + beta * (cosines - wanted), wanted)
        expected = expected.at[row, other].set(followed)
        return coefficients, products, lengths, expected

    start = (
        jnp.eye(rows, dtype=gramian.dtype),
        gramian,
        norms,
        targets.astype(gramian.dtype),
    )
    found = jax.lax.fori_loop(0, rows, raise_cosines, vary_like(start, gramian))
    return found[0], found[3].astype(targets.dtype)


def project_conflicts(
    *,
    condition: Condition = "conflict",
    order: Order | Sequence[int] | Int[Array, "R R"] = "random",
    include_self: bool = False,
    epsilon: Scalar = 0.0,
    key: Array | int = 0,
) -> Step:
    r"""Projects each row off the rows that conflict with it.

    See :func:`fairjax.solvers.project_conflicts` for the formula.

    Args:
      condition: ``"conflict"`` (the default, as in PCGrad) or ``"always"``.
      order: The order in which a row meets the others. ``"random"`` (the default) draws
        an order for each row, ``"shared"`` one order for all rows. ``"numbered"``
        starts at row 0. A sequence of row numbers is an order for all rows; ``[R, R]``
        gives an order for each row.
      include_self: Whether a row also meets its own original gradient, as in some
        implementations, but not in the paper.
      epsilon: A fraction ε ≥ 0 of the greatest squared norm among the rows in use,
        added to the squared norms in the denominators; may be traced. Rows are then
        projected only in part off a much shorter row, such as a fairness gradient near
        parity, which is mostly noise. The step stays equivariant to scale.
      key: A key, or a seed, from which random orders are drawn; may be traced.

    Returns:
      A step ``[R, K] -> [R, K]``.

    Raises:
      ValueError: The condition or the order is unknown; a given order is not a
        permutation; epsilon is below 0. At the update: the order has another length.

    References:
      Yu et al., *Gradient Surgery for Multi-Task Learning*, NeurIPS 2020.

    Example:
      >>> import jax.numpy as jnp, fairjax
      >>> step = fairjax.steps.project_conflicts(order=[0, 1])
      >>> gram = jnp.array([[1.0, -1.0], [-1.0, 2.0]])
      >>> step.update(jnp.eye(2), gram, step.init(2))[0]
      Array([[1. , 0.5],
             [1. , 1. ]], dtype=float32)
    """
    check_choice("condition", condition, "conflict", "always")
    check_nonnegative("epsilon", epsilon)
    check_order(order)

    def init(number: int) -> ProjectConflictsState | optax.EmptyState:
        del number
        if not is_drawn(order):
            return optax.EmptyState()
        # Raw key data: optax's tree arithmetic cannot handle typed keys.
        return ProjectConflictsState(jax.random.key_data(as_key(key)))

    def update(rows: CurrentRows, state: Any) -> tuple[Array, Any]:
        data = state.key_data if is_drawn(order) else None
        orders, data = row_orders(order, len(rows.coefficients), data)
        if data is not None:
            state = ProjectConflictsState(data)
        own, used = rows.own, rows.used
        longest = jnp.max(jnp.where(used, jnp.diagonal(own), 0.0))
        projected = solve_project_conflicts(
            own,
            orders,
            condition=condition,
            include_self=include_self,
            epsilon=jnp.asarray(epsilon) * longest,
            mask=used,
        )
        return matmul(projected, rows.coefficients), state

    return make_step(update, init)


def gradvac_step(
    *,
    beta: Scalar = 0.01,
    order: Order | Sequence[int] | Int[Array, "R R"] = "random",
    key: Array | int = 0,
) -> Step:
    r"""Raises each row's cosines with the other rows to their running means (GradVac).

    See :func:`fairjax.solvers.gradvac` for the formula. Like PCGrad, the step keeps the
    number of rows; ``steps.combine`` adds the rows up.

    Args:
      beta: The weight of the newest cosine in its running mean, in [0, 1]; may be
        traced. With 0 the targets stay 0, which is PCGrad.
      order: The order in which a row meets the others; see
        :func:`fairjax.steps.project_conflicts`.
      key: A key, or a seed, from which random orders are drawn; may be traced.

    Returns:
      A step ``[K, K] -> [K, K]``. Rows that are zero or masked keep their targets.

    Raises:
      ValueError: beta lies outside [0, 1]; the order is unknown, or is not a
        permutation. At the update: a previous step changed the number of rows.

    References:
      Wang et al., *Gradient Vaccine: Investigating and Improving Multi-task
      Optimization in Massively Multilingual Models*, ICLR 2021.

    Example:
      >>> import jax.numpy as jnp, fairjax
      >>> step = fairjax.steps.gradvac(order=[0, 1], beta=0.5)
      >>> gram = jnp.array([[1.0, -2.0], [-2.0, 16.0]])
      >>> rows, state = step.update(jnp.eye(2), gram, step.init(2))
      >>> rows
      Array([[1.   , 0.125],
             [2.   , 1.   ]], dtype=float32)
      >>> state.targets
      Array([[ 0.  , -0.25],
             [-0.25,  0.  ]], dtype=float32)
    """
    number = known_number("beta", beta)
    if number is not None and not 0 <= number <= 1:
        raise ValueError(f"beta must lie in [0, 1]; got {beta}.")
    check_order(order)

    def init(number: int) -> GradVacState:
        data = jax.random.key_data(as_key(key)) if is_drawn(order) else None
        return GradVacState(jnp.zeros((number, number), jnp.float32), data)

    def update(rows: CurrentRows, state: GradVacState) -> tuple[Array, GradVacState]:
        number = len(rows.coefficients)
        if state.targets.shape != (number, number):
            raise ValueError(
                f"gradvac keeps a target for each pair of {len(state.targets)} rows; "
                f"there are {number} rows. Put it before steps that change their "
                "number."
            )
        orders, data = row_orders(order, number, state.key_data)
        found, targets = solve_gradvac(
            rows.own, orders, state.targets, beta=jnp.asarray(beta), mask=rows.used
        )
        return matmul(found, rows.coefficients), GradVacState(targets, data)

    return make_step(update, init)


def pcgrad(
    *,
    num_objectives: int,
    reduction: Literal["sum", "mean"] = "sum",
    condition: Condition = "conflict",
    order: Order | Sequence[int] | Int[Array, "K K"] = "random",
    include_self: bool = False,
    epsilon: Scalar = 0.0,
    key: Array | int = 0,
) -> optax.GradientTransformationExtraArgs:
    """Projects conflicting gradients off each other, then adds them up (PCGrad).

    This is ``reconcile(steps.project_conflicts(...), steps.combine(reduction))``. For
    the formula, the arguments and the errors see
    :func:`fairjax.steps.project_conflicts`. Published implementations differ;
    :data:`fairjax.PCGRAD_VARIANTS` has their options.

    References:
      Yu et al., *Gradient Surgery for Multi-Task Learning*, NeurIPS 2020.

    Example:
      >>> import jax.numpy as jnp, fairjax
      >>> tx = fairjax.pcgrad(num_objectives=2)
      >>> rows = jnp.array([[1.0, 0.0], [-1.0, -1.0]])
      >>> tx.update(rows, tx.init(jnp.zeros(2)))[0]
      Array([ 0.5, -1.5], dtype=float32)
    """
    # Without a strength, FairGrad is the same chain of steps.
    return fairgrad(
        num_objectives=num_objectives,
        reduction=reduction,
        condition=condition,
        order=order,
        include_self=include_self,
        epsilon=epsilon,
        key=key,
    )


def fairgrad(
    *,
    num_objectives: int,
    strength: Scalar | None = None,
    limit: Scalar | None = None,
    reduction: Literal["sum", "mean"] = "sum",
    condition: Condition = "conflict",
    order: Order | Sequence[int] | Int[Array, "K K"] = "random",
    include_self: bool = False,
    epsilon: Scalar = 0.0,
    key: Array | int = 0,
) -> optax.GradientTransformationExtraArgs:
    r"""Reconciles the task's gradient with fairness gradients (FairGrad).

    Objective 0 is the task's loss. The other objectives are fairness losses, such as
    :func:`fairjax.losses.equalized_odds` of each sensitive attribute. Each gradient is
    projected onto the orthogonal planes of the others (:func:`fairjax.pcgrad`); then
    the gradients are added up.

    With a ``strength`` :math:`\beta`, each fairness gradient is first scaled to
    :math:`\beta` times the length of the task's gradient. The factor is at most
    ``limit``. This scaling is ours, not the paper's. Without scaling, the gradient of a
    small surrogate would be lost, and the gradient of a large surrogate would dominate.
    Near parity a fairness gradient is mostly noise; the limit keeps this noise from
    being scaled up.

    The paper leaves the condition, the order and the reduction open. Here they are
    arguments, with PCGrad's choices as defaults.

    Args:
      num_objectives: The number of objectives, K: the task and K − 1 fairness losses.
      strength: None (as published) or :math:`\beta` ≥ 0; may be traced.
      limit: The greatest factor by which a fairness gradient is scaled, or None; needs
        a strength; may be traced.
      reduction: ``"sum"`` or ``"mean"``.
      condition: ``"conflict"`` or ``"always"`` (unconditional projection).
      order: See :func:`fairjax.steps.project_conflicts`.
      include_self: See :func:`fairjax.steps.project_conflicts`.
      epsilon: See :func:`fairjax.steps.project_conflicts`.
      key: See :func:`fairjax.steps.project_conflicts`.

    Raises:
      ValueError: The strength or the limit is negative; there is a limit without a
        strength; and as :func:`fairjax.steps.project_conflicts`.

    References:
      Wang and Yang, *Balancing Fairness and Performance in Healthcare AI: A Gradient
      Reconciliation Approach*, 2025. Not the alpha-fair FairGrad of Ban and Ji (2024),
      nor the reweighting FairGrad of Maheshwari and Perrot (2022).

    Example:
      >>> import jax.numpy as jnp, fairjax
      >>> tx = fairjax.fairgrad(num_objectives=2, strength=0.5)
      >>> rows = jnp.array([[2.0, 0.0], [0.0, 10.0]])
      >>> tx.update(rows, tx.init(jnp.zeros(2)))[0]
      Array([2., 1.], dtype=float32)
    """
    chain = [
        project_conflicts(
            condition=condition,
            order=order,
            include_self=include_self,
            epsilon=epsilon,
            key=key,
        ),
        combine(reduction),
    ]
    if strength is None and limit is not None:
        raise ValueError("limit bounds the scaling by strength: give a strength too.")
    if strength is not None:
        clamp = None if limit is None else (0.0, limit)
        balance = balance_magnitudes(reference=0, strength=strength, clamp=clamp)
        chain.insert(0, balance)
    return reconcile(*chain, num_objectives=num_objectives)


def gradvac(
    *,
    num_objectives: int,
    beta: Scalar = 0.01,
    order: Order | Sequence[int] | Int[Array, "K K"] = "random",
    reduction: Literal["sum", "mean"] = "sum",
    key: Array | int = 0,
) -> optax.GradientTransformationExtraArgs:
    """Raises the gradients' cosines to their running means, then adds up (GradVac).

    This is ``reconcile(steps.gradvac(...), steps.combine(reduction))``. For the
    formula, the arguments and the errors see :func:`fairjax.steps.gradvac`.

    References:
      Wang et al., *Gradient Vaccine: Investigating and Improving Multi-task
      Optimization in Massively Multilingual Models*, ICLR 2021.

    Example:
      >>> import jax.numpy as jnp, fairjax
      >>> tx = fairjax.gradvac(num_objectives=2)
      >>> rows = jnp.array([[1.0, 0.0], [-1.0, -1.0]])
      >>> tx.update(rows, tx.init(jnp.zeros(2)))[0]
      Array([ 0.5, -1.5], dtype=float32)
    """
    return reconcile(
        gradvac_step(beta=beta, order=order, key=key),
        combine(reduction),
        num_objectives=num_objectives,
    )
