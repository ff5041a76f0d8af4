"""A transformer over the slices of a volume, such as an OCT or CT scan."""

from flax import nnx
from jaxtyping import Array, Float

from fairjax.models._layers import learned
from fairjax.models.transformer import Transformer
from fairjax.models.vit import ViT
from fairjax.types import check_whole


class VolumeEncoder(nnx.Module):
    """One vision transformer for all slices, and a transformer over what it gives.

    MultiFair encodes volumes in this way: 10 slices, ViT-B/16, and two blocks.

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
        rngs: nnx.Rngs,
    ):
        """Make the positions and the transformer over slices.

        Args:
          slices: The model of a slice; its width is the encoder's.
          num_slices: Of a volume.
          depth: Number of blocks of the transformer over slices.
          num_heads: Of its attention; divides the width.
          mlp_ratio: Hidden units of a block's dense layers, in widths.
          dropout: Share of units that is dropped where a call has ``rngs``.
          rngs: Keys for the initial weights.

        Raises:
          ValueError: A size is no whole number above 0, or the heads do not divide the
            width.
        """
        check_whole("num_slices", num_slices)
        self.slices, width = slices, slices.width
        self.transformer = Transformer(
            width, depth, num_heads, mlp_ratio=mlp_ratio, dropout=dropout, rngs=rngs
        )
        self.positions = learned(rngs, num_slices, width)
        self.summary = learned(rngs, width)
        self.num_slices = num_slices

    def __call__(
        self,
        volumes: Float[Array, "B S height width channels"],
        rngs: nnx.Rngs | None = None,
    ) -> Float[Array, "B features"]:
        """Summaries of the volumes.

        Args:
          volumes: ``[B, num_slices, image_size, image_size, num_channels]``.
          rngs: Draws what dropout drops; None drops nothing.

        Returns:
          ``[B, width]``.

        Raises:
          ValueError: The volumes have other axes, the slices are not ``num_slices``,
            or they have another size.
        """
        if volumes.ndim != 5 or volumes.shape[1] != self.num_slices:
            raise ValueError(
                f"volumes have the shape {volumes.shape}; [examples, "
                f"{self.num_slices}, height, width, channels] is needed, for the "
                f"{self.num_slices} slices that the encoder was made for."
            )
        tokens = self.slices(volumes, rngs) + self.positions[...]
        return self.transformer.summarize(self.summary[...], tokens, rngs=rngs)
