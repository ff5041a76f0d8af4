"""Measures methods' K x K part: against TorchJD, and within a training step.

Run ``python -m experiments.bench.solvers --help`` for the options. Every method starts
from the Gram matrix of the same rows as TorchJD's method. The two are timed in turns,
after their updates are compared.
"""

import functools
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import fairjax
from experiments.bench import problems, timing
from experiments.bench.timing import Cell, Limit, Numbers
from fairjax import steps
from fairjax.reconcilers.core import Step

IN_A_ROW = 12
"""Number of updates in a turn, in the compiled loop and one by one."""
LONG = 0.1
"""If a turn of TorchJD would take longer, in seconds, it has one update per draw."""


@dataclass(frozen=True)
class Options(timing.MemoryOptions):
    """Time the methods' K x K part against TorchJD's, and within a training step.

    Attributes:
      sizes: Numbers of objectives K.
      draws: Number of sets of rows that are used in turn.
      rounds: Times that each call is made, in turns with the others.
      limit: Leave out calls that take longer, in seconds.
      objectives: Numbers of objectives of the training steps.
      width: Width of the two hidden layers in training steps; the default makes a
        million parameters.
      batch: Number of examples of the training steps.
      pytorch: Compare with TorchJD, if it is installed.
    """

    sizes: Annotated[Numbers, Limit(2, some=True, quick=(4,))] = (2, 8, 32, 128)
    draws: int = 3
    rounds: Annotated[int, Limit(quick=3)] = 15
    limit: float = 2.0
    objectives: Annotated[Numbers, Limit(2, some=True, quick=(4,))] = (2, 8, 32)
    width: Annotated[int, Limit(quick=32)] = 708
    batch: Annotated[int, Limit(quick=128)] = 1024
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


def common_descent_gap(gramian: np.ndarray, weights: np.ndarray) -> float:
    """Computes how far MGDA's weights miss their optimality condition; 0 if optimal."""
    inner = gramian @ weights
    return float((weights @ inner - inner.min()) / np.diagonal(gramian).mean())


def bargain_gap(gramian: np.ndarray, weights: np.ndarray) -> float:
    """Computes the largest relative deviation of ``w (G w)`` from the mean."""
    shares = weights * (gramian @ weights)
    return float(np.abs(shares / shares.mean() - 1).max())


@dataclass(frozen=True)
class Method:
    """A method of both libraries, with equal settings.

    Attributes:
      name: TorchJD's name.
      steps: Our steps.
      options: TorchJD's arguments; None stands for K.
      tolerance: Tolerance of the updates' relative difference; None if both libraries
        draw at random.
      ordered: Makes our first step from an ``order``, if TorchJD draws an order.
      gap: Computes how far weights are from the solution of the method's problem, if
        TorchJD's weights may not solve the problem.
      settings: Settings that differ from the defaults.
    """

    name: str
    steps: tuple[Step, ...]
    options: dict[str, Any] = field(default_factory=dict)
    tolerance: float | None = 1e-3
    ordered: Callable[..., Step] | None = None
    gap: Callable[[np.ndarray, np.ndarray], float] | None = None
    settings: str = ""

    def torchjd_options(self, size: int) -> dict[str, Any]:
        """Returns TorchJD's arguments for ``size`` rows."""
        return {k: size if v is None else v for k, v in self.options.items()}


_GRADVAC = functools.partial(steps.gradvac, beta=0.5)
METHODS = (
    Method(
        "PCGrad",
        (steps.project_conflicts(), steps.combine("sum")),
        ordered=steps.project_conflicts,
    ),
    Method(
        "GradVac",
        (_GRADVAC(), steps.combine("sum")),
        ordered=_GRADVAC,
        settings="beta .5",
    ),
    Method("UPGrad", (steps.upgrad(ridge=1e-4),), settings="ridge 1e-4"),
    Method("DualProj", (steps.dualproj(ridge=1e-4),), settings="ridge 1e-4"),
    Method("MGDA", (steps.mgda(),), gap=common_descent_gap),
    Method("CAGrad", (steps.cagrad(0.5),), {"c": 0.5}, settings="c .5"),
    Method(
        "NashMTL",
        (steps.nash_mtl(max_norm=1.0),),
        {"n_tasks": None},
        gap=bargain_gap,
        settings="max_norm 1",
    ),
    Method(
        "FairGrad",
        (steps.fairgrad_alpha(1.0),),
        {"alpha": 1.0},
        gap=bargain_gap,
        settings="alpha 1",
    ),
    # The weights of IMTL-G are divided by a sum that may nearly cancel.
    Method("IMTLG", (steps.imtl_g(),), tolerance=3e-3),
    Method("AlignedMTL", (steps.aligned_mtl(),), settings="min"),
    Method("ConFIG", (steps.conflict_free(),)),
    Method("Random", (steps.random_weighting(),), tolerance=None),
)


