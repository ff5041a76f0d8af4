"""What a reduction and rules of equal rates keep small, apart from being fair."""

from typing import Literal, TypeAlias, get_args

import numpy as np

from fairjax.mitigation._patients import as_number
from fairjax.types import check_choice

Objective: TypeAlias = Literal["error", "balanced_error"]


def check_objective(objective: str, costs: tuple[float, float]) -> None:
    """Refuse an objective that is none, and costs that are not two.

    Raises:
      ValueError: Either.

    Example:
      >>> check_objective("balanced_error", (1.0, 2.0))
      >>> check_objective("error", (0.0, 0.0))
      Traceback (most recent call last):
        ...
      ValueError: costs of 0 for both errors leave nothing to choose by.
    """
    check_choice("objective", objective, *get_args(Objective))
    found = [as_number(c) for c in costs] if np.ndim(costs) == 1 else []
    if len(found) != 2 or not all(0 <= c < np.inf for c in found):
        raise ValueError(
            "costs are two numbers of at least 0, of a false positive and of a false "
            f"negative, not {costs!r}."
        )
    if not any(found):
        raise ValueError("costs of 0 for both errors leave nothing to choose by.")


def wrong_costs(
    objective: str, costs: tuple[float, float], totals: np.ndarray
) -> np.ndarray:
    """``[2]``: what each unit of weight adds that is a false positive, or negative.

    Args:
      objective: ``"error"`` or ``"balanced_error"``.
      costs: Of a false positive and of a false negative, at least 0.
      totals: ``[2]``, the weight of all negatives and of all positives.

    Raises:
      ValueError: As :func:`check_objective`; the balanced error without patients of
        one outcome.

    Example:
      >>> wrong_costs("balanced_error", (1.0, 2.0), np.array([8.0, 2.0]))
      array([0.0625, 0.5   ])
    """
    check_objective(objective, costs)
    if objective == "balanced_error" and not totals.all():
        raise ValueError("the balanced error needs patients of both outcomes.")
    total = totals.sum() if objective == "error" else 2 * totals
    return np.asarray(costs, np.float64) / total
