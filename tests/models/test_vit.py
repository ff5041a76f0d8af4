"""Models of images and volumes, against NumPy and in their published size."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from fairjax.models import ViT, VolumeEncoder, vit_b16
from tests.models import numpy_transformer as oracle

SIZE, PATCH, CHANNELS, WIDTH, HEADS, SLICES = 6, 3, 2, 8, 2, 3


def make_vit():
    return ViT(SIZE, PATCH, WIDTH, 1, HEADS, num_channels=CHANNELS, rngs=nnx.Rngs(0))


VIT, VIT_PARAMS = oracle.drawn(make_vit)
VOLUME, VOLUME_PARAMS = oracle.drawn(
    lambda: VolumeEncoder(make_vit(), SLICES, num_heads=HEADS, rngs=nnx.Rngs(1))
)
VOLUMES = jnp.asarray(
    np.random.default_rng(0).normal(size=(2, SLICES, SIZE, SIZE, CHANNELS)), jnp.float32
)


def summarize_image(params, image):
    """The patches are read row by row, each row by row, with channels last."""
    patches = [
        image[i : i + PATCH, j : j + PATCH].ravel()
        for i in range(0, SIZE, PATCH)
        for j in range(0, SIZE, PATCH)
    ]
    tokens = oracle.linear(params["patches"], np.stack(patches))
    rows = np.concatenate([params["summary"][None], tokens]) + params["positions"]
    return oracle.transform(params["transformer"], rows, HEADS)[0]


def test_images_are_those_of_numpy():
    found = jax.jit(VIT)(VIT_PARAMS, VOLUMES[:, 0])
    params = oracle.double(VIT_PARAMS)
    for row, image in zip(found, np.asarray(VOLUMES[:, 0], np.float64), strict=True):
        np.testing.assert_allclose(row, summarize_image(params, image), atol=2e-5)


def test_volumes_are_those_of_numpy():
    found = jax.jit(VOLUME)(VOLUME_PARAMS, VOLUMES)
    params = oracle.double(VOLUME_PARAMS)
    for row, volume in zip(found, np.asarray(VOLUMES, np.float64), strict=True):
        tokens = np.stack([summarize_image(params["slices"], one) for one in volume])
        tokens = tokens + params["positions"]
        np.testing.assert_allclose(
            row, oracle.summarize(params, tokens, HEADS), atol=2e-5
        )


@pytest.mark.slow
def test_half_precision():
    run = jax.jit(VOLUME)
    found = run(VOLUME_PARAMS, VOLUMES.astype(jnp.bfloat16))
    np.testing.assert_allclose(found, run(VOLUME_PARAMS, VOLUMES), atol=0.05)


@pytest.mark.slow
def test_published_size():
    """86 million parameters at 224 pixels, by the arithmetic of the layers."""
    vit = nnx.eval_shape(lambda: vit_b16(rngs=nnx.Rngs(0)))
    state = nnx.state(vit, nnx.Param)
    assert sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(state)) == 85_798_656
    small = nnx.eval_shape(lambda: vit_b16(32, num_channels=1, rngs=nnx.Rngs(0)))
    assert small.image_shape == (32, 32, 1)
    assert small.positions.shape == (5, 768)


def test_wrong_sizes():
    with pytest.raises(ValueError, match="got patches of 4 pixels and images of"):
        ViT(SIZE, 4, WIDTH, 1, HEADS, rngs=nnx.Rngs(0))


@pytest.mark.parametrize("shape", [(), (6, 6), (2, 6, 6), (2, 6, 5, 2), (2, 6, 6, 1)])
def test_images_of_other_shapes(shape, untyped):
    needed = "images must have shape [..., 6, 6, 2], the model's height, width and "
    message = f"{needed}channels; got shape {shape}"
    with pytest.raises(ValueError, match=re.escape(message)):
        VIT(VIT_PARAMS, jnp.zeros(shape))


@pytest.mark.parametrize(
    "shape", [(), (3,), (6, 6), (3, 6, 6, 2), (2, 2, 6, 6, 2), (1, 2, 3, 6, 6, 2)]
)
def test_volumes_of_other_shapes(shape, untyped):
    message = r"\[examples, 3, height, width, channels\], .*; got shape \(.*\)"
    with pytest.raises(ValueError, match=message):
        VOLUME(VOLUME_PARAMS, jnp.zeros(shape))


def test_volumes_of_other_slices(untyped):
    message = r"shape \[..., 6, 6, 2\], .*; got shape \(2, 3, 6, 5, 2\)"
    with pytest.raises(ValueError, match=message):
        VOLUME(VOLUME_PARAMS, VOLUMES[..., :5, :])
