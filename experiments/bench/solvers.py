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
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import fairjax
from experiments.bench.jacobian import LEARNING_RATE, Problem
from experiments.bench.solver_methods import (
    IN_A_ROW,
    METHODS,
    Method,
    Ours,
    draw_rows,
)
from experiments.bench.timing import (
    command,
    decimals,
    environment,
    in_turns,
    keep_freed_memory,
    save,
    setting,
    show,
    timed,
)
from experiments.files import prepare_folder
from fairjax import steps
from fairjax.reconcilers.core import Step

LONG = 0.1
"""A turn of TorchJD's that would take longer, in seconds, is of one update a draw."""

AGAINST = (
    *("method", "K", "ratio", "ratio in a loop", "ms", "in a loop ms"),
    *("TorchJD ms", "compile s", "difference", "note"),
)
SHARES = ("method", "K", "step ms", "over the mean %", "K x K ms", "K x K %")


@dataclass(frozen=True)
class Options:
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
      keep_freed_memory: As for ``experiments.bench.jacobian``.
      output: Folder of the results.
      pytorch: Compare with TorchJD, if it is installed.
      docs: Also copy the tables to docs/performance.md.
      quick: Small sizes and few rounds.
    """

    sizes: tuple[int, ...] = (2, 8, 32, 128)
    draws: int = 3
    rounds: int = 15
    limit: float = 2.0
    objectives: tuple[int, ...] = (2, 8, 32)
    width: int = 708
    batch: int = 1024
    keep_freed_memory: bool = True
    output: Path = Path("results/bench")
    pytorch: bool = True
    docs: bool = False
    quick: bool = False


@dataclass(frozen=True)
class Row:
    """One method's K x K part at one K."""

    method: str
    size: int
    ratio: float | None = None
    loop_ratio: float | None = None
    milliseconds: float | None = None
    loop_milliseconds: float | None = None
    torchjd_milliseconds: float | None = None
    compile_seconds: float | None = None
    difference: float | None = None
    note: str = ""

    def cells(self) -> list[str]:
        """As shown in the table."""
        difference = "-" if self.difference is None else f"{self.difference:.0e}"
        return [
            self.method,
            str(self.size),
            decimals(self.ratio, 1),
            decimals(self.loop_ratio, 1),
            decimals(self.milliseconds, 3),
            decimals(self.loop_milliseconds, 3),
            decimals(self.torchjd_milliseconds, 3),
            decimals(self.compile_seconds, 1),
            difference,
            self.note,
        ]


@dataclass(frozen=True)
class ShareRow:
    """One method within a training step."""

    method: str
    size: int
    step_milliseconds: float
    over_mean: float
    part_milliseconds: float
    share: float

    def cells(self) -> list[str]:
        """As shown in the table."""
        return [
            self.method,
            str(self.size),
            decimals(self.step_milliseconds, 1),
            decimals(100 * self.over_mean, 1),
            decimals(self.part_milliseconds, 3),
            decimals(100 * self.share, 2),
        ]


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
            seconds = timed(lambda: theirs(0))
            if seconds > options.limit:
                row = _noted(row, f"TorchJD left out: takes {seconds:.0f} s")
            else:
                theirs.set_fastest_threads()
                number = IN_A_ROW if IN_A_ROW * seconds < LONG else options.draws
                calls["theirs"] = _one_by_one(theirs, options.draws, number)
            return _timed_row(row, in_turns(calls, options.rounds), number)
    return _timed_row(row, in_turns(calls, options.rounds), number)


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
        times = in_turns(calls, options.rounds)
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
    for name, least in (("sizes", 2), ("objectives", 2)):
        given = getattr(options, name)
        if not given or min(given) < least:
            raise ValueError(f"--{name} must be {least} or more: {given}.")
    for name in ("draws", "rounds", "width", "batch"):
        if getattr(options, name) < 1:
            raise ValueError(f"--{name} must be 1 or more: {getattr(options, name)}.")
    prepare_folder(options.output)
    if options.quick:
        options = dataclasses.replace(
            options, sizes=(4,), objectives=(4,), width=32, batch=128, rounds=3
        )
    kept = options.keep_freed_memory and keep_freed_memory()
    about = environment(kept)
    against: list[Row] = []
    for size in options.sizes:
        against += (new := [measure(options, method, size) for method in METHODS])
        show(AGAINST, new, width=130)
    shares: list[ShareRow] = []
    for size in options.objectives:
        shares += (new_shares := training_shares(options, size))
        show(SHARES, new_shares, width=130)
    for kind, columns, alignment, rows in (
        ("solvers", AGAINST, "l" + "r" * 8 + "l", against),
        ("solvers-share", SHARES, "l" + "r" * 5, shares),
    ):
        name = f"{kind}-{setting(kept)}"
        save(options.output, name, columns, alignment, rows, about, options.docs)
    return against, shares


if __name__ == "__main__":
    command(main, Options, __doc__)
