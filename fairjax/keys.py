"""Random keys, however a user has them."""

import jax
import jax.numpy as jnp
from jaxtyping import Array


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
