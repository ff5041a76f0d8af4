"""A transformer over the features of a table's row, some of which may be missing."""

from typing import Unpack

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from fairjax.models._layers import LayerOptions, check_mask, keep, learned
from fairjax.models.transformer import Transformer
from fairjax.types import check_whole


class TabularEncoder(nnx.Module):
    r"""An encoder that summarises the features of a row by a transformer.

    Each feature has one token,

    .. math::
        \text{token}_j = x_j w_j + b_j \text{, and where } x_j \text{ is missing, }
        \text{token}_j = u_j,

    with ``w, b, u`` learned for each feature. So a missing value differs from all
    values of the feature, and need not be imputed.

    References:
      Gorishniy et al., Revisiting Deep Learning Models for Tabular Data, NeurIPS 2021
      (the tokens of present features, and the summary).

    Example:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> from fairjax.models import TabularEncoder
      >>> encoder = TabularEncoder(3, width=8, depth=1, num_heads=2, rngs=nnx.Rngs(0))
      >>> labs = jnp.asarray([[7.4, 140.0, jnp.nan], [7.2, 135.0, 1.1]])
      >>> nnx.jit(encoder)(labs, ~jnp.isnan(labs)).shape
      (2, 8)
    """

    def __init__(
        self,
        num_inputs: int,
        width: int,
        depth: int,
        num_heads: int,
        *,
        mlp_ratio: int = 4,
        dropout: float = 0.0,
        remat: bool = False,
        rngs: nnx.Rngs,
        **layers: Unpack[LayerOptions],
    ):
        """Makes the tokens and the transformer.

        Args:
          num_inputs: Number of features of an example.
          width: Features of a token, and of the summary.
          depth: Number of the transformer's blocks.
          num_heads: Number of attention heads; divides ``width``.
          mlp_ratio: Hidden units of a block's dense layers, as a multiple of the width.
          dropout: Fraction of units that is dropped where a call has ``rngs``.
          remat: Whether the backward pass computes each block again, to save memory.
          rngs: Keys for the initial weights.
          **layers: ``dtype`` and ``param_dtype`` of the layers, as Flax has them.

        Raises:
          ValueError: If a size is not an integer above 0, or the heads do not divide
            the width.
        """
        check_whole("num_inputs", num_inputs)
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
        self.weights = learned(rngs, num_inputs, width, **layers)
        self.biases = learned(rngs, num_inputs, width, **layers)
        self.missing = learned(rngs, num_inputs, width, **layers)
        self.summary = learned(rngs, width, **layers)
        self.num_inputs = num_inputs

    def __call__(
        self,
        features: Float[Array, "B num_inputs"],
        mask: Bool[Array, "B num_inputs"] | None = None,
        rngs: nnx.Rngs | None = None,
    ) -> Float[Array, "B width"]:
        """Summarises the examples.

        Args:
          features: ``[B, num_inputs]``, preferably standardised.
          mask: ``[B, num_inputs]``, False where a feature is missing; the value there
            is not read and may be NaN. None: no feature is missing.
          rngs: Keys for dropout; None drops nothing.

        Returns:
          ``[B, width]``.

        Raises:
          ValueError: If the features are not ``[B, num_inputs]``, or the mask has
            another shape than the features.
        """
        if features.ndim != 2 or features.shape[-1] != self.num_inputs:
            raise ValueError(
                f"features must have shape [examples, {self.num_inputs}], as the "
                f"encoder has num_inputs={self.num_inputs}; got shape {features.shape}."
            )
        check_mask(mask, features.shape, "features")
        values = keep(mask)(features)[..., None]
        tokens = values * self.weights[...] + self.biases[...]
        if mask is not None:
            tokens = jnp.where(mask[..., None], tokens, self.missing[...])
        return self.transformer.summarize(self.summary[...], tokens, rngs=rngs)
