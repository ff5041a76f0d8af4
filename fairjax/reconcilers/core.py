r"""Gradient reconciliation as optax transformations, made of steps.

A reconciler takes stacked updates ``[K, *param]``, one row for each objective, and
returns updates ``[*param]``. It can stand anywhere in an optax chain, for example
before AdamW. A reconciler reads the rows twice: once for their Gram matrix, and once
for the weighted sum that the steps determine. In between, a step maps coefficients
:math:`C` [R, K], at first the identity, to :math:`C'`; the Gram matrix of the combined
rows is :math:`C G C^\top`.

A published method is one step. :func:`weighting`, :func:`solving` or :func:`make_step`
makes the step from its formula, and :func:`transformation` makes the method from the
step.
"""

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int

from fairjax.gram import combine, gramian
from fairjax.reconcilers._units import matmul
from fairjax.stacked import (
    check_per_objective,
    check_rows,
    within_range,
)
from fairjax.types import (
    Coefficients,
    Gramian,
    Jacobian,
    Mask,
    Numbers,
    Params,
    check_whole,
    is_known,
)


class Step(NamedTuple):
    """A step of reconciliation in coefficient space: a pair of pure functions.

    Attributes:
      init: ``init(num_objectives) -> state``.
      update: ``update(coefficients [R, K], gramian [K, K], state, *, losses=None,
        mask=None, **extra) -> (coefficients [R', K], state)``. Row ``r`` of the
        coefficients gives the current row ``r`` as a combination of the ``K``
        gradients. So the Gram matrix of the current rows is ``C G Cᵀ``.
    """

    init: "StepInit"
    update: "StepUpdate"


class StepInit(Protocol):
    """Makes a step's state from the number of objectives."""

    def __call__(self, num_objectives: int, /) -> Any:
        """Returns the state."""
        ...


class StepUpdate(Protocol):
    """Maps coefficients to coefficients, and state to state."""

    def __call__(
        self,
        coefficients: Coefficients,
        gramian: Gramian,
        state: Any,
        /,
        **extra: Any,
    ) -> tuple[Coefficients, Any]:
        """Returns the new coefficients, one row for each row left, and the state."""
        ...


class ReconcileState(NamedTuple):
    """State and diagnostics of :func:`reconcile`; read with ``optax.tree.get``.

    All fields but ``steps``, ``nonfinite`` and ``zero`` describe the last update.

    Attributes:
      steps: The states of the steps.
      weights: ``[K]``, the weight of each objective's gradient in the update.
      norms: ``[K]``, norms of the incoming gradients; NaN where not finite.
      cosines: ``[K, K]``, cosines between the gradients; 0 where one is excluded.
      conflict_share: ``[]``, fraction of the pairs in use whose cosine is negative.
      nonfinite: ``[K]``, the number of updates that left an objective out because its
        gradient or its loss, if passed, was not finite. An update beyond the range of
        its type, such as float16, leaves out all objectives.
      zero: ``[K]``, the number of updates that left an objective out because its
        gradient was zero.
    """

    steps: tuple[Any, ...]
    weights: Float[Array, " K"]
    norms: Float[Array, " K"]
    cosines: Float[Array, "K K"]
    conflict_share: Float[Array, ""]
    nonfinite: Int[Array, " K"]
    zero: Int[Array, " K"]