@dataclass
class Ours:
    """One method's K x K part, compiled: by itself and within a loop.

    Attributes:
      chain: The steps.
      grams: Gram matrices ``[D, K, K]`` of the draws.
      compile_seconds: Compilation of the part by itself, including its first run.
    """

    chain: Sequence[Step]
    grams: jax.Array
    compile_seconds: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        size = self.grams.shape[1]
        self._state = tuple(step.init(size) for step in self.chain)
        self._each = list(self.grams)
        self._many = jnp.resize(self.grams, (IN_A_ROW, size, size))
        self._alone = jax.jit(self._update)
        self._loop = jax.jit(functools.partial(jax.lax.scan, self._update))
        self.compile_seconds = timing.timed(lambda: self(0))

    def _update(self, state: Any, gramian: jax.Array) -> tuple[Any, jax.Array]:
        coefficients = jnp.eye(len(gramian), dtype=gramian.dtype)
        states = []
        for step, own in zip(self.chain, state, strict=True):
            coefficients, own = step.update(coefficients, gramian, own)
            states.append(own)
        return tuple(states), coefficients[0]

    def __call__(self, draw: int) -> jax.Array:
        """Computes the weights ``[K]`` of one draw, and waits for them."""
        return jax.block_until_ready(self._alone(self._state, self._each[draw])[1])

    def loop(self) -> None:
        """Runs a compiled loop of ``IN_A_ROW`` updates, as a training loop does."""
        jax.block_until_ready(self._loop(self._state, self._many))


def draw_rows(size: int, draws: int) -> list[np.ndarray]:
    """Draws Gaussian rows ``[K, 2 K + 4]`` of unequal lengths, less half their mean.

    Somewhat more than half of the pairs conflict.
    """
    rng = np.random.default_rng(size)
    found = []
    for _ in range(draws):
        rows = rng.normal(size=(size, 2 * size + 4))
        rows = (rows - rows.mean(axis=0) / 2) * rng.uniform(0.3, 3, (size, 1))
        found.append(rows.astype(np.float32))
    return found


def measure(options: Options, method: Method, size: int) -> Row:
    """Measures one method at one K."""
    draws = draw_rows(size, options.draws)
    ours = Ours(method.steps, jnp.stack([jnp.asarray(one @ one.T) for one in draws]))
    calls = {"ours": _one_by_one(ours, options.draws, IN_A_ROW), "loop": ours.loop}
    number, notes, difference = IN_A_ROW, [method.settings], None
    with warnings.catch_warnings():
        # CVXPY warns about TorchJD's problems and their solutions.
        warnings.simplefilter("ignore", UserWarning)
        if options.pytorch and timing.installed("torchjd"):
            from experiments.bench.torch_reconcilers import Theirs, set_fastest_threads

            difference, note = compare(method, draws, ours)
            notes.append(note)
            theirs = Theirs(method.name, method.torchjd_options(size), draws)
            theirs(0)
            seconds = timing.timed(lambda: theirs(0))
            if seconds > options.limit:
                notes.append(f"TorchJD left out: takes {seconds:.0f} s")
            else:
                set_fastest_threads(lambda: theirs(0))
                number = IN_A_ROW if IN_A_ROW * seconds < LONG else options.draws
                calls["theirs"] = _one_by_one(theirs, options.draws, number)
        turns = timing.in_turns(calls, options.rounds)
    mine, loop = turns["ours"] / IN_A_ROW, turns["loop"] / IN_A_ROW
    found = {}
    if "theirs" in turns:
        other = turns["theirs"] / number
        found["ratio"] = timing.median(other / mine)
        found["loop_ratio"] = timing.median(other / loop)
        found["torchjd_milliseconds"] = 1e3 * timing.median(other)
    return Row(
        method.name,
        size,
        milliseconds=1e3 * timing.median(mine),
        loop_milliseconds=1e3 * timing.median(loop),
        compile_seconds=ours.compile_seconds,
        difference=difference,
        note="; ".join(filter(None, notes)),
        **found,
    )


