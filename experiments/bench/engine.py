"""Measures what a reconciled train step costs, in counts and in time.

Run ``python -m experiments.bench.engine --help`` for the options. Every cost is that of
a whole step: values, reconciled update and AdamW, over a plain AdamW step of the same
model and batch. Counts of FLOPs, bytes and memory are the same on a busy machine. Steps
that are timed take turns, with each other and with PyTorch's.
"""

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias

import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
import optax
from jax.interpreters import partial_eval
from matplotlib.figure import Figure
from rich.progress import track

import fairjax
from experiments.bench import problems, timing
from experiments.bench.problems import LEARNING_RATE, Problem
from experiments.bench.solvers import Ours, draw_rows
from experiments.bench.timing import Cell, Limit, Numbers
from experiments.reporting import figures
from fairjax import reconciled, steps, training
from fairjax.audit.figures import COLOURS, LINES, STYLE
from fairjax.jacobian._jaxprs import matrix_flops

MLP = (256, 256, 256, 256)
"""Widths of the networks before the logit: four weight matrices."""
LARGE = (5700, 5700, 5700, 5700)
"""Widths of a network with 97.5 million parameters."""
UPGRAD = {128: 0.05, 256: 0.3}
"""Number of objectives -> goal for the seconds of one update by UPGrad."""
FASTER = {8: 3.0, 32: 8.0}
"""Number of objectives -> goal for TorchJD's time over ours."""
SIZES = ("equal", "unequal")
"""Sizes of groups; unequal ones differ by up to a factor of three."""
COMPILATIONS = 3
"""Number of compilations that are timed, of which the median is taken."""


@dataclass(frozen=True)
class Work:
    """Steps whose costs are counted.

    Attributes:
      name: What is trained on what.
      objectives: Number of objectives, K.
      batch: Number of examples, B.
      make: Makes the problem.
      goals: Measure -> largest value that is wanted.
    """

    name: str
    objectives: int
    batch: int
    make: Callable[[], Problem]
    goals: Mapping[str, float]


def _works() -> Iterator[Work]:
    small = {"FLOPs": 1.7, "bytes": 1.5, "temporary MB": 1.0, "compile time": 4.0}
    more = {"FLOPs": 1.8, "bytes": 1.6, "temporary MB": 2.0, "compile time": 4.0}
    large = {"FLOPs": 2.0, "bytes": 3.0}
    for groups, batch, goals in ((8, 64, small), (32, 64, more), (32, 1024, large)):
        for sizes in SIZES:
            make = functools.partial(
                problems.multilayer, groups, batch, MLP, unequal=sizes == "unequal"
            )
            yield Work(f"MLP 256, {sizes} groups", groups, batch, make, goals)
    for batch, most in ((64, 1.4), (1024, 4.2)):
        for kind in ("outputs", "cells"):
            make = functools.partial(problems.crossing, kind, batch, MLP)
            name = f"task and crossing odds, of {kind}"
            yield Work(name, 1 + problems.ATTRIBUTES, batch, make, {"FLOPs": most})
    make = functools.partial(problems.abstract, 8, 64, LARGE)
    goals = {"FLOPs": 1.05, "temporary memory": 1.5}
    yield Work("MLP, 97.5 M parameters", 8, 64, make, goals)
    images = {
        "convolutions, GroupNorm": problems.convolutional,
        "ViT": problems.transformer,
    }
    for (name, make), sizes in itertools.product(images.items(), SIZES):
        make = functools.partial(make, 8, 64, unequal=sizes == "unequal")
        yield Work(f"{name}, {sizes} groups", 8, 64, make, {"FLOPs": 1.45})


WORKS = tuple(_works())

Made: TypeAlias = tuple[Callable[..., Any], Callable[..., Any]]
"""A step ``(state, batch) -> (state, values)``, and ``init(params) -> state``."""


