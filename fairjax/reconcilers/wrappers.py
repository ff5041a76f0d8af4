"""Wrappers that apply optax transformations to stacked gradients."""

from collections.abc import Callable, Hashable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from fairjax.keys import own_keys
from fairjax.stacked import as_rows, check_rows, taking_part
from fairjax.types import Jacobian, Params, check_whole


class AccumulateState(NamedTuple):
    """State of :func:`accumulate`.

    Attributes:
      sums: ``[K, *param]``, sums of the gradients since the last update.
      losses: ``[K]``, sums of the losses since the last update.
      counts: ``[K]``, the number of gradients in each sum.
      micro_step: ``[]``, the number of calls since the last update.
      skipped: ``[K]``, the number of calls that left an objective out of the sums
        because its gradient or loss was not finite.
      inner: The state of the transformation.
    """

    sums: Jacobian
    losses: Float[Array, " K"]
    counts: Int[Array, " K"]
    micro_step: Int[Array, ""]
    skipped: Int[Array, " K"]
    inner: Any


def per_objective(
    transform: optax.GradientTransformation, *, num_objectives: int
) -> optax.GradientTransformationExtraArgs:
    """Applies an optax transformation to each objective's row separately.

    ``optax.clip_by_global_norm`` on stacked gradients clips all rows as one vector; the
    same transformation in ``per_objective`` clips each row. Each row has a separate
    state. Where a state holds a random key (``optax.add_noise``), rows have different
    keys.

    Args:
      transform: An optax transformation of ``[*param]``.
      num_objectives: The number of objectives, K.

    Returns:
      A transformation of ``[K, *param]`` into ``[K, *param]``, for use before a
      reconciler. Extra arguments reach ``transform`` unchanged.

    Raises:
      ValueError: At the update, the gradients do not have K rows.

    Example:
      >>> import jax.numpy as jnp, optax, fairjax
      >>> clip = fairjax.per_objective(optax.clip_by_global_norm(1.0), num_objectives=2)
      >>> rows = jnp.array([[3.0, 4.0], [0.3, 0.4]])
      >>> clip.update(rows, clip.init(jnp.zeros(2)))[0]
      Array([[0.6, 0.8],
             [0.3, 0.4]], dtype=float32)
    """
    check_whole("num_objectives", num_objectives)
    transform = optax.with_extra_args_support(transform)

    def init(params: Params) -> Any:
        def init_row(row: Int[Array, ""]) -> Any:
            return own_keys(transform.init(params), row)

        return jax.vmap(init_row)(jnp.arange(num_objectives))

    def update(
        updates: Jacobian, state: Any, params: Params | None = None, **extra: Any
    ) -> tuple[Jacobian, Any]:
        check_rows(updates, num_objectives, "per_objective", params)

        def update_row(row: Params, row_state: Any) -> tuple[Params, Any]:
            return transform.update(row, row_state, params, **extra)

        return jax.vmap(update_row)(updates, state)

    return optax.GradientTransformationExtraArgs(init, update)


