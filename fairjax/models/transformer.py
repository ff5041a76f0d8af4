"""A pre-norm transformer encoder over tokens, some of which may be absent."""

from collections.abc import Callable
from typing import Unpack

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from fairjax.models._layers import Dropout, LayerOptions, check_mask, keep
from fairjax.types import check_whole

# Finite, so that a row in which every logit is masked has no NaN in its gradient.
_MASKED = -1e30


class Transformer(nnx.Module):
    r"""Blocks of self-attention and dense layers, pre-norm, with residuals.

    .. math::
        x \leftarrow x + \mathrm{Attention}(\mathrm{LayerNorm}(x)), \quad
        x \leftarrow x + \mathrm{MLP}(\mathrm{LayerNorm}(x)),

    ``depth`` times, and a last LayerNorm. There are no position embeddings: permuted
    tokens give permuted rows.

    References:
      Vaswani et al., Attention Is All You Need, NeurIPS 2017; Xiong et al., On Layer
      Normalization in the Transformer Architecture, ICML 2020 (pre-norm).

    Example:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> from fairjax.models import Transformer
      >>> transformer = Transformer(8, depth=1, num_heads=2, rngs=nnx.Rngs(0))
      >>> nnx.jit(transformer)(jnp.ones((5, 3, 8))).shape
      (5, 3, 8)
    """

    def __init__(
        self,
        width: int,
        depth: int,
        num_heads: int,
        *,
        mlp_ratio: int = 4,
        dropout: float = 0.0,
        activation: Callable[[Array], Array] = jax.nn.gelu,
        remat: bool = False,
        rngs: nnx.Rngs,
        **layers: Unpack[LayerOptions],
    ):
        """Makes the blocks.

        Args:
          width: Features of a token.
          depth: Number of blocks.
          num_heads: Number of attention heads; divides ``width``.
          mlp_ratio: Hidden units of a block's dense layers, as a multiple of the width.
          dropout: Fraction of units that is dropped, after attention and each dense
            layer, where a call has ``rngs``.
          activation: Activation of the dense layers; by default GELU, in the tanh
            approximation.
          remat: Whether the backward pass computes each block again, to save memory.
          rngs: Keys for the initial weights.
          **layers: ``dtype`` and ``param_dtype`` of the layers, as Flax has them.

        Raises:
          ValueError: If a size is not an integer above 0, or the heads do not divide
            the width.
        """
        sizes = {"width": width, "depth": depth, "num_heads": num_heads}
        for name, size in (sizes | {"mlp_ratio": mlp_ratio}).items():
            check_whole(name, size)
        if width % num_heads:
            raise ValueError(
                f"num_heads must divide width; got {num_heads=}, {width=}."
            )
        self.blocks = nnx.List(
            _Block(
                width, num_heads, mlp_ratio * width, dropout, activation, rngs, **layers
            )
            for _ in range(depth)
        )
        self.norm = nnx.LayerNorm(width, rngs=rngs, **layers)
        self.width, self.remat, self.dtype = width, remat, layers.get("dtype")

    def __call__(
        self,
        tokens: Float[Array, "*batch T width"],
        mask: Bool[Array, "*batch T"] | None = None,
        rngs: nnx.Rngs | None = None,
        *,
        num_rows: int | None = None,
    ) -> Float[Array, "*batch R width"]:
        """Encodes a batch of tokens.

        Args:
          tokens: ``[*batch, T, width]``.
          mask: ``[*batch, T]``, True where a token exists. A masked token, even if it
            is NaN, is not attended to, and its row is 0. None: all tokens exist.
          rngs: Keys for dropout; None drops nothing.
          num_rows: Number of first rows to return; the last block computes only these
            rows. None: all.

        Returns:
          ``[*batch, T, width]``, or ``[*batch, num_rows, width]``.

        Raises:
          ValueError: If the tokens are not ``[*batch, T, width]``, the mask is not
            ``[*batch, T]``, or ``num_rows`` is not an integer above 0.
        """
        self._check(tokens, mask)
        if num_rows is not None:
            check_whole("num_rows", num_rows)
        tokens = keep(mask)(tokens)
        if self.dtype is not None:
            tokens = tokens.astype(self.dtype)
        run = _Block.__call__
        if self.remat:
            run = nnx.remat(run, static_argnums=4)
        *blocks, last = self.blocks
        for block in blocks:
            tokens = run(block, tokens, mask, rngs, None)
        tokens = self.norm(run(last, tokens, mask, rngs, num_rows))
        return tokens if mask is None else keep(mask[..., :num_rows])(tokens)

    def summarize(
        self,
        summary: Float[Array, " width"],
        tokens: Float[Array, "*batch T width"],
        mask: Bool[Array, "*batch T"] | None = None,
        rngs: nnx.Rngs | None = None,
    ) -> Float[Array, "*batch width"]:
        """Encodes a summary token together with the tokens, of which any may be masked.

        Args:
          summary: ``[width]``, placed before the tokens and never masked.
          tokens: ``[*batch, T, width]``.
          mask: ``[*batch, T]``, True where a token exists. None: all tokens exist.
          rngs: Keys for dropout; None drops nothing.

        Returns:
          ``[*batch, width]``.

        Raises:
          ValueError: If the tokens are not ``[*batch, T, width]``, the mask is not
            ``[*batch, T]``, or the summary is not ``[width]``.
        """
        self._check(tokens, mask)
        if summary.shape != (self.width,):
            raise ValueError(
                f"summary must have shape {(self.width,)}, as wide as a token; "
                f"got shape {summary.shape}."
            )
        *leading, _, width = tokens.shape
        first = jnp.broadcast_to(summary.astype(tokens.dtype), (*leading, 1, width))
        tokens = jnp.concatenate([first, tokens], axis=-2)
        if mask is not None:
            mask = jnp.concatenate([jnp.ones((*leading, 1), bool), mask], axis=-1)
        return self(tokens, mask, rngs, num_rows=1)[..., 0, :]

    def _check(self, tokens: Array, mask: Array | None) -> None:
        if tokens.ndim < 2 or tokens.shape[-1] != self.width:
            raise ValueError(
                f"tokens must have shape [..., tokens, {self.width}], as the model has "
                f"width={self.width}; got shape {tokens.shape}."
            )
        check_mask(mask, tokens.shape[:-1], "tokens")


