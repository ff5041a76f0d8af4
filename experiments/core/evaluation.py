"""The library's evaluation, of the predictions of a cross-validation."""

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
    """One method at one setting, pooled so that each patient counts once a repeat.

    Attributes:
      name: The method.
      setting: The setting's label; empty where there is one only, ``"selected"``
        where validation chose it in each lane.
      scores: float32 ``[R, n]`` probabilities.
      decisions: bool ``[R, n]``, at whatever thresholds the system decides by; none
        may come from the patients that it is applied to. Or float32, the chances of
        decisions that are drawn; metrics are then exact expectations of them.
    """

    name: str
    setting: str
    scores: np.ndarray
    decisions: np.ndarray

    @property
    def title(self) -> str:
        """``name[setting]``, or ``name`` if there is one setting or a selected one."""
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
        """Draw the resamples that all methods share.

        Args:
          splits: The patients, their folds and their cells.
          seed: Of the resamples and shuffles.
          crossed: Compare the intersections of all attributes as one more attribute.
          references: Attribute -> the level that its others are measured against.
          **options: As the library has them.

        Raises:
          ValueError: An unknown metric, weights that are none, an attribute with
            fewer than two groups that can be compared, or a reference that is none.
        """
        super().__init__(
            cohort(splits, crossed=crossed, references=references),
            key=seed,
            compiler_options=compiling.in_full(),
            **options,
        )

    def __call__(self, predictions: Predictions) -> Evaluation:
        """All metrics of one method."""
        return self.evaluate(predictions.scores, predictions.decisions)


def cohort(
    splits: CrossValidation,
    *,
    crossed: bool = False,
    references: Mapping[str, str] | None = None,
) -> Cohort:
    """The cohort of a cross-validation.

    Raises:
      ValueError: A grouping with fewer than two groups that can be compared; a
        reference that is not one of them.
    """
    cells = splits.partition
    columns = [cells.attributes.index(attribute) for attribute in splits.attributes]
    attributes = {
        cells.attributes[column]: pd.Categorical.from_codes(
            cells.codes[splits.cells, column],
            dtype=pd.CategoricalDtype(list(cells.levels[column])),
        )
        for column in columns
    }
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
        # An only attribute cannot be left out.
        if len(splits.attributes) == 1:
            raise
        raise ValueError(f"{error} Leave it out with --attributes.") from error
