"""Measures modulation by modality and group: against a plain step and PyTorch's.

Run ``python -m experiments.bench.modulation --help`` for the options. All steps train
one multimodal model on one batch, and are compiled with donated states. Times are
ratios to the plain joint step, with both steps run in turns.
"""

import copy
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.bench import modulation_steps, timing
from experiments.bench.modulation_steps import Problem, Size
from experiments.bench.timing import Cell, Limit, Numbers

COMPARED = {"plain": False, "MultiFair, released": True}
"""Steps that PyTorch has too -> whether they modulate."""
STEPS_COMPARED = 3
"""Number of steps after which PyTorch's weights and ours are compared."""
TURN = 0.05
"""Length of a turn, in seconds, which sets the number of steps by the plain step."""


@dataclass(frozen=True)
class Options(timing.MemoryOptions):
    """Time modulated steps against a plain one, and against PyTorch's.

    Attributes:
      groups: Number of groups.
      small: Numbers of patients of the small model's batches.
      large: Numbers of patients of the large model's batches.
      rounds: Times that each step takes its turn.
      pytorch: Compare with the released algorithm in PyTorch, if it is installed.
    """

    groups: Annotated[int, Limit(2)] = 6
    small: Annotated[Numbers, Limit(quick=(32,))] = (32, 128, 512, 1024)
    large: Annotated[Numbers, Limit(quick=())] = (32, 256)
    rounds: Annotated[int, Limit(quick=3)] = 15
    pytorch: bool = True


@dataclass(frozen=True)
class Row(timing.Row):
    """One step on one model and batch."""

    SHORT = (("batch", ("128", "256")),)

    model: Annotated[str, Cell("model")]
    batch: Annotated[int, Cell("batch")]
    step: Annotated[str, Cell("step")]
    ratio: Annotated[float, Cell("ratio", ".2f")]
    milliseconds: Annotated[float, Cell("ms", ".2f")]
    compile_seconds: Annotated[float, Cell("compile s", ".1f")]
    temporary_megabytes: Annotated[float | None, Cell("temporary MB", ".1f")]
    from_host: Annotated[int, Cell("from the host")]


@dataclass(frozen=True)
class TorchRow(timing.Row):
    """One step here and in PyTorch."""

    model: Annotated[str, Cell("model")]
    batch: Annotated[int, Cell("batch")]
    step: Annotated[str, Cell("step")]
    milliseconds: Annotated[float, Cell("ms", ".2f")]
    over_plain: Annotated[float, Cell("over plain", ".2f")]
    torch_milliseconds: Annotated[float, Cell("PyTorch ms", ".2f")]
    torch_over_plain: Annotated[float, Cell("PyTorch over plain", ".2f")]
    ratio: Annotated[float, Cell("PyTorch / ours", ".1f")]
    difference: Annotated[float, Cell("difference", ".0e")]


class Compiled:
    """A compiled step, and the state that is carried from call to call."""

    def __init__(self, step: Callable[..., Any], state: Any, batch: Any) -> None:
        self.batch = batch
        self.state = jax.tree.map(jnp.copy, state)
        self._step, self.fields = timing.compiled(step, state, batch, donate_argnums=0)
        text = self._step.as_text() or ""
        self.fields["from_host"] = len(modulation_steps.host_transfers(text))

    def again(self) -> "Compiled":
        """Returns the same program with a separate state."""
        other = copy.copy(self)
        other.state = jax.tree.map(jnp.copy, self.state)
        return other

    def __call__(self, number: int = 1) -> None:
        """Makes ``number`` steps."""
        for _ in range(number):
            self.state, _ = self._step(self.state, self.batch)
        jax.block_until_ready(self.state)


