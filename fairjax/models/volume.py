"""A transformer over the slices of a volume, such as an OCT or CT scan."""

from typing import Unpack

from flax import nnx
from jaxtyping import Array, Float

from fairjax.models._layers import LayerOptions, learned
from fairjax.models.transformer import Transformer
from fairjax.models.vit import ViT
from fairjax.types import check_whole


class VolumeEncoder(nnx.Module):
    """An encoder that summarises a volume's slices by a transformer.

    One vision transformer encodes each slice. MultiFair encodes volumes in this way,
    with 10 slices, ViT-B/16, and two blocks.

    References:
      Dosovitskiy et al., An Image is Worth 16x16 Words: Transformers for Image
      Recognition at Scale, ICLR 2021 (the model of a slice).

    Example:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> from fairjax.models import ViT, VolumeEncoder
      >>> rngs = nnx.Rngs(0)
      >>> vit = ViT(8, 4, 8, depth=1, num_heads=2, num_channels=1, rngs=rngs)
      >>> encoder = VolumeEncoder(vit, num_slices=3, depth=1, num_heads=2, rngs=rngs)
      >>> nnx.jit(encoder)(jnp.ones((2, 3, 8, 8, 1))).shape
      (2, 8)
    """

    def __init__(
        self,
        slices: ViT,
        num_slices: int,
        depth: int = 2,
        num_heads: int = 4,
        *,
        mlp_ratio: int = 4,
        dropout: float = 0.0,
        remat: bool = False,
        rngs: nnx.Rngs,
        **layers: Unpack[LayerOptions],
    ):
        """Makes the positions and the transformer over slices.

        Args:
          slices: The model of a slice; its width is the encoder's width.
          num_slices: Number of slices of a volume.
          depth: Number of blocks of the transformer over slices.
          num_heads: Number of attention heads; divides the width.
          mlp_ratio: Hidden units of a block's dense layers, as a multiple of the width.
          dropout: Fraction of units that is dropped where a call has ``rngs``.
          remat: Whether the backward pass computes each block again, to save memory.
          rngs: Keys for the initial weights.
          **layers: ``dtype`` and ``param_dtype`` of the layers, as Flax has them.

        Raises:
          ValueError: If a size is not an integer above 0, or the heads do not divide
            the width.
        """
        check_whole("num_slices", num_slices)
        self.slices, width = slices, slices.width
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
        self.positions = learned(rngs, num_slices, width, **layers)
        self.summary = learned(rngs, width, **layers)
        self.num_slices = num_slices

    def __call__(
        self,
        volumes: Float[Array, "B S height width channels"],
        rngs: nnx.Rngs | None = None,
    ) -> Float[Array, "B features"]:
        """Summarises the volumes.

        Args:
          volumes: ``[B, num_slices, image_size, image_size, num_channels]``.
          rngs: Keys for dropout; None drops nothing.

        Returns:
          ``[B, width]``.

        Raises:
          ValueError: If the volumes have other axes, do not have ``num_slices`` slices,
            or have slices of another size.
        """
        if volumes.ndim != 5 or volumes.shape[1] != self.num_slices:
            raise ValueError(
                f"volumes must have shape [examples, {self.num_slices}, height, width, "
                f"channels], as the encoder has num_slices={self.num_slices}; "
                f"got shape {volumes.shape}."
            )
        tokens = self.slices(volumes, rngs) + self.positions[...]
        return self.transformer.summarize(self.summary[...], tokens, rngs=rngs)
