r"""Coefficient steps: the algebra of reconciliation.

A reconciler never needs the gradients themselves, only which combination of them each
current row is: a matrix :math:`C` [R, K], at first the identity. A step maps
:math:`C \to C'`; the rows' own Gram matrix is :math:`C G C^\top`. Steps chain in
:func:`fairjax.reconcile`.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, UInt

from fairjax.solvers import projection
from fairjax.types import Coefficients, Gramian, Mask, Scalar, Step, is_known

Order = Literal["random", "shared"]


class ProjectConflictsState(NamedTuple):
    """Carried by :func:`project_conflicts`.

    Attributes:
      key_data: The data of the key from which the next order is drawn.
    """

    key_data: UInt[Array, " words"]


def project_conflicts(
    *,
    condition: projection.Condition = "conflict",
    order: Order | Sequence[int] | Int[Array, "R R"] = "random",
    epsilon: Scalar = 0.0,
    key: Array | int = 0,
) -> Step:
    r"""Project each row off the rows that it conflicts with.

    See :func:`fairjax.solvers.project_conflicts` for the formula.

    Args:
      condition: ``"conflict"`` (the default, as PCGrad) or ``"always"``.
      order: In which order a row meets the others. ``"random"`` (default) draws one
        for each row, ``"shared"`` one for all rows; a sequence of the rows' numbers
        is an order for all rows; ``[R, R]`` gives each row its own.
      epsilon: A share ε ≥ 0 of the greatest squared norm among the rows in use, added
        to the squared norms that are divided by; may be traced. A row that is short
        beside the others (a fairness gradient near parity is mostly noise) is then
        projected off in part only, and the step stays equivariant to scale.
      key: A key, or a seed, from which random orders are drawn; may be traced.

    Returns:
      A step ``[R, K] -> [R, K]``.

    Raises:
      ValueError: An unknown condition; an order that is unknown, or in which a row's
        number is missing; an epsilon below 0; at the update, an order of another
        length.

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
    named = isinstance(order, str)
    if named and order not in ("random", "shared"):
        raise ValueError(f"order is 'random', 'shared' or numbers, not {order!r}.")
    if condition not in ("conflict", "always"):
        raise ValueError(f"condition is 'conflict' or 'always', not {condition!r}.")
    if is_known(epsilon) and not epsilon >= 0:
        raise ValueError(f"epsilon must be 0 or more, not {epsilon}.")
    if not named and not _holds_each_row_once(order):
        raise ValueError(
            "an order holds each row's number, from 0, once; not "
            f"{np.asarray(order).tolist()}."
        )

    def init(num_objectives: int) -> ProjectConflictsState | optax.EmptyState:
        del num_objectives
        if not named:
            return optax.EmptyState()
        # Raw key data: optax's tree arithmetic cannot handle typed keys.
        return ProjectConflictsState(jax.random.key_data(as_key(key)))

    def update(
        coefficients: Coefficients,
        gramian: Gramian,
        state: Any,
        *,
        mask: Mask | None = None,
        **extra: Any,
    ) -> tuple[Coefficients, Any]:
        del extra
        rows = coefficients.shape[0]
        if named:
            key, draw = jax.random.split(jax.random.wrap_key_data(state.key_data))
            state = ProjectConflictsState(jax.random.key_data(key))
            if order == "random":
                keys = jax.random.split(draw, rows)
                orders = jax.vmap(lambda k: jax.random.permutation(k, rows))(keys)
            else:
                shared = jax.random.permutation(draw, rows)
                orders = jnp.broadcast_to(shared, (rows, rows))
        else:
            orders = jnp.asarray(order)
            if orders.shape not in ((rows,), (rows, rows)):
                raise ValueError(
                    f"an order for {rows} rows has shape ({rows},) or "
                    f"({rows}, {rows}), not {orders.shape}."
                )
            orders = jnp.broadcast_to(orders, (rows, rows))
        own = row_gramian(coefficients, gramian)
        used = row_mask(coefficients, mask)
        longest = jnp.max(jnp.where(used, jnp.diagonal(own), 0.0))
        projected = projection.project_conflicts(
            own,
            orders,
            condition=condition,
            epsilon=jnp.asarray(epsilon) * longest,
            mask=used,
        )
        return _matmul(projected, coefficients), state

    return Step(init, update)


class BalanceMagnitudesState(NamedTuple):
    """Carried by :func:`balance_magnitudes` in mode ``"loss_ratio"``.

    Attributes:
      initial_losses: ``[K]``, the first finite positive loss seen of each objective;
        0 until then.
    """

    initial_losses: Float[Array, " K"]


