"""Networks, batches and objectives that benchmarks share."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import fairjax
from fairjax import losses
from fairjax.models import ViT, functional

LEARNING_RATE = 1e-3
ATTRIBUTES = 7
"""Number of binary attributes that cross."""
PEOPLE = 10_000
"""Number of examples whose groups tell how large each group is expected to be."""


@dataclass(frozen=True)
class Problem:
    """Objectives, parameters, a batch, and the loss of a step with one objective."""

    objectives: Any
    params: Any
    batch: dict[str, Any]
    loss: Callable[[Any, Mapping[str, Any]], jax.Array]


def multilayer(
    groups: int, batch: int, widths: Sequence[int], *, unequal: bool = True
) -> Problem:
    """Makes a multilayer perceptron; each group's loss is an objective."""
    x = np.random.default_rng(0).normal(size=(batch, widths[0]))
    return of_groups(mlp, weights(widths), x, groups, unequal=unequal)


def abstract(groups: int, batch: int, widths: Sequence[int]) -> Problem:
    """Makes a multilayer perceptron without its numbers, for programs not run."""
    problem = multilayer(groups, batch, [1] * len(widths))
    array = functools.partial(jax.ShapeDtypeStruct, dtype=jnp.float32)
    sizes = itertools.pairwise([*widths, 1])
    params = [(array((a, b)), array((b,))) for a, b in sizes]
    data = problem.batch | {"x": array((batch, widths[0]))}
    return dataclasses.replace(problem, params=params, batch=data)


def convolutional(groups: int, batch: int, *, unequal: bool = True) -> Problem:
    """Makes a convolutional network with GroupNorm, on images of 32 x 32 pixels."""
    return of_images(Convolutional(rngs=nnx.Rngs(0)), 32, groups, batch, unequal)


def transformer(
    groups: int, batch: int, *, depth: int = 4, unequal: bool = True
) -> Problem:
    """Makes a vision transformer, on images of 64 x 64 pixels in patches of 8 x 8."""
    rngs = nnx.Rngs(0)
    vit = ViT(64, 8, width=128, depth=depth, num_heads=4, rngs=rngs)
    model = nnx.Sequential(vit, nnx.Linear(128, 1, rngs=rngs))
    return of_images(model, 64, groups, batch, unequal)


def of_images(
    model: nnx.Module, pixels: int, groups: int, batch: int, unequal: bool
) -> Problem:
    """Makes objectives of the groups' losses on square images."""
    apply, params = functional(model)
    x = np.random.default_rng(0).normal(size=(batch, pixels, pixels, 3))

    def net(params, x):
        return apply(params, x)[:, 0]

    return of_groups(net, params, x, groups, unequal=unequal)


def of_groups(
    net: Callable[..., jax.Array],
    params: Any,
    x: np.ndarray,
    groups: int,
    *,
    unequal: bool = True,
) -> Problem:
    """Makes objectives of the groups' losses.

    Args:
      net: ``net(params, x) -> logits [B]``.
      params: The network's parameters.
      x: ``[B, ...]``.
      groups: Number of groups.
      unequal: Whether the last group is three times as large as the first.
    """
    shares = np.linspace(1, 3 if unequal else 1, groups)
    ends = np.cumsum(shares) / shares.sum()

    def members(number: int) -> np.ndarray:
        return np.searchsorted(ends[:-1], (np.arange(number) + 0.5) / number)

    rng = np.random.default_rng(1)
    cells = fairjax.partition(
        {"group": members(PEOPLE)}, levels={"group": list(range(groups))}
    )
    codes = cells.encode({"group": rng.permutation(members(len(x)))})

    def example_losses(params, batch):
        return cross_entropy(net(params, batch["x"]), batch["y"])

    objectives = fairjax.cell_objectives(
        lambda params, batch: {"loss": example_losses(params, batch)},
        cells,
        losses.group_risks(cells, "group"),
    )
    batch = to_arrays(x=x, y=rng.integers(0, 2, len(x)), cells=codes)
    return Problem(
        objectives, params, batch, lambda *args: jnp.mean(example_losses(*args))
    )


