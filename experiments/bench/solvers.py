"""What the K x K part of a method costs: against TorchJD, and within a training step.

Run ``python -m experiments.bench.solvers --help`` for the options. Every method starts
from the Gram matrix of the same rows as TorchJD's, the two are timed in turns, and
their updates are compared first.
"""

import dataclasses
import functools
import importlib.util
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import fairjax
from experiments.bench import timing
from experiments.bench.jacobian import LEARNING_RATE, Problem
from experiments.bench.solver_methods import (
    IN_A_ROW,
    METHODS,
    Method,
    Ours,
    draw_rows,
)
from experiments.bench.timing import Cell
from fairjax import steps
from fairjax.reconcilers.core import Step

LONG = 0.1
"""A turn of TorchJD's that would take longer, in seconds, is of one update a draw."""


@dataclass(frozen=True)
class Options(timing.MemoryOptions):
    """Time the methods' K x K part against TorchJD's, and within a training step.

    Attributes:
      sizes: Numbers of objectives K.
      draws: Sets of rows that are taken in turn.
      rounds: Times that each call is made, in turns with the others.
      limit: Leave out what takes longer, in seconds.
      objectives: Numbers of objectives of the training steps.
      width: Width of the network of the training steps, of two hidden layers; the
        default makes a million parameters.
      batch: Its number of examples.
      pytorch: Compare with TorchJD, if it is installed.
    """

    sizes: tuple[int, ...] = (2, 8, 32, 128)
    draws: int = 3
    rounds: int = 15
    limit: float = 2.0
    objectives: tuple[int, ...] = (2, 8, 32)
    width: int = 708
    batch: int = 1024
    pytorch: bool = True


@dataclass(frozen=True)
class Row(timing.Row):
    """One method's K x K part at one K."""

    SHORT = (("K", ("32",)),)

    method: Annotated[str, Cell("method")]
    size: Annotated[int, Cell("K")]
    ratio: Annotated[float | None, Cell("ratio", ".1f")] = None
    loop_ratio: Annotated[float | None, Cell("ratio in a loop", ".1f")] = None
    milliseconds: Annotated[float | None, Cell("ms", ".3f")] = None
    loop_milliseconds: Annotated[float | None, Cell("in a loop ms", ".3f")] = None
    torchjd_milliseconds: Annotated[float | None, Cell("TorchJD ms", ".3f")] = None
    compile_seconds: Annotated[float | None, Cell("compile s", ".1f")] = None
    difference: Annotated[float | None, Cell("difference", ".0e")] = None
    note: Annotated[str, Cell("note")] = ""


@dataclass(frozen=True)
class ShareRow(timing.Row):
    """One method within a training step."""

    SHORT = (("K", ("32",)),)

    method: Annotated[str, Cell("method")]
    size: Annotated[int, Cell("K")]
    step_milliseconds: Annotated[float, Cell("step ms", ".1f")]
    over_mean: Annotated[
        float, Cell("over the mean %", ".1f", of=lambda row: 100 * row.over_mean)
    ]
    part_milliseconds: Annotated[float, Cell("K x K ms", ".3f")]
    share: Annotated[float, Cell("K x K %", ".2f", of=lambda row: 100 * row.share)]


def measure(options: Options, method: Method, size: int) -> Row:
    """One method at one K."""
    rows = draw_rows(size, options.draws)
    grams = jnp.stack([jnp.asarray(one @ one.T) for one in rows])
    ours = Ours(method.steps, grams)
    row = Row(method.name, size, note=method.settings)
    row = dataclasses.replace(row, compile_seconds=ours.compile_seconds)
    calls = {"ours": _one_by_one(ours, options.draws, IN_A_ROW), "loop": ours.loop}
    number = IN_A_ROW
    if options.pytorch and importlib.util.find_spec("torchjd") is not None:
        from experiments.bench import torch_solvers

        with warnings.catch_warnings():
            # Of CVXPY, on the problems that TorchJD poses and how they were solved.
            warnings.simplefilter("ignore", UserWarning)
            row = compare(method, row, rows, ours)
            theirs = torch_solvers.Theirs(
                method.name, method.torchjd_options(size), rows
            )
            theirs(0)
            seconds = timing.timed(lambda: theirs(0))
            if seconds > options.limit:
                row = _noted(row, f"TorchJD left out: takes {seconds:.0f} s")
            else:
                theirs.set_fastest_threads()
                number = IN_A_ROW if IN_A_ROW * seconds < LONG else options.draws
                calls["theirs"] = _one_by_one(theirs, options.draws, number)
            return _timed_row(row, timing.in_turns(calls, options.rounds), number)
    return _timed_row(row, timing.in_turns(calls, options.rounds), number)