@dataclass(frozen=True)
class Options(timing.MemoryOptions):
    """Count and time what a reconciled step costs.

    Attributes:
      works: Count the costs of works whose names begin with one of these.
      groups: Numbers of groups K of timed steps; each group's loss is an objective.
      batches: Numbers of examples of timed steps.
      upgrad: Numbers of objectives for an update by UPGrad.
      rounds: Times that each step is run, in turns with the others.
      pytorch: Compare with PyTorch and TorchJD, if they are installed.
    """

    works: Annotated[tuple[str, ...], Limit(quick=("MLP 256, equal",))] = ("",)
    groups: Annotated[Numbers, Limit(2, quick=(2,))] = (2, 4, 8, 16, 32)
    batches: Annotated[Numbers, Limit(quick=(64,))] = (64, 1024)
    upgrad: Annotated[Numbers, Limit(2, quick=(4,))] = tuple(UPGRAD)
    rounds: Annotated[int, Limit(quick=2)] = 11
    pytorch: bool = True


@dataclass(frozen=True)
class Row(timing.Row):
    """A cost, beside its goal."""

    work: Annotated[str, Cell("work")]
    objectives: Annotated[int, Cell("K")]
    batch: Annotated[int | None, Cell("B")]
    measure: Annotated[str, Cell("measure")]
    sign: str
    goal: Annotated[
        float | None,
        Cell("goal", of=lambda row: row.goal and f"{row.sign} {row.goal:g}"),
    ]
    measured: Annotated[
        float | None,
        Cell("measured", ".3g"),
        Cell("reached", of=lambda row: row.reached),
    ]
    note: Annotated[str, Cell("note")] = ""

    @property
    def reached(self) -> str | None:
        """Whether the goal is reached."""
        if self.goal is None or self.measured is None:
            return None
        least, most = sorted((self.goal, self.measured))
        return "yes" if (least if self.sign == "≥" else most) == self.goal else "no"


@dataclass(frozen=True)
class Curve(timing.Row):
    """Costs of one step by the number of groups, which the picture shows."""

    IN_DOCUMENT = False

    groups: Annotated[int, Cell("K")]
    batch: Annotated[int, Cell("B")]
    flops: Annotated[float, Cell("FLOPs", ".2f")]
    flops_of_passes: Annotated[float, Cell("K passes' FLOPs", ".2f")]
    milliseconds: Annotated[float, Cell("ms", ".2f")]
    time: Annotated[float, Cell("time", ".2f")]
    torch_milliseconds: Annotated[float | None, Cell("PyTorch's plain ms", ".2f")] = (
        None
    )
    torchjd_time: Annotated[float | None, Cell("TorchJD's time", ".2f")] = None
    torchjd_ratio: Annotated[float | None, Cell("TorchJD / ours", ".2f")] = None
    loop_ratio: Annotated[float | None, Cell("sub-batches / ours", ".2f")] = None
    mode: Annotated[str, Cell("TorchJD's mode")] = ""


def plain_step(problem: Problem) -> Made:
    """Makes a step on the mean loss."""
    adamw = optax.adamw(LEARNING_RATE)

    def step(state, batch):
        params, own = state
        loss, gradient = jax.value_and_grad(problem.loss)(params, batch)
        updates, own = adamw.update(gradient, own, params)
        return (optax.apply_updates(params, updates), own), loss

    return step, lambda params: (params, adamw.init(params))


def reconciled_step(
    problem: Problem, strategy: reconciled.ReconciledStrategy = "auto"
) -> Made:
    """Makes a PCGrad step."""
    pcgrad = fairjax.pcgrad(num_objectives=problem.objectives.num_objectives)
    transform = optax.chain(pcgrad, optax.adamw(LEARNING_RATE))
    step = training.make_train_step(problem.objectives, transform, strategy=strategy)
    return step, functools.partial(training.init_state, transform=transform, key=0)


def flops(function: Callable[..., Any], *args: Any) -> float:
    """Counts the FLOPs of matrix products, without those whose results are not used."""
    jaxpr = jax.make_jaxpr(function)(*args).jaxpr
    used, _ = partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
    return matrix_flops(used)


