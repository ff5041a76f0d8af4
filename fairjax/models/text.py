"""A transformer over the words of a text, numbered by a tokeniser."""

from typing import Unpack

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from fairjax.models._layers import (
    LayerOptions,
    check_length,
    check_mask,
    keep,
    learned,
    look_up,
)
from fairjax.models.transformer import Transformer
from fairjax.types import check_whole


class TextEncoder(nnx.Module):
    r"""An encoder that summarises the words of a text by a transformer.

    The token of a word is the sum of the word's and the position's embedding,

    .. math::
        \text{token}_t = e_{v_t} + p_t.

    References:
      Devlin et al., BERT: Pre-training of Deep Bidirectional Transformers for Language
      Understanding, NAACL 2019 (learned positions, and a summary token).

    Example:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> from fairjax.models import TextEncoder
      >>> encoder = TextEncoder(
      ...     vocabulary_size=50, width=8, depth=1, num_heads=2, max_length=6,
      ...     rngs=nnx.Rngs(0),
      ... )
      >>> tokens = jnp.asarray([[4, 17, 2], [9, 0, 0]])
      >>> nnx.jit(encoder)(tokens, tokens > 0).shape
      (2, 8)
    """

    def __init__(
        self,
        vocabulary_size: int,
        width: int,
        depth: int,
        num_heads: int,
        *,
        max_length: int,
        mlp_ratio: int = 4,
        dropout: float = 0.0,
        remat: bool = False,
        rngs: nnx.Rngs,
        **layers: Unpack[LayerOptions],
    ):
        """Makes the tokens and the transformer.

        Args:
          vocabulary_size: Number of words.
          width: Features of a token, and of the summary.
          depth: Number of the transformer's blocks.
          num_heads: Number of attention heads; divides ``width``.
          max_length: Largest number of words of a text; each position is learned.
          mlp_ratio: Hidden units of a block's dense layers, as a multiple of the width.
          dropout: Fraction of units that is dropped where a call has ``rngs``.
          remat: Whether the backward pass computes each block again, to save memory.
          rngs: Keys for the initial weights.
          **layers: ``dtype`` and ``param_dtype`` of the layers, as Flax has them.

        Raises:
          ValueError: If a size is not an integer above 0, or the heads do not divide
            the width.
        """
        check_whole("vocabulary_size", vocabulary_size)
        check_whole("max_length", max_length)
        self.transformer = Transformer(
            width,
            depth,
            num_heads,
            mlp_ratio=mlp_ratio,
            dropout=dropout,
            remat=remat,
            rngs=rngs,
            **layers,
        )
        self.words = learned(rngs, vocabulary_size, width, **layers)
        self.positions = learned(rngs, max_length, width, **layers)
        self.summary = learned(rngs, width, **layers)
        self.max_length = max_length

    def __call__(
        self,
        tokens: Int[Array, "B T"],
        mask: Bool[Array, "B T"] | None = None,
        rngs: nnx.Rngs | None = None,
    ) -> Float[Array, "B width"]:
        """Summarises the texts; an empty text has a summary, too.

        Args:
          tokens: ``[B, T]``, the number of each word, from 0 to
            ``vocabulary_size - 1``; another number gives NaN.
          mask: ``[B, T]``, False at positions that are empty and are not read. None: no
            position is empty.
          rngs: Keys for dropout; None drops nothing.

        Returns:
          ``[B, width]``.

        Raises:
          ValueError: If T is more than ``max_length``, the tokens are not integers
            ``[B, T]``, or the mask has another shape than the tokens.
        """
        _check_texts(tokens)
        check_mask(mask, tokens.shape, "tokens")
        length = tokens.shape[-1]
        check_length(length, self.max_length, "texts")
        words = look_up(self.words[...], keep(mask)(tokens))
        placed = words + self.positions[...][:length]
        return self.transformer.summarize(self.summary[...], placed, mask, rngs)


def _check_texts(tokens: Array) -> None:
    """Refuses tokens that are not integers ``[B, T]``, such as the texts themselves."""
    kind = getattr(tokens, "dtype", None)
    if kind is None or not jnp.issubdtype(kind, jnp.integer):
        raise ValueError(
            "tokens must be an array of integers, a tokeniser's numbers of the words; "
            f"got {type(tokens).__name__ if kind is None else kind}. Pass "
            "jnp.asarray(tokens, int) if the values are integers."
        )
    if tokens.ndim != 2:
        raise ValueError(
            f"tokens must have shape [examples, words]; got shape {tokens.shape}."
        )
