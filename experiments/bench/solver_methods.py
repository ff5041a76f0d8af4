"""The methods of both libraries with equal settings, and our compiled K x K part."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.bench.timing import timed
from fairjax import steps
from fairjax.reconcilers.core import Step

IN_A_ROW = 12
"""Number of updates in a turn, in the compiled loop and one by one."""


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
        self.compile_seconds = timed(lambda: self(0))

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
