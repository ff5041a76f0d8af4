"""The transformer in float64 NumPy, one example and one head at a time."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from fairjax.models import functional


def moved(tree, seed=0):
    """Parameters of which none is 0 or 1, as biases and scales are at first."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda x: x + np.asarray(0.1 * rng.normal(size=x.shape), x.dtype), tree
    )


def drawn(make, seed=0):
    """A model's function, and parameters from NumPy, which has nothing to compile."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        values = 0.4 * rng.normal(size=leaf.shape)
        values += jax.tree_util.keystr(path).endswith("['scale']")
        return jnp.asarray(values.astype(leaf.dtype))

    apply, shapes = functional(nnx.eval_shape(make))
    return apply, jax.tree_util.tree_map_with_path(draw, shapes)


def double(tree):
    """Parameters in float64."""
    if isinstance(tree, dict):
        return {key: double(value) for key, value in tree.items()}
    return np.asarray(tree, np.float64)


def layer_norm(params, x):
    centred = x - x.mean(1, keepdims=True)
    spread = np.sqrt((centred**2).mean(1, keepdims=True) + 1e-6)
    return centred / spread * params["scale"] + params["bias"]


def linear(params, x):
    return x @ params["kernel"] + params["bias"]


def gelu(x):
    return x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def attention(params, x, num_heads):
    width = x.shape[1]
    projected = linear(params["query_key_value"], x)
    query, key, value = (projected[:, i * width : (i + 1) * width] for i in range(3))
    size, mixed = width // num_heads, np.zeros_like(x)
    for head in range(num_heads):
        own = slice(head * size, (head + 1) * size)
        for t in range(len(x)):
            logits = key[:, own] @ query[t, own] / np.sqrt(size)
            weights = np.exp(logits - logits.max())
            mixed[t, own] = weights / weights.sum() @ value[:, own]
    return linear(params["output"], mixed)


def transform(params, x, num_heads):
    """Rows ``[T, width]`` of one example, all of whose tokens exist."""
    for block in params["blocks"].values():
        x = x + attention(
            block["attention"], layer_norm(block["attention_norm"], x), num_heads
        )
        hidden = gelu(linear(block["inner"], layer_norm(block["mlp_norm"], x)))
        x = x + linear(block["outer"], hidden)
    return layer_norm(params["norm"], x)


def summarize(params, tokens, num_heads):
    """An encoder's summary of the tokens ``[T, width]`` of one example."""
    rows = np.concatenate([params["summary"][None], tokens])
    return transform(params["transformer"], rows, num_heads)[0]