def over_plain(
    problem: Problem, strategy: reconciled.ReconciledStrategy = "auto"
) -> float:
    """Computes a reconciled step's FLOPs over those of a plain step."""
    ours, plain = (
        flops(step, jax.eval_shape(init, problem.params), problem.batch)
        for step, init in (reconciled_step(problem, strategy), plain_step(problem))
    )
    return ours / plain


def count(work: Work) -> list[Row]:
    """Counts the costs of a work for which there are goals."""
    problem = work.make()
    found = {"FLOPs": over_plain(problem)}
    if work.goals.keys() - found:
        ours, plain = (
            compiled(make, problem, COMPILATIONS if "compile time" in work.goals else 1)
            for make in (reconciled_step, plain_step)
        )
        found |= {name: value / plain[name] for name, value in ours.items()}
        found["temporary MB"] = ours["temporary memory"] / 1e6
    return [
        Row(work.name, work.objectives, work.batch, measure, "≤", goal, found[measure])
        for measure, goal in work.goals.items()
    ]


def compiled(
    make: Callable[[Problem], Made], problem: Problem, times: int
) -> dict[str, float]:
    """Returns the compiler's counts of a step, and the seconds that it takes."""
    seconds = []
    for _ in range(times):
        # A new function is traced anew.
        step, init = make(problem)
        state = jax.eval_shape(init, problem.params)
        program, fields = timing.compiled(step, state, problem.batch, donate_argnums=0)
        seconds.append(fields["compile_seconds"])
    return {
        "bytes": (program.cost_analysis() or {})["bytes accessed"],
        "temporary memory": 1e6 * fields["temporary_megabytes"],
        "compile time": timing.median(seconds),
    }


def upgrad(size: int, rounds: int) -> list[Row]:
    """Times one update by UPGrad from a Gram matrix."""
    (rows,) = draw_rows(size, 1)
    ours = Ours((steps.upgrad(),), jnp.asarray(rows @ rows.T)[None])
    (taken,) = timing.in_turns({"ours": lambda: ours(0)}, rounds).values()
    seconds, goal = timing.median(taken), UPGRAD.get(size)
    return [Row("UPGrad, one update", size, None, "seconds", "≤", goal, seconds)]


def timed(options: Options, groups: int, batch: int) -> list[Row | Curve]:
    """Counts and times one step, in turns with a plain step and with PyTorch's."""
    problem = problems.multilayer(groups, batch, MLP)
    calls = {
        "ours": running(problem, *reconciled_step(problem)),
        "plain": running(problem, *plain_step(problem)),
    }
    if options.pytorch and timing.installed("torchjd"):
        calls |= torch_calls(problem, groups)
    times = timing.in_turns(calls, options.rounds)
    middle = {name: timing.median(taken) for name, taken in times.items()}
    found: dict[str, Any] = {}
    if modes := [name for name in times if name.startswith("auto")]:
        best = min(modes, key=middle.__getitem__)
        found = {
            "torch_milliseconds": 1e3 * middle["torch plain"],
            "torchjd_time": timing.median(times[best] / times["torch plain"]),
            "torchjd_ratio": timing.median(times[best] / times["ours"]),
            "loop_ratio": timing.median(times["sub-batches"] / times["ours"]),
            "mode": best,
        }
    curve = Curve(
        groups,
        batch,
        over_plain(problem),
        over_plain(problem, "pulls"),
        1e3 * middle["ours"],
        timing.median(times["ours"] / times["plain"]),
        **found,
    )
    return [*goals_of(curve), curve]


def running(problem: Problem, step: Callable[..., Any], init: Any) -> Callable[[], Any]:
    """Makes a call that takes one step of training."""
    program = jax.jit(step, donate_argnums=0)
    state = init(jax.tree.map(jnp.copy, problem.params))

    def call() -> None:
        nonlocal state
        state, values = program(state, problem.batch)
        jax.block_until_ready((state, values))

    return call