class CurrentRows(NamedTuple):
    """The current rows of a step: combinations of the K gradients.

    Attributes:
      coefficients: ``[R, K]``, each row as a combination of the gradients.
      gramian: ``[K, K]`` inner products of the gradients.
      losses: ``[K]``, if passed to ``update``.
      mask: ``[K]``, the objectives in use; None for all.
      extra: The other arguments of ``update``, by name.
    """

    coefficients: Coefficients
    gramian: Gramian
    losses: Float[Array, " K"] | None
    mask: Mask | None
    extra: Mapping[str, Any]

    @property
    def own(self) -> Float[Array, "R R"]:
        """The inner products of the current rows, ``C G Cᵀ``."""
        rows = self.coefficients
        return matmul(matmul(rows, self.gramian), rows.T)

    @property
    def used(self) -> Bool[Array, " R"]:
        """Whether each row uses at least one objective that is not masked."""
        used = self.coefficients != 0
        return jnp.any(used if self.mask is None else used & self.mask, axis=1)

    def weighted(self, weights: Float[Array, " R"]) -> Float[Array, "1 K"]:
        """Returns the rows' weighted sum; rows of weight 0 are left out, even NaNs.

        Example:
          >>> gradients = jnp.array([[1.0, 0.0, 2.0], [jnp.nan, jnp.nan, jnp.nan]])
          >>> rows = CurrentRows(gradients, jnp.eye(3), None, None, {})
          >>> rows.weighted(jnp.array([0.5, 0.0])).tolist()
          [[0.5, 0.0, 1.0]]
        """
        kept = jnp.where(weights[:, None] != 0, self.coefficients, 0.0)
        return matmul(weights[None].astype(self.coefficients.dtype), kept)


class SolverState(NamedTuple):
    """Diagnostics of the solver at the last update.

    Attributes:
      residual: ``[]``, scale-free distance from the optimum; see each solver.
      iterations: ``[]``, number of iterations of the solver.
    """

    residual: Float[Array, ""]
    iterations: Int[Array, ""]


@runtime_checkable
class Method(Protocol):
    """Makes an optax transformation of ``[K, *param]`` into ``[*param]``."""

    def __call__(
        self, *, num_objectives: int, **options: Any
    ) -> optax.GradientTransformationExtraArgs:
        """Returns the transformation."""
        ...


def make_step(
    update: Callable[[CurrentRows, Any], tuple[Array, Any]],
    init: Callable[[int], Any] = lambda _: optax.EmptyState(),
) -> Step:
    """Makes a step from functions of the current rows.

    Args:
      update: ``update(rows, state) -> (coefficients [R', K], state)``.
      init: ``init(num_objectives) -> state``; by default an empty state.

    Example:
      >>> import jax.numpy as jnp
      >>> step = make_step(lambda rows, state: (-rows.coefficients, state))
      >>> step.update(jnp.eye(1), jnp.eye(1), step.init(1))[0]
      Array([[-1.]], dtype=float32)
    """
    start = init

    def step_init(num_objectives: int) -> Any:
        return start(num_objectives)

    def step_update(
        coefficients: Coefficients,
        gramian: Gramian,
        state: Any,
        *,
        losses: Float[Array, " K"] | None = None,
        mask: Mask | None = None,
        **extra: Any,
    ) -> tuple[Float[Array, "left K"], Any]:
        return update(CurrentRows(coefficients, gramian, losses, mask, extra), state)

    return Step(step_init, step_update)


def weighting(
    weigh: Callable[[Float[Array, "R R"], Bool[Array, " R"]], Float[Array, " R"]],
) -> Step:
    """Makes a step without state from weights: ``weigh(own, used) -> weights [R]``.

    Args:
      weigh: A function of the current rows' Gram matrix ``[R, R]`` and of which rows
        ``[R]`` are in use.

    Example:
      >>> import jax.numpy as jnp
      >>> step = weighting(lambda own, used: jnp.where(used, jnp.diagonal(own), 0.0))
      >>> step.update(jnp.eye(2), jnp.diag(jnp.array([3.0, 5.0])), step.init(2))[0]
      Array([[3., 5.]], dtype=float32)
    """
    return make_step(
        lambda rows, state: (rows.weighted(weigh(rows.own, rows.used)), state)
    )