def measure(options: Options, size: Size, batch: int) -> Iterator[Row | TorchRow]:
    """Measures all steps of one model on one batch."""
    problem = Problem.make(size, batch, options.groups)
    compiled = {
        name: Compiled(step, state, problem.batch)
        for name, (step, state) in modulation_steps.make_steps(problem).items()
    }
    # The difference between two runs of the same program is noise.
    compiled["plain, again"] = compiled["plain"].again()
    differences = {}
    if options.pytorch and timing.installed("torchjd"):
        differences = {
            name: _difference(problem, compiled[name], released=released)
            for name, released in COMPARED.items()
        }
    compiled["plain"]()
    seconds = min(timing.timed(compiled["plain"]) for _ in range(3))
    number = max(1, round(TURN / seconds))
    turns: dict[str, Callable[[], Any]] = {
        name: functools.partial(run, number) for name, run in compiled.items()
    }
    times = timing.in_turns(turns, options.rounds)
    for name, run in compiled.items():
        yield Row(
            *(size.name, batch, name),
            ratio=timing.median(times[name] / times["plain"]),
            milliseconds=1e3 * timing.median(times[name]) / number,
            **run.fields,
        )
    if differences:
        yield from _against(options, problem, turns, number, differences)


def _difference(problem: Problem, run: Compiled, *, released: bool) -> float:
    """Compares PyTorch's parameters and ours after some steps; see `distance`."""
    from experiments.bench.torch_multifair import Twin

    twin = Twin(problem, released=released)
    for _ in range(STEPS_COMPARED):
        twin.step()
    run(STEPS_COMPARED)
    return distance(problem.params, run.state.params, twin.arrays())


def _against(
    options: Options,
    problem: Problem,
    ours: dict[str, Callable[[], Any]],
    number: int,
    differences: dict[str, float],
) -> Iterator[TorchRow]:
    """Times both libraries' steps in turns, PyTorch's on the fastest thread count."""
    from experiments.bench.torch_multifair import turn

    calls = {name: ours[name] for name in COMPARED}
    for name, released in COMPARED.items():
        calls[f"torch {name}"] = turn(problem, number, released=released)
    times = timing.in_turns(calls, options.rounds)
    for name in COMPARED:
        mine, theirs = times[name], times[f"torch {name}"]
        yield TorchRow(
            *(problem.size.name, len(problem.batch["labels"]), name),
            milliseconds=1e3 * timing.median(mine) / number,
            over_plain=timing.median(mine / times["plain"]),
            torch_milliseconds=1e3 * timing.median(theirs) / number,
            torch_over_plain=timing.median(theirs / times["torch plain"]),
            ratio=timing.median(theirs / mine),
            difference=differences[name],
        )


def distance(start: Any, ours: Any, theirs: Any) -> float:
    """Computes the distance of two trees of parameters, relative to their change.

    The biases of keys are left out. Attention does not depend on key biases, so their
    gradients are rounding errors, which Adam scales up to the size of other gradients.
    """

    def moved(params: Any) -> np.ndarray:
        by = jax.tree.map(lambda a, b: np.asarray(a) - np.asarray(b), params, start)
        leaves = jax.tree.leaves_with_path(by)
        return np.concatenate([_without_keys(path, leaf) for path, leaf in leaves])

    far = moved(theirs)
    return float(np.linalg.norm(moved(ours) - far) / np.linalg.norm(far))


def _without_keys(path: tuple[Any, ...], leaf: np.ndarray) -> np.ndarray:
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    if not name.endswith("query_key_value/bias"):
        return leaf.ravel()
    query, _, value = np.split(leaf, 3)
    return np.concatenate([query, value])


def tasks(options: Options) -> Iterator[Iterator[Row | TorchRow]]:
    """Measures both models on all batches."""
    small, large = modulation_steps.SMALL, modulation_steps.LARGE
    for size, batches in ((small, options.small), (large, options.large)):
        for batch in batches:
            yield measure(options, size, batch)


def main(options: Options) -> tuple[list[Row], list[TorchRow]]:
    """Measures, prints and saves.

    Raises:
      ValueError: If an option or a folder cannot be used.
    """
    batches = (*options.small, *options.large)
    if not batches:
        raise ValueError("--small or --large must have a number of patients; got none.")
    if min(batches) < 2:
        raise ValueError(f"--small and --large must be 2 or more; got {min(batches)}.")
    kinds = {"modulation-{}": Row, "modulation-torch-{}": TorchRow}
    steps, against = timing.run(options, kinds, tasks)
    return steps, against


if __name__ == "__main__":
    timing.command(main, Options, __doc__)