def accumulate(
    transform: optax.GradientTransformation, *, every: int, num_objectives: int
) -> optax.GradientTransformationExtraArgs:
    r"""Averages stacked gradients over several calls, and then reconciles them.

    ``optax.MultiSteps`` after a reconciler averages updates instead, each reconciled on
    one micro-batch. That is another algorithm, which reconciles noisier gradients.
    ``MultiSteps`` around a reconciler fails, because its sums have the shape of the
    parameters.

    An objective's gradient is the mean over the calls in which its mask was True and
    its gradient and loss were finite. An objective without such a call is masked. If
    objectives are means over equally many examples, the mean over micro-batches is the
    gradient on the whole batch. For ratios, such as equalized odds, and for groups of
    varying size, the mean is an estimate; for these, :func:`fairjax.cell_objectives`
    with a ``decay`` carries cell means over batches.

    Args:
      transform: A reconciler, and the rest of its ``optax.chain``.
      every: Number of calls for one update, ≥ 1.
      num_objectives: The number of objectives, K.

    Returns:
      A transformation of ``[K, *param]`` into ``[*param]``. The update is zero except
      at every ``every``-th call. ``losses=[K]`` and ``mask=[K]`` are those of the call;
      their means reach ``transform``. Other extra arguments reach ``transform`` with
      the values of the last call. Gradients are added up in float32 at least.

    Raises:
      ValueError: ``every`` is below 1. At the update: the gradients do not have K rows.

    Example:
      >>> import jax, jax.numpy as jnp, fairjax
      >>> tx = fairjax.accumulate(
      ...     fairjax.pcgrad(num_objectives=2), every=2, num_objectives=2
      ... )
      >>> state = tx.init(jnp.zeros(2))
      >>> first = jnp.array([[2.0, 0.0], [0.0, 0.0]])
      >>> step = jax.jit(tx.update)
      >>> update, state = step(first, state)
      >>> update
      Array([0., 0.], dtype=float32)
      >>> step(jnp.array([[0.0, 0.0], [-2.0, -2.0]]), state)[0]
      Array([ 0.5, -1.5], dtype=float32)
    """
    check_whole("num_objectives", num_objectives)
    check_whole("every", every)
    transform = optax.with_extra_args_support(transform)

    def init(params: Params) -> AccumulateState:
        def rows(leaf: Any) -> Array:
            wide = jnp.promote_types(leaf.dtype, jnp.float32)
            return jnp.zeros((num_objectives, *leaf.shape), wide)

        return AccumulateState(
            sums=jax.tree.map(rows, params),
            losses=jnp.zeros(num_objectives, jnp.float32),
            counts=jnp.zeros(num_objectives, jnp.int32),
            micro_step=jnp.zeros((), jnp.int32),
            skipped=jnp.zeros(num_objectives, jnp.int32),
            inner=transform.init(params),
        )

    def update(
        updates: Jacobian,
        state: Any,
        params: Params | None = None,
        *,
        losses: Float[Array, " K"] | None = None,
        mask: Bool[Array, " K"] | None = None,
        **extra: Any,
    ) -> tuple[Params, AccumulateState]:
        check_rows(updates, num_objectives, "accumulate", params)
        asked, finite = taking_part(updates, losses=losses, mask=mask)
        used = asked & finite

        def add(total: Array, rows: Array) -> Array:
            kept = jnp.where(as_rows(used, rows), rows, 0)
            return total + kept.astype(total.dtype)

        sums = jax.tree.map(add, state.sums, updates)
        counts = state.counts + used
        known = jnp.zeros(num_objectives) if losses is None else losses
        added = state.losses + jnp.where(used, known, 0.0).astype(jnp.float32)
        shares = 1.0 / jnp.maximum(counts, 1)

        def reconciled() -> tuple[Params, Any]:
            def mean(total: Array, rows: Array) -> Array:
                return (total * as_rows(shares, total)).astype(rows.dtype)

            return transform.update(
                jax.tree.map(mean, sums, updates),
                state.inner,
                params,
                losses=None if losses is None else added * shares,
                mask=counts > 0,
                **extra,
            )

        def nothing() -> tuple[Params, Any]:
            kinds = jax.eval_shape(reconciled)[0]
            zeros = jax.tree.map(
                lambda kind, rows: jnp.zeros_like(rows[0], kind.dtype), kinds, updates
            )
            return zeros, state.inner

        due = state.micro_step + 1 == every
        found, inner = jax.lax.cond(due, reconciled, nothing)
        return found, AccumulateState(
            sums=jax.tree.map(lambda total: jnp.where(due, 0, total), sums),
            losses=jnp.where(due, 0.0, added),
            counts=jnp.where(due, 0, counts),
            micro_step=jnp.where(due, 0, state.micro_step + 1),
            skipped=state.skipped + (asked & ~finite),
            inner=inner,
        )

    return optax.GradientTransformationExtraArgs(init, update)