def solving(
    solve: Callable[[Float[Array, "R R"], Bool[Array, " R"]], Any],
) -> Step:
    """Makes a step from a solver; its state is a :class:`SolverState`.

    Args:
      solve: ``solve(own, used) -> solution``, with the arguments of ``weigh`` in
        :func:`weighting`. The solution has ``weights``, ``residual`` and
        ``iterations``.

    Example:
      >>> import jax.numpy as jnp
      >>> from fairjax import solvers
      >>> step = solving(lambda own, used: solvers.min_norm(own, mask=used))
      >>> weights, state = step.update(jnp.eye(2), jnp.eye(2), step.init(2))
      >>> weights.round(3), bool(state.residual < 1e-3)
      (Array([[0.5, 0.5]], dtype=float32), True)
    """

    def update(rows: CurrentRows, state: Any) -> tuple[Array, SolverState]:
        del state
        found = solve(rows.own, rows.used)
        solved = SolverState(found.residual.astype(jnp.float32), found.iterations)
        return rows.weighted(found.weights), solved

    return make_step(update, lambda _: unsolved())


def unsolved() -> SolverState:
    """Returns the state before the first problem, with separate buffers.

    Example:
      >>> unsolved().iterations
      Array(0, dtype=int32)
    """
    return SolverState(jnp.zeros((), jnp.float32), jnp.zeros((), jnp.int32))


def check_preference(preference: Numbers | None) -> None:
    """Checks that a preference is not negative, and not all 0; a traced one passes.

    Raises:
      ValueError: An entry is negative, no entry is positive, or the preference does not
        have one axis.

    Example:
      >>> check_preference([1.0, 2.0])
      >>> check_preference([0.0, 0.0])
      Traceback (most recent call last):
        ...
      ValueError: preference must hold one number of 0 or more for each row, not all...
    """
    if preference is None or not is_known(preference):
        return
    values = np.asarray(preference)
    if values.ndim != 1 or not (values >= 0).all() or not values.any():
        raise ValueError(
            "preference must hold one number of 0 or more for each row, not all 0; got "
            f"{values.tolist()}."
        )


def row_preference(
    preference: Numbers | None, own: Float[Array, "R R"]
) -> Float[Array, " R"] | None:
    """Returns the preference as an array, or None without a preference.

    Raises:
      ValueError: The preference does not have one number for each row.

    Example:
      >>> import jax.numpy as jnp
      >>> row_preference([1.0, 2.0], jnp.eye(2))
      Array([1., 2.], dtype=float32)
    """
    if preference is None:
        return None
    given = jnp.asarray(preference, own.dtype)
    if given.shape != (len(own),):
        raise ValueError(
            f"preference has shape {given.shape}; one number for each of the "
            f"{len(own)} rows is needed."
        )
    return given


def run_steps(
    steps: Sequence[Step],
    gramian: Gramian,
    states: Sequence[Any],
    used: Bool[Array, " K"],
    extra: Mapping[str, Any],
    advice: tuple[str, str] = ("the steps", "finish with steps.combine('sum')"),
) -> tuple[Float[Array, " K"], tuple[Any, ...]]:
    """Runs steps, and returns one row of weights and the new states of the steps.

    Args:
      steps: The steps, in order; the last leaves one row.
      gramian: ``[K, K]``, 0 where an objective is not used.
      states: The states of the steps.
      used: ``[K]``, the objectives in use; the others get weight 0.
      extra: Extra arguments of each step's ``update``, by name.
      advice: For the error message: a name for the steps, and what to do if the steps
        leave several rows.

    Raises:
      ValueError: The steps leave several rows.

    Example:
      >>> import jax.numpy as jnp
      >>> from fairjax import steps
      >>> mean = steps.combine("mean")
      >>> run_steps([mean], jnp.eye(2), [mean.init(2)], jnp.array([True, True]), {})[0]
      Array([0.5, 0.5], dtype=float32)
    """
    coefficients = jnp.diag(used.astype(gramian.dtype))
    after = []
    for step, state in zip(steps, states, strict=True):
        coefficients, state = step.update(
            coefficients, gramian, state, mask=used, **extra
        )
        after.append(state)
    if coefficients.shape[0] != 1:
        raise ValueError(
            f"{advice[0]} end with {coefficients.shape[0]} rows, not one: {advice[1]} "
            "or another step that leaves one row."
        )
    return jnp.where(used, coefficients[0], 0.0), tuple(after)