def crossing(kind: str, batch: int, widths: Sequence[int]) -> Problem:
    """Makes a task and equalized odds of attributes that cross.

    Args:
      kind: ``"cells"`` for :func:`fairjax.cell_objectives`, or ``"outputs"`` for
        :func:`fairjax.output_objectives`.
      batch: Number of examples.
      widths: Widths of a multilayer perceptron.
    """
    rng = np.random.default_rng(0)
    attributes = rng.integers(0, 2, (batch, ATTRIBUTES))
    y = rng.integers(0, 2, batch)
    people = {f"a{i}": attributes[:, i] for i in range(ATTRIBUTES)} | {"y": y}
    cells = fairjax.partition({name: [0, 1] for name in people})

    def statistics(params, batch):
        logits = mlp(params, batch["x"])
        loss = cross_entropy(logits, batch["y"])
        return {"loss": loss, "score": jax.nn.sigmoid(logits)}

    def task(logits, batch):
        return jnp.mean(cross_entropy(logits, batch["y"]))

    def odds(attribute):
        def of_logits(logits, batch):
            scores, member = jax.nn.sigmoid(logits), batch["attributes"][:, attribute]
            gaps = [
                jnp.mean(scores, where=(batch["y"] == label) & (member == 1))
                - jnp.mean(scores, where=(batch["y"] == label) & (member == 0))
                for label in (0, 1)
            ]
            return gaps[0] ** 2 + gaps[1] ** 2

        return of_logits

    if kind == "cells":
        functions = {
            f"odds {i}": losses.equalized_odds(cells, f"a{i}", label="y")
            for i in range(ATTRIBUTES)
        }
        objectives = fairjax.cell_objectives(
            statistics, cells, {"task": losses.task(cells), **functions}
        )
    else:
        functions = {f"odds {i}": odds(i) for i in range(ATTRIBUTES)}
        objectives = fairjax.output_objectives(
            lambda params, batch: mlp(params, batch["x"]), {"task": task, **functions}
        )
    data = to_arrays(
        x=rng.normal(size=(batch, widths[0])),
        y=y,
        cells=cells.encode(people),
        attributes=attributes,
    )
    return Problem(
        objectives,
        weights(widths),
        data,
        lambda params, batch: task(mlp(params, batch["x"]), batch),
    )


class Convolutional(nnx.Module):
    """Three convolutions with GroupNorm, and a logit of the mean over pixels."""

    def __init__(self, *, rngs: nnx.Rngs):
        sizes = itertools.pairwise((3, 32, 64, 128))
        self.convolutions = nnx.List(
            [nnx.Conv(a, b, (3, 3), strides=(2, 2), rngs=rngs) for a, b in sizes]
        )
        self.norms = nnx.List(
            [nnx.GroupNorm(size, 8, rngs=rngs) for size in (32, 64, 128)]
        )
        self.logit = nnx.Linear(128, 1, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = nnx.relu(norm(convolution(x)))
        return self.logit(x.mean((1, 2)))


def weights(widths: Sequence[int]) -> list[tuple[jax.Array, jax.Array]]:
    """Draws ``(weights [in, out], bias [out])`` of each layer, and of one logit."""
    normal = np.random.default_rng(0).normal
    return [
        (jnp.asarray(normal(size=(a, b)) / np.sqrt(a), jnp.float32), jnp.zeros(b))
        for a, b in itertools.pairwise([*widths, 1])
    ]


def mlp(params: Any, x: jax.Array) -> jax.Array:
    """Computes a logit for each example."""
    for matrix, bias in params[:-1]:
        x = jax.nn.relu(x @ matrix + bias)
    matrix, bias = params[-1]
    return (x @ matrix + bias)[:, 0]


def cross_entropy(logits: jax.Array, y: jax.Array) -> jax.Array:
    """Computes each example's cross-entropy."""
    return jax.nn.softplus(logits) - y * logits


def to_arrays(*, x: np.ndarray, y: np.ndarray, **rest: np.ndarray) -> dict[str, Any]:
    """Returns a batch, with features and labels in float32."""
    floats = {"x": jnp.asarray(x, jnp.float32), "y": jnp.asarray(y, jnp.float32)}
    return floats | {name: jnp.asarray(values) for name, values in rest.items()}