def per_label(
    transforms: Mapping[Hashable, optax.GradientTransformation],
    labels: Any | Callable[[Params], Any],
) -> optax.GradientTransformationExtraArgs:
    """Applies a different reconciler to each labelled part of the parameters.

    This is ``optax.partition`` with checks. For example, reconcile a shared trunk and
    sum up the heads' gradients, or reconcile each layer from its own gradients.

    Args:
      transforms: A transformation of ``[K, *param]`` into ``[*param]`` for each label.
      labels: A tree of labels like the parameters' tree, or a prefix of this tree; or a
        function that makes such a tree from the parameters.

    Returns:
      A transformation of ``[K, *param]`` into ``[*param]``. Diagnostics are in
      ``state.inner_states[label].inner_state``.

    Raises:
      ValueError: At ``init``: a parameter has no label, a label has no parameter, or a
        label has no transformation. At the update: a transformation leaves stacked
        gradients. (To freeze a part, chain ``optax.set_to_zero()`` after
        ``fairjax.scalarize``.)

    Example:
      >>> import jax.numpy as jnp, fairjax
      >>> tx = fairjax.per_label(
      ...     {
      ...         "shared": fairjax.pcgrad(num_objectives=2),
      ...         "own": fairjax.scalarize(num_objectives=2),
      ...     },
      ...     {"trunk": "shared", "heads": "own"},
      ... )
      >>> params = {"trunk": jnp.zeros(2), "heads": jnp.zeros(2)}
      >>> rows = {
      ...     "trunk": jnp.array([[1.0, 0.0], [-1.0, -1.0]]),
      ...     "heads": jnp.array([[3.0, 0.0], [0.0, 4.0]]),
      ... }
      >>> updates, _ = tx.update(rows, tx.init(params), params)
      >>> updates["trunk"], updates["heads"]
      (Array([ 0.5, -1.5], dtype=float32), Array([3., 4.], dtype=float32))
    """
    inner = optax.partition(dict(transforms), labels)

    def init(params: Params) -> Any:
        tree = labels(params) if callable(labels) else labels
        _check_labels(tree, params, transforms)
        return inner.init(params)

    def update(
        updates: Jacobian, state: Any, params: Params | None = None, **extra: Any
    ) -> tuple[Params, Any]:
        found, state = inner.update(updates, state, params, **extra)
        rows = jax.tree_util.tree_leaves_with_path(updates)
        for (path, leaf), after in zip(rows, jax.tree.leaves(found), strict=True):
            if jnp.shape(after) != jnp.shape(leaf)[1:]:
                raise ValueError(
                    f"the transformation of {jax.tree_util.keystr(path)} leaves the "
                    f"shape {jnp.shape(after)} of stacked gradients {jnp.shape(leaf)}: "
                    "each label needs a reconciler, such as fairjax.scalarize."
                )
        return found, state

    return optax.GradientTransformationExtraArgs(init, update)


def _check_labels(tree: Any, params: Params, transforms: Mapping[Any, Any]) -> None:
    named = jax.tree_util.tree_leaves_with_path(tree)
    leaves = jax.tree_util.tree_leaves_with_path(params)
    for path, leaf in leaves:
        # A label of a branch is the label of each parameter in the branch.
        found = [label for start, label in named if path[: len(start)] == start]
        name = f"parameter {jax.tree_util.keystr(path)} of shape {jnp.shape(leaf)}"
        if not found:
            raise ValueError(f"the labels have none for {name}.")
        if found[0] not in transforms:
            raise ValueError(
                f"{name} has the label {found[0]!r}, which has no transformation; "
                f"labels with one are {', '.join(map(repr, transforms))}."
            )
    for start, label in named:
        if not any(path[: len(start)] == start for path, _ in leaves):
            raise ValueError(
                f"label {label!r} at {jax.tree_util.keystr(start)} has no parameter."
            )