def reconcile(
    *steps: Step, num_objectives: int
) -> optax.GradientTransformationExtraArgs:
    r"""Chains coefficient steps into one optax transformation.

    With :math:`J` the stacked gradients and :math:`G = J J^\top`, the steps take
    :math:`C = I` to one row :math:`w^\top`, and the update is :math:`J^\top w`.

    Args:
      *steps: Steps of :mod:`fairjax.steps`; the last leaves one row, as
        ``steps.combine`` does.
      num_objectives: The number of objectives, K. It determines the shapes of the
        state, so that the transformation scans, vmaps and checkpoints.

    Returns:
      A transformation of ``[K, *param]`` into ``[*param]``. Its ``update`` accepts the
      extra arguments ``losses=[K]`` and ``mask=[K]``, and passes other arguments to the
      steps, which ignore unknown arguments. Some steps need losses. An objective is
      left out if its mask is False, if its loss or gradient is not finite, or if its
      gradient is exactly zero; the state counts the last two causes. If all objectives
      are left out, the update is zero. So is an update beyond the range of its type,
      such as float16; it counts as not finite for all objectives. Squared norms are
      float32: gradients longer than about 1e19 count as not finite, and gradients
      shorter than about 1e-19 as zero.

    Raises:
      ValueError: There are no steps, or ``num_objectives`` is below 1. At the update:
        gradients, losses or a mask do not have K rows, or the steps do not end in one
        row.

    Example:
      >>> import jax.numpy as jnp, optax, fairjax
      >>> from fairjax import steps
      >>> balanced = fairjax.reconcile(
      ...     steps.balance_magnitudes(reference=0, strength=0.5),
      ...     steps.project_conflicts(),
      ...     steps.combine("sum"),
      ...     num_objectives=2,
      ... )
      >>> tx = optax.chain(balanced, optax.sgd(1.0))
      >>> params = {"w": jnp.zeros(2)}
      >>> state = tx.init(params)
      >>> rows = {"w": jnp.array([[1.0, 0.0], [0.0, 9.0]])}
      >>> updates, state = tx.update(rows, state, params)
      >>> updates["w"]
      Array([-1. , -0.5], dtype=float32)
      >>> optax.tree.get(state, "conflict_share")
      Array(0., dtype=float32)
    """
    if not steps:
        raise ValueError(
            "reconcile needs at least one step, such as steps.combine('sum')."
        )
    check_whole("num_objectives", num_objectives)

    def init(params: Params) -> ReconcileState:
        del params
        # Separate buffers, so that the state can be donated.
        return ReconcileState(
            steps=tuple(step.init(num_objectives) for step in steps),
            weights=jnp.zeros(num_objectives, jnp.float32),
            norms=jnp.zeros(num_objectives, jnp.float32),
            cosines=jnp.zeros((num_objectives, num_objectives), jnp.float32),
            conflict_share=jnp.zeros((), jnp.float32),
            nonfinite=jnp.zeros(num_objectives, jnp.int32),
            zero=jnp.zeros(num_objectives, jnp.int32),
        )

    def update(
        updates: Jacobian,
        state: Any,
        params: Params | None = None,
        *,
        losses: Float[Array, " K"] | None = None,
        mask: Bool[Array, " K"] | None = None,
        **extra: Any,
    ) -> tuple[Params, ReconcileState]:
        check_rows(updates, num_objectives, "this reconciler", params)
        losses = losses if losses is None else jnp.asarray(losses)
        check_per_objective("losses", losses, num_objectives)
        check_per_objective("mask", mask, num_objectives)
        gram = gramian(updates)
        squares = jnp.diagonal(gram)
        finite = jnp.isfinite(squares)
        norms = jnp.sqrt(jnp.where(finite, squares, jnp.nan))
        if losses is not None:
            finite &= jnp.isfinite(losses)
        asked = jnp.ones_like(finite) if mask is None else jnp.asarray(mask, bool)
        used = finite & (squares > 0) & asked
        gram = jnp.where(used[:, None] & used[None, :], gram, 0.0)
        weights, states = run_steps(
            steps, gram, state.steps, used, {"losses": losses, **extra}
        )
        cosines, conflict_share = _conflicts(gram, used)
        update, held = within_range(combine(weights, updates))
        new_state = ReconcileState(
            steps=states,
            weights=jnp.where(held, weights, 0.0).astype(jnp.float32),
            norms=norms.astype(jnp.float32),
            cosines=cosines.astype(jnp.float32),
            conflict_share=conflict_share.astype(jnp.float32),
            nonfinite=state.nonfinite + (asked & ~(finite & held)),
            zero=state.zero + (asked & (squares == 0)),
        )
        return update, new_state

    return optax.GradientTransformationExtraArgs(init, update)