def compare(
    method: Method, draws: Sequence[np.ndarray], ours: Ours
) -> tuple[float | None, str]:
    """Finds the largest relative difference of the updates, and its reason."""
    from experiments.bench import torch_reconcilers

    if method.tolerance is None:
        return None, "drawn at random"
    worst, gaps = 0.0, []
    for draw, rows in enumerate(draws):
        solve = ours
        if method.ordered is not None:
            orders = torch_reconcilers.seeded_orders(method.name, len(rows), seed=draw)
            first = method.ordered(order=jnp.asarray(orders))
            solve = Ours((first, *method.steps[1:]), ours.grams)
        found = np.asarray(solve(draw), np.float64)
        options = method.torchjd_options(len(rows))
        theirs = torch_reconcilers.Theirs(method.name, options, [rows])
        wanted, weights = theirs.result(0, seed=draw)
        difference = np.linalg.norm(found @ rows - wanted) / np.linalg.norm(wanted)
        worst = max(worst, float(difference))
        if difference > method.tolerance and method.gap and weights is not None:
            gram = rows.astype(np.float64) @ rows.T
            gaps.append((method.gap(gram, found), method.gap(gram, weights)))
        elif difference > method.tolerance:
            gaps.append((float("inf"), 0.0))
    if not gaps:
        return worst, ""
    mine, other = np.max(gaps, axis=0)
    if mine >= other:
        return worst, "THE UPDATES DIFFER"
    return worst, f"TorchJD misses the optimum by {other:.0e}, ours {mine:.0e}"


def training_shares(options: Options, size: int) -> Iterator[ShareRow]:
    """Measures every method within a whole training step of one K."""
    problem = problems.multilayer(size, options.batch, [options.width] * 3)
    gradients = fairjax.value_and_jacobian(problem.objectives)
    adamw = optax.adamw(problems.LEARNING_RATE)

    def training_step(chain: Sequence[Step]) -> Callable[[], Any]:
        transform = optax.chain(fairjax.reconcile(*chain, num_objectives=size), adamw)
        state = transform.init(problem.params)

        @jax.jit
        def step(params, state, batch):
            _, rows = gradients(params, batch)
            updates, state = transform.update(rows, state, params)
            return optax.apply_updates(params, updates), state

        return lambda: jax.block_until_ready(step(problem.params, state, problem.batch))

    mean = training_step((steps.combine("mean"),))
    grams = jnp.stack([jnp.asarray(one @ one.T) for one in draw_rows(size, 3)])
    for method in METHODS:
        calls = {
            "mean": mean,
            "method": training_step(method.steps),
            "part": Ours(method.steps, grams).loop,
        }
        times = timing.in_turns(calls, options.rounds)
        part = times["part"] / IN_A_ROW
        yield ShareRow(
            method.name,
            size,
            step_milliseconds=1e3 * timing.median(times["method"]),
            over_mean=timing.median(times["method"] / times["mean"]) - 1,
            part_milliseconds=1e3 * timing.median(part),
            share=timing.median(part / times["method"]),
        )


def _one_by_one(
    call: Callable[[int], Any], draws: int, number: int
) -> Callable[[], None]:
    def run() -> None:
        for update in range(number):
            call(update % draws)

    return run


def tasks(options: Options) -> Iterator[Iterable[Row | ShareRow]]:
    """Measures all methods, alone and within a training step."""
    for size in options.sizes:
        yield [measure(options, method, size) for method in METHODS]
    for size in options.objectives:
        yield training_shares(options, size)


def main(options: Options) -> tuple[list[Row], list[ShareRow]]:
    """Measures, prints and saves.

    Raises:
      ValueError: If an option or a folder cannot be used.
    """
    kinds = {"solvers-{}": Row, "solvers-share-{}": ShareRow}
    alone, shares = timing.run(options, kinds, tasks)
    return alone, shares


if __name__ == "__main__":
    timing.command(main, Options, __doc__)
