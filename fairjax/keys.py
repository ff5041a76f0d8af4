"""Random keys, from seeds, raw key data or typed keys."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Integer


def as_key(key: Array | int) -> Array:
    """Returns a typed key from a seed, a key's raw data, or a typed key.

    Raises:
      ValueError: The argument is neither a number nor a key, such as None; or it is
        several keys, or a key whose data have another shape than those of JAX's
        default implementation.

    Example:
      >>> import jax
      >>> bool(as_key(3) == jax.random.key(3))
      True
    """
    if key is None or isinstance(key, str | bytes | bool):
        raise ValueError(f"key must be a seed or a jax.random.key; got {key!r}.")
    array = jnp.asarray(key)
    typed = jnp.issubdtype(array.dtype, jax.dtypes.prng_key)
    if array.ndim == 0 and not typed:
        return jax.random.key(array)
    data = jax.random.key_data(array) if typed else array
    words = jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0)))
    if data.shape != words.shape:
        raise ValueError(
            "key must be a seed or one key of JAX's default kind "
            f"(jax_default_prng_impl), of data shape {words.shape}; got {data.shape}."
        )
    return array if typed else jax.random.wrap_key_data(array)


def own_keys(state: Any, number: int | Integer[Array, ""]) -> Any:
    """Folds a number into all random keys of a state.

    Without this, copies of one state would draw the same random numbers. Keys are
    leaves of a key type, and raw data in fields called ``key_data``, ``rng_key`` or
    ``key``.

    Example:
      >>> import jax
      >>> key = jax.random.key(0)
      >>> bool(own_keys(key, 1) == jax.random.fold_in(key, 1))
      True
    """

    def fold(path: tuple[Any, ...], leaf: Any) -> Any:
        if jnp.issubdtype(jnp.result_type(leaf), jax.dtypes.prng_key):
            return jax.random.fold_in(leaf, number)
        name = getattr(path[-1], "name", None) if path else None
        if name not in ("key_data", "rng_key", "key"):
            return leaf
        key = jax.random.fold_in(jax.random.wrap_key_data(leaf), number)
        return jax.random.key_data(key)

    return jax.tree_util.tree_map_with_path(fold, state)
