"""What is trained: a budget, and methods as programs of phases and variants."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import jax
import numpy as np
import optax

from fairjax.objectives import CellFunction


@dataclass(frozen=True)
class Budget:
    """What every method may spend, and the model that it trains.

    Attributes:
      steps: Optimiser steps.
      batch_size: Patients a step, drawn with replacement.
      steps_per_call: Steps of one compiled call.
      learning_rate: Of AdamW at the first step; falls to 0 along a cosine.
      weight_decay: Of AdamW, multiplied by the learning rate.
      hidden: Widths of the MLP's hidden layers.
      seconds_between_checkpoints: Work that a killed run loses at most.
    """

    steps: int = 200
    batch_size: int = 1024
    steps_per_call: int = 25
    learning_rate: float = 1e-2
    weight_decay: float = 3.0
    hidden: tuple[int, ...] = (32,)
    seconds_between_checkpoints: float = 5.0


@dataclass(frozen=True, eq=False)
class Phase:
    """A stretch of training with one set of objectives and a fresh optimiser.

    Attributes:
      share: Share of the budget's steps.
      functions: name -> objective; the first is the task where it is among them.
      reconciler: ``reconciler(setting)`` makes the transformation of the K rows.
      decay: Of the running cell means; None for the batch's own.
      rate: Factor on the budget's learning rate: fine-tuning takes smaller steps.
      settings: Numbers of this phase alone, beside those of the program.
    """

    share: float
    functions: Mapping[str, CellFunction]
    reconciler: Callable[
        [Mapping[str, jax.Array]], optax.GradientTransformationExtraArgs
    ]
    decay: float | None = None
    rate: float = 1.0
    settings: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Variant:
    """One way to train: a method's name, and its setting where it has several."""

    name: str
    setting: str


@dataclass(frozen=True, eq=False)
class Program:
    """Variants that differ in numbers only: one compiled program trains them all.

    Attributes:
      name: Of its checkpoints.
      phases: What is done, in order.
      variants: The H variants.
      settings: name -> ``[H, ...]``, the numbers in which they differ.
        ``objective_mask`` ``[H, K]`` leaves objectives out.
      example_weights: float32 ``[L, n]``, or None for equal weights.
    """

    name: str
    phases: tuple[Phase, ...]
    variants: tuple[Variant, ...]
    settings: Mapping[str, np.ndarray] = field(default_factory=dict)
    example_weights: np.ndarray | None = None

    def take(self, keep: Sequence[int]) -> "Program":
        """The program with some of its variants."""

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
