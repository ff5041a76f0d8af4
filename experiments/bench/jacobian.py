"""Measures Jacobians: each strategy against a plain step, and against PyTorch.

Run ``python -m experiments.bench.jacobian --help`` for the options. Times are ratios to
a plain single-loss step of the same model. Both steps are run in turns, so that other
work on the machine affects both equally.
"""

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import fairjax
from experiments.bench import timing
from experiments.bench.timing import Cell, Limit, Numbers
from fairjax import losses
from fairjax.jacobian import Strategy, explain

STRATEGIES: tuple[Strategy, ...] = ("pulls", "jacrev", "map", "cells")
LEARNING_RATE = 1e-3


@dataclass(frozen=True)
class Options(timing.MemoryOptions):
    """Time the strategies, and a reconciled step against PyTorch.

    Attributes:
      groups: Numbers of groups; each group's loss is an objective.
      widths: Widths of the network, which has two hidden layers.
      batches: Numbers of examples.
      rounds: Times that each step is run, in turns with the others.
      limit: Leave out a step that is expected to take longer, in seconds.
      memory: Leave out a step whose rows, four times, take more, in GB.
      pytorch: Compare with PyTorch and TorchJD, if they are installed.
    """

    groups: Annotated[Numbers, Limit(2, some=True, quick=(4,))] = (2, 8, 32, 128)
    widths: Annotated[Numbers, Limit(some=True, quick=(32,))] = (256, 1024)
    batches: Annotated[Numbers, Limit(some=True, quick=(128,))] = (256, 4096)
    rounds: Annotated[int, Limit(quick=3)] = 9
    limit: float = 4.0
    memory: float = 6.0
    pytorch: bool = True


@dataclass(frozen=True)
class Row(timing.Row):
    """One step that was measured or left out."""

    SHORT = (
        ("width", ("256",)),
        ("batch", ("4096",)),
        ("step", ("plain", "pulls", "cells", "fairjax PCGrad", "TorchJD PCGrad")),
    )

    groups: Annotated[int, Cell("groups")]
    width: Annotated[int, Cell("width")]
    batch: Annotated[int, Cell("batch")]
    step: Annotated[str, Cell("step")]
    ratio: Annotated[float | None, Cell("ratio", ".2f")] = None
    milliseconds: Annotated[float | None, Cell("ms", ".1f")] = None
    compile_seconds: Annotated[float | None, Cell("compile s", ".1f")] = None
    temporary_megabytes: Annotated[float | None, Cell("temporary MB", ".0f")] = None
    gigaflops: Annotated[float | None, Cell("GFLOP", ".2f")] = None
    note: Annotated[str, Cell("note")] = ""


@dataclass(frozen=True)
class Problem:
    """A network, a batch in random groups of random sizes, and each group's loss."""

    params: Any
    batch: dict[str, jax.Array]
    objectives: fairjax.CellObjectives

    @classmethod
    def make(cls, groups: int, width: int, batch: int) -> "Problem":
        """Groups of unequal expected sizes: shares proportional to 1 to 3."""
        rng = np.random.default_rng(0)
        shares = rng.uniform(1, 3, groups)
        table = rng.choice(groups, 50_000, p=shares / shares.sum())
        cells = fairjax.partition(
            {"group": table}, levels={"group": list(range(groups))}
        )
        sizes = [width, width, width, 1]
        params = [
            (rng.normal(size=(a, b)) / np.sqrt(a), np.zeros(b))
            for a, b in itertools.pairwise(sizes)
        ]
        chosen = rng.choice(table, batch)
        data = {
            "x": rng.normal(size=(batch, width)).astype(np.float32),
            "y": rng.integers(0, 2, batch).astype(np.float32),
            "cells": cells.encode({"group": chosen}),
        }
        objectives = fairjax.cell_objectives(
            statistics, cells, losses.group_risks(cells, "group")
        )
        params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), params)
        return cls(params, jax.tree.map(jnp.asarray, data), objectives)

    def rows(self, strategy: Strategy) -> Callable[..., Any]:
        """Makes a function from parameters and batch to gradients ``[K, *param]``."""
        run = fairjax.value_and_jacobian(self.objectives, strategy=strategy)
        return lambda params, batch: run(params, batch)[1]

    def step(
        self, gradient: Callable[..., Any], transform: optax.GradientTransformation
    ) -> tuple[Callable[..., Any], Any]:
        """Makes a step ``(params, state, batch) -> (params, state)``, and its state."""

        def run(params, state, batch):
            updates, state = transform.update(gradient(params, batch), state, params)
            return optax.apply_updates(params, updates), state

        return run, transform.init(self.params)


def statistics(params: Any, batch: Mapping[str, Any]) -> dict[str, jax.Array]:
    """Computes the network's cross-entropy, one value for each example."""
    hidden = batch["x"]
    for weights, bias in params[:-1]:
        hidden = jax.nn.relu(hidden @ weights + bias)
    weights, bias = params[-1]
    logits = (hidden @ weights + bias)[:, 0]
    return {"loss": jax.nn.softplus(logits) - batch["y"] * logits}