class _Block(nnx.Module):
    """A block of attention and dense layers, with their norms and residuals."""

    def __init__(
        self,
        width: int,
        num_heads: int,
        hidden: int,
        dropout: float,
        activation: Callable[[Array], Array],
        rngs: nnx.Rngs,
        **layers: Unpack[LayerOptions],
    ):
        self.attention_norm = nnx.LayerNorm(width, rngs=rngs, **layers)
        self.attention = _Attention(width, num_heads, rngs, **layers)
        self.mlp_norm = nnx.LayerNorm(width, rngs=rngs, **layers)
        self.inner = nnx.Linear(width, hidden, rngs=rngs, **layers)
        self.outer = nnx.Linear(hidden, width, rngs=rngs, **layers)
        self.dropout = Dropout(dropout)
        self.activation = activation

    def __call__(
        self,
        tokens: Array,
        mask: Array | None,
        rngs: nnx.Rngs | None,
        num_rows: int | None,
    ) -> Array:
        attended = self.attention(self.attention_norm(tokens), mask, num_rows)
        tokens = tokens[..., :num_rows, :] + self.dropout(attended, rngs)
        hidden = self.activation(self.inner(self.mlp_norm(tokens)))
        return tokens + self.dropout(self.outer(self.dropout(hidden, rngs)), rngs)


class _Attention(nnx.Module):
    """Multi-head self-attention."""

    def __init__(
        self,
        width: int,
        num_heads: int,
        rngs: nnx.Rngs,
        **layers: Unpack[LayerOptions],
    ):
        self.query_key_value = nnx.Linear(width, 3 * width, rngs=rngs, **layers)
        self.output = nnx.Linear(width, width, rngs=rngs, **layers)
        self.num_heads = num_heads

    def __call__(
        self, tokens: Array, mask: Array | None, num_rows: int | None
    ) -> Array:
        *leading, width = tokens.shape
        head = width // self.num_heads
        # [*batch, head, T, width of a head]
        query, key, value = (
            jnp.swapaxes(part.reshape(*leading, self.num_heads, head), -3, -2)
            for part in jnp.split(self.query_key_value(tokens), 3, axis=-1)
        )
        logits = jnp.einsum(
            "...qd,...kd->...qk",
            query[..., :num_rows, :] * head**-0.5,
            key,
            preferred_element_type=jnp.float32,
        )
        if mask is not None:
            logits = jnp.where(mask[..., None, None, :], logits, _MASKED)
        weights = jax.nn.softmax(logits).astype(value.dtype)
        mixed = jnp.swapaxes(weights @ value, -3, -2)
        return self.output(mixed.reshape(*mixed.shape[:-2], width))
