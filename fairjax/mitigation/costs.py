"""Objectives that a reduction and equal-rate rules minimise."""

from typing import Literal, TypeAlias, get_args

import numpy as np

from fairjax.mitigation._patients import as_number
from fairjax.types import check_choice

Objective: TypeAlias = Literal["error", "balanced_error"]


def check_objective(objective: str, costs: tuple[float, float]) -> None:
    """Checks the name of an objective and its two costs.

    Raises:
      ValueError: If the name is unknown, or the costs are not two finite numbers of at
        least 0, one above 0.

    Example:
      >>> check_objective("balanced_error", (1.0, 2.0))
      >>> check_objective("error", (0.0, 0.0))
      Traceback (most recent call last):
        ...
      ValueError: costs must not both be 0; got (0.0, 0.0).
    """
    check_choice("objective", objective, *get_args(Objective))
    found = [as_number(c) for c in costs] if np.ndim(costs) == 1 else []
    if len(found) != 2 or not all(0 <= c < np.inf for c in found):
        raise ValueError(
            "costs must be two finite numbers of at least 0, of a false positive and "
            f"of a false negative; got {costs!r}."
        )
    if not any(found):
        raise ValueError(f"costs must not both be 0; got {costs!r}.")


def wrong_costs(
    objective: str, costs: tuple[float, float], totals: np.ndarray
) -> np.ndarray:
    """Returns what a unit of weight costs as a false positive or negative, ``[2]``.

    Args:
      objective: ``"error"`` or ``"balanced_error"``.
      costs: Costs of a false positive and of a false negative, at least 0.
      totals: ``[2]``, the weight of all negatives and of all positives.

    Raises:
      ValueError: As :func:`check_objective`; if an outcome has no patients and the
        objective is the balanced error.

    Example:
      >>> wrong_costs("balanced_error", (1.0, 2.0), np.array([8.0, 2.0]))
      array([0.0625, 0.5   ])
    """
    check_objective(objective, costs)
    if objective == "balanced_error" and not totals.all():
        raise ValueError("balanced_error needs patients of both outcomes; got one.")
    total = totals.sum() if objective == "error" else 2 * totals
    return np.asarray(costs, np.float64) / total
