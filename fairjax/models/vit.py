"""A vision transformer over the patches of an image."""

from typing import Unpack

from flax import nnx
from jaxtyping import Array, Float

from fairjax.models._layers import LayerOptions, learned
from fairjax.models.transformer import Transformer
from fairjax.types import check_whole


class ViT(nnx.Module):
    """An encoder that summarises the square patches of an image by a transformer.

    References:
      Dosovitskiy et al., An Image is Worth 16x16 Words: Transformers for Image
      Recognition at Scale, ICLR 2021.

    Example:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> from fairjax.models import ViT
      >>> vit = ViT(8, 4, width=8, depth=1, num_heads=2, rngs=nnx.Rngs(0))
      >>> nnx.jit(vit)(jnp.ones((2, 8, 8, 3))).shape
      (2, 8)
    """

    def __init__(
        self,
        image_size: int,
        patch_size: int,
        width: int,
        depth: int,
        num_heads: int,
        *,
        num_channels: int = 3,
        mlp_ratio: int = 4,
        dropout: float = 0.0,
        remat: bool = False,
        rngs: nnx.Rngs,
        **layers: Unpack[LayerOptions],
    ):
        """Makes the tokens and the transformer.

        Args:
          image_size: Height and width of an image, in pixels.
          patch_size: Height and width of a patch; divides ``image_size``.
          width: Features of a token, and of the summary.
          depth: Number of the transformer's blocks.
          num_heads: Number of attention heads; divides ``width``.
          num_channels: Channels of a pixel.
          mlp_ratio: Hidden units of a block's dense layers, as a multiple of the width.
          dropout: Fraction of units that is dropped where a call has ``rngs``.
          remat: Whether the backward pass computes each block again, to save memory.
          rngs: Keys for the initial weights.
          **layers: ``dtype`` and ``param_dtype`` of the layers, as Flax has them.

        Raises:
          ValueError: If a size is not an integer above 0, the patches do not divide
            the image, or the heads do not divide the width.
        """
        check_whole("image_size", image_size)
        check_whole("patch_size", patch_size)
        check_whole("num_channels", num_channels)
        if image_size % patch_size:
            raise ValueError(
                f"patch_size must divide image_size; got patches of {patch_size} pixels"
                f" and images of {image_size}."
            )
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
        self.patches = nnx.Linear(
            patch_size**2 * num_channels, width, rngs=rngs, **layers
        )
        self.positions = learned(
            rngs, 1 + (image_size // patch_size) ** 2, width, **layers
        )
        self.summary = learned(rngs, width, **layers)
        self.image_shape = (image_size, image_size, num_channels)
        self.patch_size = patch_size
        self.width = width

    def __call__(
        self,
        images: Float[Array, "*batch height width channels"],
        rngs: nnx.Rngs | None = None,
    ) -> Float[Array, "*batch features"]:
        """Summarises the images.

        Args:
          images: ``[*batch, image_size, image_size, num_channels]``.
          rngs: Keys for dropout; None drops nothing.

        Returns:
          ``[*batch, width]``.

        Raises:
          ValueError: If the images have another size, or no axis of channels.
        """
        if images.shape[-3:] != self.image_shape:
            needed = ", ".join(map(str, self.image_shape))
            raise ValueError(
                f"images must have shape [..., {needed}], the model's height, width and"
                f" channels; got shape {images.shape}. Pass images[..., None] if grey "
                "images lack the axis of channels."
            )
        *leading, height, _, channels = images.shape
        size = self.patch_size
        side = height // size
        grid = images.reshape(*leading, side, size, side, size, channels)
        # One matrix product does what a convolution with this stride would.
        pixels = grid.swapaxes(-4, -3).reshape(*leading, side**2, -1)
        positions = self.positions[...]
        return self.transformer.summarize(
            self.summary[...] + positions[0],
            self.patches(pixels) + positions[1:],
            rngs=rngs,
        )


def vit_b16(
    image_size: int = 224,
    *,
    num_channels: int = 3,
    dropout: float = 0.0,
    remat: bool = False,
    rngs: nnx.Rngs,
    **layers: Unpack[LayerOptions],
) -> ViT:
    """Makes a ViT-B/16: patches of 16 pixels, width 768, 12 blocks of 12 heads.

    Args:
      image_size: Height and width of an image, in pixels.
      num_channels: Channels of a pixel.
      dropout: Fraction of units that is dropped where a call has ``rngs``.
      remat: Whether the backward pass computes each block again, to save memory.
      rngs: Keys for the initial weights.
      **layers: ``dtype`` and ``param_dtype`` of the layers, as Flax has them.

    Returns:
      The model, with random weights.

    References:
      Dosovitskiy et al., ICLR 2021, table 1.

    Example:
      >>> from flax import nnx
      >>> from fairjax.models import vit_b16
      >>> vit = nnx.eval_shape(lambda: vit_b16(rngs=nnx.Rngs(0)))
      >>> vit.image_shape, vit.width
      ((224, 224, 3), 768)
      >>> blocks = vit.transformer.blocks
      >>> len(blocks), blocks[0].attention.num_heads
      (12, 12)
    """
    return ViT(
        image_size,
        16,
        768,
        12,
        12,
        num_channels=num_channels,
        dropout=dropout,
        remat=remat,
        rngs=rngs,
        **layers,
    )
