"""Programs of phases and variants, which say what is trained, and their budget."""

import dataclasses
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import jax
import numpy as np
import optax

from fairjax.objectives import CellFunction

Setting: TypeAlias = Mapping[str, jax.Array]


@dataclass(frozen=True)
class Budget:
    """The training budget of every method, and the model's hidden layers.

    Attributes:
      steps: Optimiser steps.
      batch_size: Patients in a step, drawn with replacement.
      steps_per_call: Steps of one compiled call.
      learning_rate: AdamW's learning rate at the first step; falls to 0 along a cosine.
      weight_decay: AdamW's weight decay, multiplied by the learning rate.
      hidden: Widths of the MLP's hidden layers.
      seconds_between_checkpoints: The most work, in seconds, that a killed run loses.
    """

    steps: int = 200
    batch_size: int = 1024
    steps_per_call: int = 25
    learning_rate: float = 1e-2
    weight_decay: float = 3.0
    hidden: tuple[int, ...] = (32,)
    seconds_between_checkpoints: float = 15.0


@dataclass(frozen=True, eq=False)
class Phase:
    """A phase of training with one set of objectives and a fresh optimiser.

    Attributes:
      share: Fraction of the budget's steps.
      functions: name -> objective; the task comes first if it is an objective. Empty
        if there is a ``loss``.
      reconciler: ``reconciler(setting)`` makes the transformation of the K rows, or of
        the gradient of the loss.
      decay: Decay of the running cell means; None for the batch's cell means.
      rate: Factor on the budget's learning rate: fine-tuning takes smaller steps.
      settings: Numbers of this phase only, in addition to the program's settings.
      loss: ``loss(setting)`` makes the argument of `fairjax.training.make_loss_step`:
        one loss in place of objectives.
      after: ``after(setting)`` makes a transformation that follows AdamW.
      observed: Names of the optimiser's states that are recorded after every step.
      keys_by_lane: Whether the transformation's random draws differ between lanes.
    """

    share: float
    functions: Mapping[str, CellFunction]
    reconciler: Callable[[Setting], optax.GradientTransformation]
    decay: float | None = None
    rate: float = 1.0
    settings: Mapping[str, np.ndarray] = field(default_factory=dict)
    loss: Callable[[Setting], Callable[..., Any]] | None = None
    after: Callable[[Setting], optax.GradientTransformation] | None = None
    observed: tuple[str, ...] = ("norms", "cosines", "conflict_share")
    keys_by_lane: bool = False


@dataclass(frozen=True)
class Variant:
    """One way to train: a method's name, and its setting if there are several."""

    name: str
    setting: str


def variants(name: str, settings: Iterable[float | str] = ("",)) -> tuple[Variant, ...]:
    """Makes a method's variants, one for each of its settings.

    Example:
      >>> [variant.setting for variant in variants("penalty", [0.5, 10.0])]
      ['0.5', '10']
    """
    return tuple(Variant(name, s if isinstance(s, str) else f"{s:g}") for s in settings)


@dataclass(frozen=True, eq=False)
class Program:
    """Variants that differ only in numbers, so that one compiled program trains all.

    Attributes:
      name: Name of the checkpoints.
      phases: The phases of training, in order.
      variants: The H variants.
      settings: name -> ``[H, ...]``, the numbers in which the variants differ.
        ``objective_mask`` ``[H, K]`` leaves objectives out, and ``modalities``
        ``[H, M]`` leaves modalities out.
      example_weights: float32 ``[L, n]``, or None for equal weights.
    """

    name: str
    phases: tuple[Phase, ...]
    variants: tuple[Variant, ...]
    settings: Mapping[str, np.ndarray] = field(default_factory=dict)
    example_weights: np.ndarray | None = None

    def take(self, keep: Sequence[int]) -> "Program":
        """Returns the program with some of its variants."""

        def rows(settings):
            return {name: values[list(keep)] for name, values in settings.items()}

        return dataclasses.replace(
            self,
            variants=tuple(self.variants[i] for i in keep),
            settings=rows(self.settings),
            phases=tuple(
                dataclasses.replace(phase, settings=rows(phase.settings))
                for phase in self.phases
            ),
        )


def only(programs: Iterable[Program], names: Collection[str]) -> list[Program]:
    """Returns the programs with only the variants of the given names."""
    kept = (
        (program, [i for i, v in enumerate(program.variants) if v.name in names])
        for program in programs
    )
    return [program.take(keep) for program, keep in kept if keep]


def check_names(names: Sequence[str], known: Collection[str]) -> None:
    """Refuses unknown methods.

    Raises:
      ValueError: If a name is unknown; the error lists the known names.
    """
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(
            f"--methods must name some of {', '.join(known)}; got {', '.join(unknown)}."
        )


def allot(shares: Sequence[float], budget: Budget) -> tuple[int, list[int]]:
    """Divides the budget's steps among phases, in calls of equal length.

    A call has ``steps_per_call`` steps. If phases with equal shares would then have
    unequal numbers of calls, or calls would not use up the budget, a call is shorter.

    Returns:
      The steps of a call, and the number of calls of each phase.

    Raises:
      ValueError: If there are more phases than steps.

    Example:
      >>> allot([0.5, 0.25, 0.25], Budget(steps=200, steps_per_call=25))
      (25, [4, 2, 2])
      >>> allot([0.5] + [0.1] * 5, Budget(steps=200, steps_per_call=25))
      (20, [5, 1, 1, 1, 1, 1])
    """
    if budget.steps < len(shares):
        raise ValueError(
            f"the budget must have a step for each of {len(shares)} phases; "
            f"got steps={budget.steps}."
        )
    quotas = np.array(shares) / sum(shares)
    divisors = (d for d in range(budget.steps_per_call, 0, -1) if not budget.steps % d)
    for size in divisors:
        total = budget.steps // size
        # Whole calls, at least 1; remaining calls go to the largest remainders.
        calls = np.maximum(np.floor(quotas * total + 1e-9), 1).astype(int)
        left = total - calls.sum()
        if left < 0:
            continue
        calls[np.argsort(calls - quotas * total, kind="stable")[:left]] += 1
        even = all(len({*calls[quotas == share]}) == 1 for share in quotas)
        if even or size == 1:
            return size, calls.tolist()
    raise ValueError(
        f"the phases' fractions must divide {budget.steps} steps; got {list(shares)}."
    )
