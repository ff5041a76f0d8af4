"""Orders in which a row is projected off the other rows."""

from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, UInt

from fairjax.types import check_choice, is_known

Order = Literal["random", "shared", "numbered"]


def check_order(order: Order | Sequence[int] | Int[Array, "R R"]) -> None:
    """Checks that an order is known, or holds each row's number once.

    Raises:
      ValueError: The order is unknown, or is not a permutation of the rows' numbers.

    Example:
      >>> check_order([1, 0])
    """
    if isinstance(order, str):
        check_choice("order", order, "random", "shared", "numbered", other="numbers")
    elif not _holds_each_row_once(order):
        raise ValueError(
            "order must hold each row's number, from 0, once; got "
            f"{np.asarray(order).tolist()}."
        )


def is_drawn(order: Order | Sequence[int] | Int[Array, "R R"]) -> bool:
    """Returns whether new orders are drawn at each update.

    Example:
      >>> is_drawn("random"), is_drawn([1, 0])
      (True, False)
    """
    return isinstance(order, str) and order != "numbered"


def row_orders(
    order: Order | Sequence[int] | Int[Array, "R R"],
    rows: int,
    key_data: UInt[Array, " words"] | None,
) -> tuple[Int[Array, "R R"], UInt[Array, " words"] | None]:
    """Returns the order of each row, and the data of the next key if orders are drawn.

    Args:
      order: See :func:`fairjax.steps.project_conflicts`.
      rows: Number of rows.
      key_data: Data of the key from which orders are drawn; None for a given order.

    Raises:
      ValueError: A given order has the wrong shape.

    Example:
      >>> row_orders([1, 0], 2, None)
      (Array([[1, 0],
             [1, 0]], dtype=int32), None)
    """
    if key_data is not None:
        after, draw = jax.random.split(jax.random.wrap_key_data(key_data))
        key_data = jax.random.key_data(after)
        if order == "shared":
            orders = jax.random.permutation(draw, rows)
        else:
            orders = _permutations(jax.random.split(draw, rows), rows)
    else:
        numbered = isinstance(order, str)
        orders = jnp.arange(rows) if numbered else jnp.asarray(order)
        if orders.shape not in ((rows,), (rows, rows)):
            raise ValueError(
                f"order must have shape ({rows},) or ({rows}, {rows}) for {rows} rows; "
                f"got {orders.shape}."
            )
    return jnp.broadcast_to(orders, (rows, rows)), key_data


def _permutations(keys: Array, rows: int) -> Int[Array, "R R"]:
    """Returns one permutation per key, the same as ``jax.random.permutation`` draws.

    ``jax.random.permutation`` sorts random bits. This function counts the ranks of the
    bits instead, which costs no more than the projections that follow. On a CPU the
    count takes a third of the time of so many short sorts.
    """

    def draw(key: Array) -> UInt[Array, " R"]:
        return jax.random.bits(jax.random.split(key)[1], (rows,))

    bits = jax.vmap(draw)(keys)
    number = jnp.arange(rows)
    one, other = bits[:, :, None], bits[:, None, :]
    before = (one < other) | ((one == other) & (number[:, None] < number))
    ranks = jnp.sum(before, axis=1, dtype=jnp.int32)
    placed = ranks[:, :, None] == number
    return jnp.sum(jnp.where(placed, number[:, None], 0), axis=1, dtype=jnp.int32)


def _holds_each_row_once(order: Any) -> bool:
    """Returns whether all orders are permutations; True for traced orders."""
    if not is_known(order):
        return True
    numbers = np.asarray(order)
    if numbers.ndim not in (1, 2) or not np.issubdtype(numbers.dtype, np.integer):
        return False
    return bool((np.sort(numbers) == np.arange(numbers.shape[-1])).all())