def mean_of_rows(jacobian: Any) -> Any:
    """Averages the rows, a cheap use of all rows, so that the rows are timed."""

    def one(leaf):
        weights = jnp.full(leaf.shape[0], 1 / leaf.shape[0])
        return jnp.dot(weights, leaf.reshape(leaf.shape[0], -1)).reshape(leaf.shape[1:])

    return jax.tree.map(one, jacobian)


def jax_steps(problem: Problem) -> dict[str, tuple[Callable[..., Any], Any]]:
    """Makes each step, ``(params, state, batch) -> (params, state)``, and its state."""
    adamw = optax.adamw(LEARNING_RATE)
    groups = problem.objectives.num_objectives
    pcgrad = optax.chain(fairjax.pcgrad(num_objectives=groups), adamw)

    def plain(params, batch):
        return jax.grad(lambda p: jnp.mean(statistics(p, batch)["loss"]))(params)

    def mean(strategy):
        rows = problem.rows(strategy)
        return lambda params, batch: mean_of_rows(rows(params, batch))

    gradients = {name: mean(name) for name in STRATEGIES}
    made = {
        name: problem.step(gradient, adamw)
        for name, gradient in {"plain": plain, **gradients}.items()
    }
    return made | {"fairjax PCGrad": problem.step(problem.rows("auto"), pcgrad)}


def measure(options: Options, groups: int, width: int, batch: int) -> list[Row]:
    """Measures all steps of one size."""
    problem = Problem.make(groups, width, batch)
    plan = explain(problem.objectives)(problem.params, problem.batch)
    row = functools.partial(Row, groups, width, batch)
    calls: dict[str, Callable[[], Any]] = {}
    found: dict[str, dict[str, Any]] = {}
    left_out: list[Row] = []
    plain_seconds = 0.0
    row_bytes = 4 * sum(leaf.size for leaf in jax.tree.leaves(problem.params))
    needed = 4 * groups * row_bytes / 1e9
    for name, (step, state) in jax_steps(problem).items():
        cost = plan.costs.get(plan.strategy if name == "fairjax PCGrad" else name, 3.0)
        expected = plain_seconds * cost / 3
        reason = None
        if expected > options.limit:
            reason = f"expected to take {expected:.0f} s"
        elif name != "plain" and needed > options.memory:
            reason = f"would need about {needed:.0f} GB"
        if reason:
            left_out.append(row(name, note=f"left out: {reason}"))
            continue
        arguments = (problem.params, state, problem.batch)
        compiled, fields = timing.compiled(step, *arguments)
        flops = (compiled.cost_analysis() or {}).get("flops", float("nan"))
        note = "auto" if name == plan.strategy else ""
        found[name] = fields | {"gigaflops": flops / 1e9, "note": note}

        def call(compiled=compiled, arguments=arguments):
            jax.block_until_ready(compiled(*arguments))

        calls[name] = call
        if name == "plain":
            call()
            plain_seconds = min(timing.timed(call) for _ in range(3))
    if options.pytorch and timing.installed("torchjd"):
        for name, torch_call in torch_calls(problem, groups).items():
            expected = plain_seconds * groups
            if name != "torch plain" and expected > options.limit:
                note = f"left out: expected to take over {expected:.0f} s"
                left_out.append(row(name, note=note))
            else:
                calls[name] = torch_call
    times = timing.in_turns(calls, options.rounds)
    rows = [
        row(
            name,
            ratio=timing.median(taken / times["plain"]),
            milliseconds=1e3 * timing.median(taken),
            **found.get(name, {}),
        )
        for name, taken in times.items()
    ]
    return rows + left_out


def torch_calls(problem: Problem, groups: int) -> dict[str, Callable[[], Any]]:
    """Makes PyTorch's steps, on the same weights and batch."""
    from experiments.bench import torch_reconcilers

    params, batch = jax.tree.map(np.array, (problem.params, problem.batch))
    calls, values = torch_reconcilers.steps(params, batch, groups, LEARNING_RATE)
    expected = problem.objectives(problem.params, problem.batch)
    np.testing.assert_allclose(values, expected, rtol=1e-3, atol=1e-5)
    return calls


def tasks(options: Options) -> Iterator[list[Row]]:
    """Measures all sizes."""
    sizes = itertools.product(options.widths, options.batches, options.groups)
    for width, batch, groups in sizes:
        yield measure(options, groups, width, batch)


def main(options: Options) -> list[Row]:
    """Measures, prints and saves.

    Raises:
      ValueError: If an option or a folder cannot be used.
    """
    (rows,) = timing.run(options, {"jacobian-{}": Row}, tasks)
    return rows


if __name__ == "__main__":
    timing.command(main, Options, __doc__)