def balance_magnitudes(
    mode: Literal["equal_norms", "loss_ratio", "none"] = "equal_norms",
    *,
    reference: Literal["mean", "min", "max"] | int = "mean",
    strength: Scalar | Sequence[float] | Float[Array, " R"] = 1.0,
    clamp: tuple[Scalar, Scalar] | None = None,
) -> Step:
    r"""Scale each row by a positive factor, so that no objective drowns another.

    - ``"equal_norms"``: :math:`\alpha_i = \beta_i\, \nu / \|g_i\|`, where :math:`\nu`
      is the reference norm: the mean, least or greatest norm of the rows in use, or
      the norm of row ``reference``. That row itself keeps its length, so with
      ``reference=0, strength=0.3`` every other gradient gets 0.3 of the first's norm;
      where it is zero or masked there is no length to take, and all keep theirs.
    - ``"loss_ratio"``: :math:`\alpha_i = \beta_i\, r_i / \bar r` with
      :math:`r_i = \ell_i / \ell_i^0`: objectives whose loss has fallen less get more
      weight (the relative inverse training rate of GradNorm). Needs ``losses``.
    - ``"none"``: :math:`\alpha_i = \beta_i`.

    Args:
      mode: One of the above.
      reference: See above; read in mode ``"equal_norms"`` only.
      strength: :math:`\beta`, one number or one for each row, ≥ 0; may be traced.
      clamp: The least and the greatest factor allowed, if any; may be traced.

    Returns:
      A step ``[R, K] -> [R, K]``. Zero and masked rows keep the factor 1.

    Raises:
      ValueError: An unknown mode or reference; at the update, mode ``"loss_ratio"``
        without losses, after a step that changed the number of rows, or a strength or
        reference that does not fit the number of rows.

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
    if mode not in ("equal_norms", "loss_ratio", "none"):
        raise ValueError(
            f"mode is 'equal_norms', 'loss_ratio' or 'none', not {mode!r}."
        )
    if isinstance(reference, str) and reference not in ("mean", "min", "max"):
        raise ValueError(
            f"reference is 'mean', 'min', 'max' or a row's number, not {reference!r}."
        )

    def init(num_objectives: int) -> BalanceMagnitudesState | optax.EmptyState:
        if mode != "loss_ratio":
            return optax.EmptyState()
        return BalanceMagnitudesState(jnp.zeros(num_objectives, jnp.float32))

    def update(
        coefficients: Coefficients,
        gramian: Gramian,
        state: Any,
        *,
        losses: Float[Array, " K"] | None = None,
        mask: Mask | None = None,
        **extra: Any,
    ) -> tuple[Coefficients, Any]:
        del extra
        rows = coefficients.shape[0]
        beta = jnp.asarray(strength, coefficients.dtype)
        if beta.shape not in ((), (rows,)):
            raise ValueError(
                f"strength is one number or {rows}, one a row; not {beta.shape}."
            )
        factors = jnp.broadcast_to(beta, (rows,))
        used = row_mask(coefficients, mask)
        if mode == "equal_norms":
            squares = jnp.diagonal(row_gramian(coefficients, gramian))
            used &= squares > 0
            norms = jnp.sqrt(jnp.where(used, squares, 1.0))
            level = _reference_norm(reference, norms, used)
            factors = factors * level / norms
            if not isinstance(reference, str):
                used &= used[reference]
        elif mode == "loss_ratio":
            if losses is None:
                raise ValueError(
                    "balance_magnitudes('loss_ratio') needs the losses: pass "
                    "losses=values to update."
                )
            if state.initial_losses.shape != (rows,) or losses.shape != (rows,):
                raise ValueError(
                    "balance_magnitudes('loss_ratio') needs one loss for each row: "
                    f"{rows} rows, losses of shape {losses.shape}. Put it before "
                    "steps that change the number of rows."
                )
            ratios, state, known = _loss_ratios(losses, state, used)
            factors = jnp.where(known, factors * ratios, factors)
        if clamp is not None:
            factors = jnp.clip(factors, clamp[0], clamp[1])
        if mode == "equal_norms" and not isinstance(reference, str):
            factors = factors.at[reference].set(1.0)
        return jnp.where(used, factors, 1.0)[:, None] * coefficients, state

    return Step(init, update)


def combine(
    reduction: Literal["sum", "mean"] | Sequence[float] | Float[Array, " R"] = "sum",
) -> Step:
    r"""Add the rows up into the one row that becomes the update.

    ``"sum"`` is :math:`\sum_i g_i`; ``"mean"`` divides by the number of rows in use;
    weights ``[R]`` give :math:`\sum_i w_i g_i`.

    Returns:
      A step ``[R, K] -> [1, K]``.

    Raises:
      ValueError: An unknown reduction, or weights that do not fit the rows.

    Example:
      >>> import jax.numpy as jnp, fairjax
      >>> step = fairjax.steps.combine("mean")
      >>> step.update(jnp.eye(2), jnp.eye(2), step.init(2))[0]
      Array([[0.5, 0.5]], dtype=float32)
    """
    named = isinstance(reduction, str)
    if named and reduction not in ("sum", "mean"):
        raise ValueError(f"reduction is 'sum', 'mean' or weights, not {reduction!r}.")

    def init(num_objectives: int) -> optax.EmptyState:
        del num_objectives
        return optax.EmptyState()

    def update(
        coefficients: Coefficients,
        gramian: Gramian,
        state: Any,
        *,
        mask: Mask | None = None,
        **extra: Any,
    ) -> tuple[Float[Array, "1 K"], Any]:
        del gramian, extra
        rows = coefficients.shape[0]
        used = row_mask(coefficients, mask).astype(coefficients.dtype)
        if not named:
            weights = jnp.asarray(reduction, coefficients.dtype)
            if weights.shape != (rows,):
                raise ValueError(
                    f"combine needs {rows} weights, one a row; not {weights.shape}."
                )
            used = used * weights
        elif reduction == "mean":
            used = used / jnp.maximum(jnp.sum(used), 1)
        return jnp.sum(used[:, None] * coefficients, axis=0, keepdims=True), state

    return Step(init, update)


def row_gramian(coefficients: Coefficients, gramian: Gramian) -> Float[Array, "R R"]:
    """The current rows' own inner products, ``C G Cᵀ``.

    Example:
      >>> import jax.numpy as jnp
      >>> row_gramian(jnp.array([[2.0, 1.0]]), jnp.eye(2))
      Array([[5.]], dtype=float32)
    """
    return _matmul(_matmul(coefficients, gramian), coefficients.T)


def row_mask(coefficients: Coefficients, mask: Mask | None) -> Bool[Array, " R"]:
    """Which rows use at least one objective that is not masked.

    Example:
      >>> import jax.numpy as jnp
      >>> rows = jnp.array([[1.0, 2.0], [0.0, 1.0]])
      >>> row_mask(rows, jnp.array([True, False]))
      Array([ True, False], dtype=bool)
    """
    used = coefficients != 0
    return jnp.any(used if mask is None else used & mask, axis=1)


def _matmul(left: Array, right: Array) -> Array:
    return jnp.matmul(left, right, precision=jax.lax.Precision.HIGHEST)


def as_key(key: Array | int) -> Array:
    """A typed key from a seed, a key's raw data, or a typed key.

    Raises:
      ValueError: Several keys, or a key of another kind than JAX's default, which its
        data alone could not be told from.

    Example:
      >>> import jax
      >>> bool(as_key(3) == jax.random.key(3))
      True
    """
    array = jnp.asarray(key)
    typed = jnp.issubdtype(array.dtype, jax.dtypes.prng_key)
    if array.ndim == 0 and not typed:
        return jax.random.key(array)
    data = jax.random.key_data(array) if typed else array
    words = jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0)))
    if data.shape != words.shape:
        raise ValueError(
            "key is a seed or one key of JAX's default kind (jax_default_prng_impl), "
            f"whose data have shape {words.shape}; not {data.shape}."
        )
    return array if typed else jax.random.wrap_key_data(array)


def _holds_each_row_once(order: Any) -> bool:
    """False for an order, or one of several, that is no permutation."""
    if not is_known(order):
        return True
    numbers = np.asarray(order)
    if numbers.ndim not in (1, 2) or not np.issubdtype(numbers.dtype, np.integer):
        return False
    return bool((np.sort(numbers) == np.arange(numbers.shape[-1])).all())


def _reference_norm(
    reference: str | int, norms: Float[Array, " R"], used: Bool[Array, " R"]
) -> Float[Array, ""]:
    if not isinstance(reference, str):
        if not 0 <= reference < norms.shape[0]:
            raise ValueError(
                f"reference row {reference} does not exist: there are "
                f"{norms.shape[0]} rows, from 0."
            )
        return norms[reference]
    if reference == "min":
        return jnp.min(jnp.where(used, norms, jnp.inf))
    if reference == "max":
        return jnp.max(jnp.where(used, norms, 0.0))
    return jnp.sum(jnp.where(used, norms, 0.0)) / jnp.maximum(jnp.sum(used), 1)


def _loss_ratios(
    losses: Float[Array, " K"],
    state: BalanceMagnitudesState,
    used: Bool[Array, " K"],
) -> tuple[Float[Array, " K"], BalanceMagnitudesState, Bool[Array, " K"]]:
    usable = jnp.isfinite(losses) & (losses > 0) & used
    fresh = (state.initial_losses == 0) & usable
    initial = jnp.where(fresh, losses, state.initial_losses)
    known = usable & (initial > 0)
    ratios = jnp.where(known, losses / jnp.where(known, initial, 1.0), 0.0)
    mean = jnp.sum(ratios) / jnp.maximum(jnp.sum(known), 1)
    ratios = ratios / jnp.where(mean > 0, mean, 1.0)
    return ratios, BalanceMagnitudesState(initial), known