def transformation(step: Callable[..., Step], **defaults: Any) -> Method:
    """Makes a method, a function that makes an optax transformation, from a step.

    The method takes ``num_objectives`` and the step's options by keyword, with the
    step's defaults. Its name is the step's name without a final ``_step``, and its
    docstring is derived from the step's docstring.

    Args:
      step: A function from options to a step that leaves one row.
      **defaults: Defaults of the method that differ from those of the step.

    Returns:
      ``method(num_objectives=K, **options)``, which is
      ``reconcile(step(**options), num_objectives=K)``.

    Example:
      >>> import inspect, jax.numpy as jnp
      >>> from fairjax import steps
      >>> total = transformation(steps.combine)
      >>> list(inspect.signature(total).parameters)
      ['num_objectives', 'reduction']
      >>> tx = total(num_objectives=2)
      >>> tx.update(jnp.ones((2, 3)), tx.init(jnp.zeros(3)))[0]
      Array([2., 2., 2.], dtype=float32)
    """

    def method(
        *, num_objectives: int, **options: Any
    ) -> optax.GradientTransformationExtraArgs:
        made = step(**(defaults | options))
        return reconcile(made, num_objectives=num_objectives)

    kind = inspect.Parameter.KEYWORD_ONLY
    parameters = [inspect.Parameter("num_objectives", kind, annotation=int)] + [
        option.replace(kind=kind, default=defaults.get(name, option.default))
        for name, option in inspect.signature(step).parameters.items()
    ]
    returned = optax.GradientTransformationExtraArgs
    signature = inspect.Signature(parameters, return_annotation=returned)
    vars(method)["__signature__"] = signature
    method.__annotations__ = {p.name: p.annotation for p in parameters}
    method.__annotations__["return"] = returned
    method.__name__ = method.__qualname__ = step.__name__.removesuffix("_step")
    method.__module__ = step.__module__
    method.__doc__ = _method_docstring(step)
    return method


def _method_docstring(step: Callable[..., Step]) -> str:
    """Returns the step's docstring, with a method's first argument and return value."""
    head, returns, tail = inspect.cleandoc(step.__doc__ or "").partition("\nReturns:")
    if "\nArgs:\n" not in head:
        head += "\nArgs:\n"
    number = "  num_objectives: The number of objectives, K.\n"
    head = head.replace("\nArgs:\n", f"\nArgs:\n{number}")
    tail = re.sub(
        r"\A\n  A step",
        "\n  A transformation of ``[K, *param]`` into ``[*param]``: "
        ":func:`fairjax.reconcile`\n  of a step",
        tail,
    )
    return head + returns + tail


def _conflicts(
    gram: Gramian, used: Bool[Array, " K"]
) -> tuple[Float[Array, "K K"], Float[Array, ""]]:
    """Returns cosines between rows in use, and the fraction of pairs in conflict."""
    norms = jnp.sqrt(jnp.where(used, jnp.diagonal(gram), 1.0))
    cosines = gram / norms[:, None] / norms[None, :]
    pairs = jnp.triu(used[:, None] & used[None, :], k=1)
    number = jnp.maximum(jnp.sum(pairs), 1)
    return cosines, jnp.sum(pairs & (cosines < 0)) / number
