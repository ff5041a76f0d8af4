"""Reconciliation by levels: first within blocks of objectives, then between them."""

from collections.abc import Sequence
from typing import Any, TypeAlias, Union

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from fairjax.keys import own_keys
from fairjax.reconcilers._units import matmul
from fairjax.reconcilers.core import CurrentRows, Step, make_step, run_steps

Levels: TypeAlias = Sequence[Union[int, "Levels"]]
"""Nested row numbers: ``[[0, 1, 2], [3, 4]]`` are two blocks."""


def by_level(levels: Levels, *steps: Step | Sequence[Step]) -> Step:
    r"""Reconciles each block's rows into one row, then the blocks' rows, and so on.

    In ``by_level([[0, 1, 2], [3, 4]], inner, outer)``, the step ``inner`` reconciles
    rows 0, 1 and 2 into one row, and rows 3 and 4 into another row. Then ``outer``
    reconciles these two rows. Blocks may be, for example, the groups of a modality.
    Blocks may have any size and any depth. A block may hold both numbers and blocks.

    A block's rows are combinations :math:`C_b` of the gradients, with the inner
    products :math:`C_b G C_b^\top`. The block's step sees these rows only, as if each
    row were an objective. The step returns weights :math:`w_b`, and the block's one row
    is :math:`w_b C_b`. All steps read :math:`G` only, not the gradients.

    Args:
      levels: The row numbers, nested. Each number from 0 occurs once.
      *steps: One step for each level, from the finest to the coarsest; or one step for
        all levels. Each is a step, or a sequence of steps, that leaves one row. A
        block's level is the level of its deepest block, plus one: in
        ``[[0, 1], [[2, 3], 4]]`` blocks ``[0, 1]`` and ``[2, 3]`` have the finest
        level.

    Returns:
      A step ``[R, K] -> [1, K]``. Its state is the tuple of the blocks' states, from
      the left, each block after the blocks inside it. Random steps keep their key's
      data in ``key_data``, and each block gets a different key. Masked, zero and
      cancelled-out rows are masked in their block. The loss of a block is the mean of
      the losses of its rows in use. Other extra arguments reach every step unchanged.

    Raises:
      ValueError: A block is empty; a number is negative, missing or repeated; or the
        number of steps is neither 1 nor the number of levels. At the update: the number
        of rows differs, or steps do not leave one row.

    Example:
      >>> import jax.numpy as jnp, fairjax
      >>> from fairjax import steps
      >>> step = steps.by_level(
      ...     [[0, 1], [2]], steps.combine("sum"), steps.combine("mean")
      ... )
      >>> step.update(jnp.eye(3), jnp.eye(3), step.init(3))[0]
      Array([[0.5, 0.5, 0.5]], dtype=float32)
    """
    _check_levels(levels)
    depth = _level(levels)
    if len(steps) not in (1, depth):
        raise ValueError(
            f"levels {_shown(levels)} have {depth} levels: give by_level one step for "
            f"each, from the finest, or one for all; got {len(steps)}."
        )
    chains = [(s,) if isinstance(s, Step) else tuple(s) for s in steps]
    chains = chains * depth if len(chains) == 1 else chains
    if not all(chains):
        raise ValueError("each level must have at least one step; got none.")
    blocks = _blocks(levels)
    rows = len(_numbers(levels))

    def init(number: int) -> tuple[Any, ...]:
        _check_rows(rows, number)
        states = []
        for position, block in enumerate(blocks):
            chain = chains[_level(block) - 1]
            fresh = tuple(step.init(len(block)) for step in chain)
            states.append(own_keys(fresh, position))
        return tuple(states)

    def update(current: CurrentRows, state: Any) -> tuple[Array, tuple[Any, ...]]:
        losses = current.losses
        _check_rows(rows, len(current.coefficients))
        if losses is not None and losses.shape != (rows,):
            raise ValueError(
                f"by_level needs one loss for each row: {rows} rows, losses of shape "
                f"{losses.shape}."
            )
        states = []

        def reconcile(block: Any) -> tuple[Array, Array | None, Array]:
            """Returns the row of a number or a block, its loss, and if it is used."""
            if not isinstance(block, Sequence):
                row = current.coefficients[block]
                loss = None if losses is None else losses[block]
                return row, loss, current._replace(coefficients=row[None]).used[0]
            parts = [reconcile(child) for child in block]
            inside = jnp.stack([row for row, _, _ in parts])
            gram = current._replace(coefficients=inside).own
            used = jnp.stack([use for _, _, use in parts])
            used &= jnp.diagonal(gram) > 0
            own_losses = loss = None
            if losses is not None:
                own_losses = jnp.stack([jnp.asarray(loss) for _, loss, _ in parts])
                total = jnp.sum(jnp.where(used, own_losses, 0.0))
                loss = total / jnp.maximum(jnp.sum(used), 1)
            weights, after = run_steps(
                chains[_level(block) - 1],
                jnp.where(used[:, None] & used[None, :], gram, 0.0),
                state[len(states)],
                used,
                {"losses": own_losses, **current.extra},
                ("a block's steps", "give by_level [..., steps.combine('sum')]"),
            )
            states.append(after)
            row = matmul(weights[None], inside)[0]
            return row, loss, jnp.any(row != 0)

        row, _, _ = reconcile(levels)
        return row[None], tuple(states)

    return make_step(update, init)


def _blocks(levels: Levels) -> list[Levels]:
    """Returns all blocks, each after the blocks inside it."""
    inside = [
        b for child in levels if isinstance(child, Sequence) for b in _blocks(child)
    ]
    return [*inside, levels]


def _numbers(levels: Any) -> list[Any]:
    if not isinstance(levels, Sequence) or isinstance(levels, str):
        return [levels]
    return [number for child in levels for number in _numbers(child)]


def _level(levels: Any) -> int:
    """Returns the number of levels in a block, itself included; 0 for a number."""
    if not isinstance(levels, Sequence):
        return 0
    return 1 + max(_level(child) for child in levels)


def _check_levels(levels: Any) -> None:
    if not isinstance(levels, Sequence) or isinstance(levels, str):
        raise ValueError(
            f"levels must be a nested sequence of row numbers; got {_shown(levels)}."
        )
    _check_filled(levels, levels)
    numbers = _numbers(levels)
    for number in numbers:
        if isinstance(number, bool) or not isinstance(number, int | np.integer):
            raise ValueError(f"levels must hold row numbers; got {number!r}.")
        if number < 0:
            raise ValueError(f"levels must number the rows from 0; got {number}.")
    repeated = sorted({number for number in numbers if numbers.count(number) > 1})
    if repeated:
        raise ValueError(f"row {repeated[0]} must not be repeated in levels.")
    missing = sorted(set(range(max(numbers) + 1)) - set(numbers))
    if missing:
        raise ValueError(
            f"row {missing[0]} is missing from levels {_shown(levels)}, which go up to "
            f"row {max(numbers)}."
        )


def _check_filled(block: Any, levels: Any) -> None:
    if isinstance(block, Sequence) and not isinstance(block, str):
        if not block:
            raise ValueError(f"levels {_shown(levels)} have an empty block.")
        for child in block:
            _check_filled(child, levels)


def _check_rows(rows: int, found: int) -> None:
    if rows != found:
        raise ValueError(
            f"levels hold the rows 0 to {rows - 1}; there are {found} rows, at first "
            "one for each objective."
        )


def _shown(levels: Any) -> str:
    text = repr(levels)
    return text if len(text) <= 60 else f"{text[:57]}..."