def compare(method: Method, row: Row, draws: Sequence[np.ndarray], ours: Ours) -> Row:
    """The greatest relative difference of the updates, and why, where it is great."""
    from experiments.bench import torch_solvers

    if method.tolerance is None:
        return _noted(row, "drawn at random")
    size = row.size
    worst, gaps = 0.0, []
    for draw, rows in enumerate(draws):
        solve = functools.partial(ours, draw)
        if method.ordered is not None:
            orders = torch_solvers.seeded_orders(method.name, size, seed=draw)
            chain = method.ordered(orders)
            solve = functools.partial(Ours(chain, ours.grams), draw)
        found = np.asarray(solve(), np.float64)
        theirs = torch_solvers.Theirs(method.name, method.torchjd_options(size), [rows])
        wanted, weights = theirs.result(0, seed=draw)
        difference = np.linalg.norm(found @ rows - wanted) / np.linalg.norm(wanted)
        worst = max(worst, float(difference))
        if difference > method.tolerance and method.gap and weights is not None:
            gram = rows.astype(np.float64) @ rows.T
            gaps.append((method.gap(gram, found), method.gap(gram, weights)))
        elif difference > method.tolerance:
            gaps.append((float("inf"), 0.0))
    row = dataclasses.replace(row, difference=worst)
    if not gaps:
        return row
    mine, other = np.max(gaps, axis=0)
    if mine >= other:
        return _noted(row, "THE UPDATES DIFFER")
    return _noted(row, f"TorchJD misses the optimum by {other:.0e}, ours {mine:.0e}")


def training_shares(options: Options, size: int) -> list[ShareRow]:
    """Every method within a whole training step of one K."""
    problem = Problem.make(size, options.width, options.batch)
    adamw = optax.adamw(LEARNING_RATE)
    rows = fairjax.value_and_jacobian(problem.objectives)

    def training_step(chain: Sequence[Step]) -> Callable[[], Any]:
        transform = optax.chain(fairjax.reconcile(*chain, num_objectives=size), adamw)

        def run(params: Any, state: Any, batch: Any) -> Any:
            updates, state = transform.update(rows(params, batch)[1], state, params)
            return optax.apply_updates(params, updates), state

        step, state = jax.jit(run), transform.init(problem.params)
        return lambda: jax.block_until_ready(step(problem.params, state, problem.batch))

    mean = training_step((steps.combine("mean"),))
    grams = jnp.stack([jnp.asarray(one @ one.T) for one in draw_rows(size, 3)])
    found = []
    for method in METHODS:
        calls = {
            "mean": mean,
            "method": training_step(method.steps),
            "part": Ours(method.steps, grams).loop,
        }
        times = timing.in_turns(calls, options.rounds)
        part = times["part"] / IN_A_ROW
        found.append(
            ShareRow(
                method.name,
                size,
                step_milliseconds=1e3 * float(np.median(times["method"])),
                over_mean=float(np.median(times["method"] / times["mean"])) - 1,
                part_milliseconds=1e3 * float(np.median(part)),
                share=float(np.median(part / times["method"])),
            )
        )
    return found


def _one_by_one(
    call: Callable[[int], Any], draws: int, number: int
) -> Callable[[], None]:
    def run() -> None:
        for update in range(number):
            call(update % draws)

    return run


def _noted(row: Row, note: str) -> Row:
    return dataclasses.replace(row, note="; ".join(filter(None, (row.note, note))))


def _timed_row(row: Row, turns: dict[str, np.ndarray], number: int) -> Row:
    """The medians an update; TorchJD's turns are of so many updates."""
    ours, loop = turns["ours"] / IN_A_ROW, turns["loop"] / IN_A_ROW
    row = dataclasses.replace(
        row,
        milliseconds=1e3 * float(np.median(ours)),
        loop_milliseconds=1e3 * float(np.median(loop)),
    )
    if "theirs" not in turns:
        return row
    theirs = turns["theirs"] / number
    return dataclasses.replace(
        row,
        ratio=float(np.median(theirs / ours)),
        loop_ratio=float(np.median(theirs / loop)),
        torchjd_milliseconds=1e3 * float(np.median(theirs)),
    )


def main(options: Options) -> tuple[list[Row], list[ShareRow]]:
    """Measure, print and save.

    Raises:
      ValueError: An option or a folder that cannot be used.
    """
    several = {"sizes": 2, "objectives": 2}
    timing.check_numbers(options, least=several, some=several)
    options, about = timing.begin(
        options, sizes=(4,), objectives=(4,), width=32, batch=128, rounds=3
    )
    against: list[Row] = []
    for size in options.sizes:
        against += (new := [measure(options, method, size) for method in METHODS])
        timing.show(Row.heads(), new, width=130)
    shares: list[ShareRow] = []
    for size in options.objectives:
        shares += (new_shares := training_shares(options, size))
        timing.show(ShareRow.heads(), new_shares, width=130)
    timing.save(options, f"solvers-{timing.setting(about)}", Row, against, about)
    timing.save(
        options, f"solvers-share-{timing.setting(about)}", ShareRow, shares, about
    )
    return against, shares


if __name__ == "__main__":
    timing.command(main, Options, __doc__)