def torch_calls(problem: Problem, groups: int) -> dict[str, Callable[[], Any]]:
    """Makes PyTorch's steps, on the same weights and batch."""
    from experiments.bench import torch_reconcilers

    params, batch = jax.tree.map(np.array, (problem.params, problem.batch))
    calls, values = torch_reconcilers.steps(params, batch, groups, LEARNING_RATE)
    expected = problem.objectives(problem.params, problem.batch)
    np.testing.assert_allclose(values, expected, rtol=1e-3, atol=1e-5)
    return {"torch plain": calls.pop("plain"), **calls}


def goals_of(curve: Curve) -> Iterator[Row]:
    """Returns the rows of a timed step for which there are goals."""
    faster = FASTER.get(curve.groups)
    if faster is None or curve.torchjd_ratio is None:
        return
    row = functools.partial(Row, "MLP 256, unequal groups", curve.groups, curve.batch)
    both = (
        f"each over its own plain step: ours {curve.time:.1f}, "
        f"TorchJD's {curve.torchjd_time:.1f}"
    )
    note = f"{curve.mode}; {both}"
    yield row("time of TorchJD / ours", "≥", faster, curve.torchjd_ratio, note)
    yield row("time of sub-batches / ours", "≥", None, curve.loop_ratio)


def draw(curves: Sequence[Curve]) -> Figure:
    """Draws FLOPs and times over a plain step, by the number of groups."""
    panels = {
        "FLOPs of matrix products": {
            "K backward passes": ("flops_of_passes", COLOURS[1]),
            "fairjax": ("flops", COLOURS[0]),
        },
        "time": {
            "TorchJD": ("torchjd_time", COLOURS[2]),
            "fairjax": ("time", COLOURS[0]),
        },
    }
    groups = sorted({curve.groups for curve in curves})
    batches = sorted({curve.batch for curve in curves})
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.0, 2.9), layout="constrained")
        both = figure.subplots(1, 2, sharey=True)
        for axes, (title, lines) in zip(both, panels.items(), strict=True):
            for number, batch in enumerate(batches):
                for name, (field, colour) in lines.items():
                    values = [getattr(c, field) for c in curves if c.batch == batch]
                    if None not in values:
                        label = f"{name}, B {batch:,}"
                        style = {"color": colour, "linestyle": LINES[number]}
                        axes.plot(groups, values, marker=".", label=label, **style)
            axes.set_title(title, fontsize=9)
            axes.set_xscale("log", base=2)
            axes.set_yscale("log", base=2)
            axes.set_xticks(groups, [str(size) for size in groups])
            axes.yaxis.set_major_formatter("{x:g}")
            axes.set_xlabel("objectives K")
            axes.legend()
        both[0].set_ylabel("times a plain step")
    return figure


def tasks(options: Options) -> Iterator[list[Row | Curve]]:
    """Counts and times everything, with a bar of the progress."""
    works = [work for work in WORKS if work.name.startswith(options.works)]
    sizes = list(itertools.product(options.batches, options.groups))
    todo = [
        *(functools.partial(count, work) for work in works),
        *(functools.partial(upgrad, size, options.rounds) for size in options.upgrad),
        *(functools.partial(timed, options, groups, batch) for batch, groups in sizes),
    ]
    yield [row for task in track(todo, "Measuring") for row in task()]


def main(options: Options) -> tuple[list[Row], list[Curve]]:
    """Measures, prints, saves, and draws the times.

    Raises:
      ValueError: If an option or a folder cannot be used.
    """
    kinds = {"engine-{}": Row, "engine-by-groups-{}": Curve}
    rows, curves = timing.run(options, kinds, tasks)
    folders = [options.output]
    if options.docs:
        folders.append(timing.DOCUMENT.with_suffix(""))
    for folder in folders if curves else ():
        figures.save(draw(curves), folder, f"engine-{jax.default_backend()}")
    return rows, curves


if __name__ == "__main__":
    # Compilations are timed.
    jax.config.update("jax_enable_compilation_cache", False)
    timing.command(main, Options, __doc__)
