"""Evaluation of a cross-validation's predictions by the library."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from experiments.core import compiling
from experiments.core.protocol import CrossValidation
from fairjax import evaluation
from fairjax.evaluation import Cohort, Evaluation


@dataclass(frozen=True, eq=False)
class Predictions:
    """One method at one setting, pooled so that each patient counts once per repeat.

    Attributes:
      name: The method.
      setting: The setting's label; empty if the method has one setting, ``"selected"``
        if validation chose the setting in each lane.
      scores: float32 ``[R, n]`` probabilities.
      decisions: bool ``[R, n]``, at the system's thresholds, which must not come from
        the patients to whom they are applied. Or float32, the probabilities of random
        decisions; metrics are then exact expectations over the decisions.
    """

    name: str
    setting: str
    scores: np.ndarray
    decisions: np.ndarray

    @property
    def title(self) -> str:
        """``name[setting]``, or ``name`` if the setting is the only or selected one."""
        plain = self.setting in ("", "selected")
        return self.name if plain else f"{self.name}[{self.setting}]"


class Evaluator(evaluation.Evaluator):
    """Evaluates predictions on the patients of one cross-validation."""

    def __init__(
        self,
        splits: CrossValidation,
        *,
        seed: int,
        crossed: bool = False,
        references: Mapping[str, str] | None = None,
        **options: Any,
    ):
        """Draws the resamples that all methods share.

        Args:
          splits: The patients, their folds and their cells.
          seed: Seed of the resamples and shuffles.
          crossed: Whether to compare the intersections of all attributes as one more
            attribute.
          references: Attribute -> the category that others are compared with.
          **options: Further options of `fairjax.evaluation.Evaluator`.

        Raises:
          ValueError: If a metric is unknown or the weights cannot be used. Also if an
            attribute has fewer than two groups that can be compared, or a reference is
            not one of these groups.
        """
        super().__init__(
            cohort(splits, crossed=crossed, references=references),
            key=seed,
            compiler_options=compiling.in_full(),
            **options,
        )

    def __call__(self, predictions: Predictions) -> Evaluation:
        """Computes all metrics of one method."""
        return self.evaluate(predictions.scores, predictions.decisions)


def cohort(
    splits: CrossValidation,
    *,
    crossed: bool = False,
    references: Mapping[str, str] | None = None,
) -> Cohort:
    """Makes the cohort of a cross-validation.

    Raises:
      ValueError: If a grouping has fewer than two groups that can be compared, or a
        reference is not one of these groups.
    """
    cells = splits.partition
    attributes = {}
    for name in splits.attributes:
        column = cells.attributes.index(name)
        levels, codes = pd.Index(cells.levels[column]), cells.codes[:, column]
        attributes[name] = pd.Categorical.from_codes(codes[splits.cells], levels)
    try:
        return evaluation.cohort(
            splits.table.label,
            attributes,
            patients=splits.table.patient_ids,
            folds=splits.folds,
            intersections=crossed,
            references=references,
        )
    except ValueError as error:
        # A single attribute cannot be left out.
        if len(splits.attributes) == 1:
            raise
        raise ValueError(f"{error} Leave it out with --attributes.") from error
