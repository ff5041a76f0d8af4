"""The options that all models share: types of their layers, and rematerialisation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from fairjax import models

B, WIDTH, BLOCKS, HEADS = 2, 8, 2, 2
RNG = np.random.default_rng(0)


def draw(*shape):
    return jnp.asarray(RNG.normal(size=(B, *shape)), jnp.float32)


def volume(*sizes, rngs, **options):
    slices = models.ViT(8, 4, *sizes, rngs=rngs, **options)
    return models.VolumeEncoder(slices, 3, *sizes[1:], rngs=rngs, **options)


def fusion(*, rngs, **options):
    encoders = {"a": models.MLP(3, (4,), WIDTH, rngs=rngs, **options)}
    sizes = {"width": WIDTH, "depth": 1, "num_heads": HEADS}
    return models.MultimodalClassifier(
        encoders, {"a": WIDTH}, **sizes, rngs=rngs, **options
    )


def encoder(make, *first, **named):
    return functools.partial(make, *first, WIDTH, BLOCKS, HEADS, **named)


WORDS, PRESENT = jnp.ones((B, 3), jnp.int32), jnp.full((B, 3), True)
ENCODERS = {
    "transformer": (encoder(models.Transformer), (draw(3, WIDTH),)),
    "vit": (encoder(models.ViT, 8, 4), (draw(8, 8, 3),)),
    "tabular": (encoder(models.TabularEncoder, 3), (draw(3),)),
    "text": (encoder(models.TextEncoder, 5, max_length=3), (WORDS,)),
    "series": (
        encoder(models.SeriesEncoder, 2, max_length=3),
        (draw(3), WORDS, draw(3), PRESENT),
    ),
    "volume": (encoder(volume), (draw(3, 8, 8, 3),)),
}
MODELS = ENCODERS | {
    "mlp": (functools.partial(models.MLP, 3, (4,), 1), (draw(3),)),
    "fusion": (fusion, ({"a": (draw(3),)},)),
}


@pytest.mark.parametrize("name", MODELS)
def test_types_of_computations_and_of_parameters(name):
    make, inputs = MODELS[name]

    def run():
        rngs = nnx.Rngs(0)
        model = make(rngs=rngs, dtype=jnp.bfloat16, param_dtype=jnp.float16)
        return nnx.to_pure_dict(nnx.state(model, nnx.Param)), model(*inputs)

    for tree, dtype in zip(
        jax.eval_shape(run), (jnp.float16, jnp.bfloat16), strict=True
    ):
        assert {leaf.dtype for leaf in jax.tree.leaves(tree)} == {jnp.dtype(dtype)}


@pytest.mark.parametrize("name", ENCODERS)
def test_each_block_is_computed_again(name):
    make, inputs = ENCODERS[name]

    def count(**options):
        def run(inputs):
            return make(rngs=nnx.Rngs(0), **options)(*inputs)

        names = [eqn.primitive.name for eqn in jax.make_jaxpr(run)(inputs).eqns]
        return sum(name in ("checkpoint", "remat2", "remat") for name in names)

    # A volume has the blocks of its slices' model, too.
    again = BLOCKS * 2 if name == "volume" else BLOCKS
    assert (count(), count(remat=True)) == (0, again)


@pytest.mark.slow
def test_what_is_computed_again_is_the_same():
    """With dropout, so that the backward pass must draw the same units."""
    inputs, target = (draw(3, WIDTH),), draw(3, WIDTH)

    def run(**options):
        model = models.Transformer(
            WIDTH, 1, HEADS, rngs=nnx.Rngs(0), dropout=0.5, **options
        )
        apply, params = models.functional(model)

        def loss(params, key):
            rngs = nnx.Rngs(dropout=key)
            return jnp.mean((apply(params, *inputs, rngs=rngs) - target) ** 2)

        return jax.jit(jax.value_and_grad(loss))(params, jax.random.key(1))

    pairs = zip(*map(jax.tree.leaves, (run(), run(remat=True))), strict=True)
    for plain, again in pairs:
        np.testing.assert_allclose(again, plain, rtol=1e-4, atol=1e-6)
