r"""Parity of groups as linear constraints on the cells' mean decisions.

A *cell* is a group and an outcome, c = 2 g + y. Every parity constraint, and the error,
is linear in the cells' mean decisions :math:`\mu_c`. A reduction therefore sees a
classifier as 2 G numbers, and asks a learner for one by a price of each cell, however
many patients there are.
"""

import warnings
from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias, get_args

import numpy as np
from jaxtyping import Float, Int, Real

from fairjax.mitigation import _patients
from fairjax.mitigation.costs import Objective, wrong_costs
from fairjax.types import check_choice

Parity: TypeAlias = Literal[
    "demographic_parity",
    "equalized_odds",
    "true_positive_rate_parity",
    "false_positive_rate_parity",
    "error_rate_parity",
]

# Constraint -> the outcomes of the patients in each of its rates' denominators.
_EVENTS: dict[str, tuple[tuple[int, ...], ...]] = {
    "demographic_parity": ((0, 1),),
    "equalized_odds": ((0,), (1,)),
    "true_positive_rate_parity": ((1,),),
    "false_positive_rate_parity": ((0,),),
    "error_rate_parity": ((0, 1),),
}
# The default difference bound, as in the reference implementation.
_DIFFERENCE = 0.01


class ParityConstraints(NamedTuple):
    r"""Constraints :math:`M \mu + k \le \epsilon` on mean decisions :math:`\mu` [C].

    Attributes:
      matrix: ``[J, C]``, M.
      offset: ``[J]``, k.
      bound: :math:`\epsilon`.
      mass: ``[C]``, the fraction of all patients in each cell.
      wrong: ``[C]``, the cost of a wrong decision in each cell.
      lacking: Groups in which a constrained rate is not defined.
    """

    matrix: Float[np.ndarray, "J C"]
    offset: Float[np.ndarray, " J"]
    bound: float
    mass: Float[np.ndarray, " C"]
    wrong: Float[np.ndarray, " C"]
    lacking: tuple[int, ...]


def parity_constraints(
    labels: Real[np.ndarray, " n"],
    groups: Int[np.ndarray, " n"],
    *,
    num_groups: int,
    constraint: Parity = "demographic_parity",
    difference_bound: float | None = None,
    ratio_bound: float | None = None,
    ratio_slack: float = 0.0,
    objective: Objective = "error",
    costs: tuple[float, float] = (1.0, 1.0),
    weights: Real[np.ndarray, " n"] | None = None,
    names: Sequence[str] | None = None,
) -> ParityConstraints:
    r"""Builds the linear constraints of a notion of parity.

    Let :math:`u_{g,e}` be the mean utility of group g in an event e, and :math:`u_e`
    the mean utility of all groups in e. Each g and e has a pair of rows,

    .. math:: \rho u_{g,e} - u_e \le \epsilon, \qquad
       \rho u_e - u_{g,e} \le \epsilon.

    The utility is the decision, or the error for ``"error_rate_parity"``. The event of
    ``"demographic_parity"`` and ``"error_rate_parity"`` holds all patients. The event
    of ``"true_positive_rate_parity"`` holds the positives, the event of
    ``"false_positive_rate_parity"`` the negatives; ``"equalized_odds"`` has both
    events. A *difference* bound has :math:`\rho = 1`: groups are within
    :math:`\epsilon` of all patients, and so within :math:`2 \epsilon` of each other. A
    *ratio* bound is :math:`\rho`, with the slack as :math:`\epsilon`.

    Args:
      labels: ``[n]``, 0 or 1.
      groups: ``[n]``, in ``0 .. G − 1``.
      num_groups: G.
      constraint: The notion.
      difference_bound: :math:`\epsilon` in [0, 1]; .01 where neither bound is given.
      ratio_bound: :math:`\rho` in (0, 1]; instead of a difference bound.
      ratio_slack: :math:`\epsilon` of a ratio bound, in [0, 1].
      objective: What to minimise under the constraints: ``"error"``, or
        ``"balanced_error"``, the mean of the false positive and the false negative rate
        of all patients.
      costs: Costs of a false positive and of a false negative, at least 0; each
        multiplies its part of the objective.
      weights: ``[n]``, at least 0; ones by default.
      names: ``[G]``, names of the groups for messages; numbers by default.

    Returns:
      The constraints. An event without patients of a group, such as the true positive
      rate without positives, does not constrain the group; a warning names the group.

    Raises:
      ValueError: If columns differ in length; if labels are not 0 or 1; if groups,
        weights or a setting are out of range; if a group has no patients of positive
        weight.

    References:
      Agarwal, Beygelzimer, Dudík, Langford and Wallach, *A Reductions Approach to Fair
      Classification*, ICML 2018.

    Example:
      >>> import numpy as np
      >>> found = parity_constraints(
      ...     np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1]), num_groups=2,
      ...     constraint="true_positive_rate_parity")
      >>> found.matrix
      array([[ 0. ,  0.5,  0. , -0.5],
             [ 0. , -0.5,  0. ,  0.5],
             [ 0. , -0.5,  0. ,  0.5],
             [ 0. ,  0.5,  0. , -0.5]])
    """
    check_choice("constraint", constraint, *get_args(Parity))
    ratio, bound = _bounds(difference_bound, ratio_bound, ratio_slack)
    mass = _masses(labels, groups, weights, num_groups)
    known = range(num_groups) if names is None else names
    _patients.check_patients(mass.reshape(num_groups, 2), known)
    each = wrong_costs(objective, costs, mass.reshape(-1, 2).sum(axis=0))
    wrong = np.tile(each, num_groups)
    group, outcome = np.divmod(np.arange(2 * num_groups), 2)
    # The utility of a cell is slope * decisions + level: the decision, or the error.
    level = outcome * (constraint == "error_rate_parity")
    slope = 1.0 - 2.0 * level
    rows, offsets = [], []
    lacking: set[int] = set()
    for event in _EVENTS[constraint]:
        within = np.isin(outcome, event)
        everyone = _mean_of(within, mass)
        for g in range(num_groups):
            mean = _mean_of(within & (group == g), mass)
            if mean is None or everyone is None:
                lacking.add(g)
                continue
            for row in (ratio * mean - everyone, ratio * everyone - mean):
                rows.append(row * slope)
                offsets.append(row @ level)
    if lacking:
        warnings.warn(
            f"groups {[known[g] for g in sorted(lacking)]} lack positives or negatives "
            f"for a rate of {constraint}; the constraint does not bind these groups in "
            "that rate.",
            stacklevel=2,
        )
    matrix = np.array(rows).reshape(-1, 2 * num_groups)
    return ParityConstraints(
        matrix, np.array(offsets), bound, mass, wrong, tuple(sorted(lacking))
    )


def violations(
    constraints: ParityConstraints, selected: Float[np.ndarray, "*batch C"]
) -> Float[np.ndarray, "*batch J"]:
    r"""Computes how far each constraint is exceeded: :math:`M \mu + k - \epsilon`.

    Args:
      constraints: The constraints.
      selected: ``[..., C]``, the cells' mean decisions, or probabilities of selection.

    Returns:
      ``[..., J]``, at most 0 where a constraint holds.

    Example:
      >>> import numpy as np
      >>> held = parity_constraints(
      ...     np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1]), num_groups=2,
      ...     difference_bound=0.1)
      >>> violations(held, np.array([0.0, 1.0, 0.0, 0.0]))
      array([ 0.15, -0.35, -0.35,  0.15])
    """
    return selected @ constraints.matrix.T + constraints.offset - constraints.bound


def expected_cost(
    constraints: ParityConstraints, selected: Float[np.ndarray, "*batch C"]
) -> Float[np.ndarray, "*batch"]:
    r"""Computes the objective, :math:`\sum_c m_c \, w_c \, |\mu_c - y_c|`.

    The objective is the error by default.

    Args:
      constraints: The constraints, which hold the masses m and the costs w.
      selected: ``[..., C]``, the cells' mean decisions.

    Example:
      >>> import numpy as np
      >>> held = parity_constraints(
      ...     np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1]), num_groups=2)
      >>> float(expected_cost(held, np.array([0.0, 1.0, 0.0, 0.0])))
      0.25
    """
    outcome = np.arange(selected.shape[-1]) % 2
    wrong = constraints.mass * constraints.wrong
    return np.asarray(np.abs(selected - outcome) @ wrong)


def cell_prices(
    constraints: ParityConstraints, multipliers: Float[np.ndarray, "*batch J"]
) -> Float[np.ndarray, "*batch C"]:
    r"""Computes the price of selecting a patient under multipliers, by cell.

    .. math:: p_c = (1 - 2 y_c) w_c + \frac{(\lambda^\top M)_c}{m_c}, \qquad
       L(h, \lambda) = \text{const} + \sum_c m_c \, p_c \, \mu_c(h)

    The best response to :math:`\lambda` selects where the price is negative: the best
    classifier under weights :math:`|p_c|` and labels :math:`[p_c < 0]`.

    Args:
      constraints: The constraints.
      multipliers: ``[..., J]``, at least 0.

    Returns:
      ``[..., C]``; 0 for a cell without patients.

    Example:
      >>> import numpy as np
      >>> held = parity_constraints(
      ...     np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1]), num_groups=2)
      >>> cell_prices(held, np.array([0.5, 0.0, 0.0, 0.0]))
      array([ 1.5, -0.5,  0.5, -1.5])
    """
    mass = constraints.mass
    error = constraints.wrong * (1.0 - 2.0 * (np.arange(len(mass)) % 2))
    extra = multipliers @ constraints.matrix
    seen = mass > 0
    return np.where(seen, error + extra / np.where(seen, mass, 1.0), 0.0)


def _bounds(difference, ratio, slack) -> tuple[float, float]:
    """Returns the ratio and the bound."""
    if difference is not None and ratio is not None:
        raise ValueError("give difference_bound or ratio_bound; got both.")
    if ratio is None:
        if slack != 0:
            raise ValueError(f"ratio_slack needs a ratio_bound; got only {slack!r}.")
        difference = _DIFFERENCE if difference is None else difference
        _patients.check_fraction("difference_bound", difference)
        return 1.0, float(difference)
    _patients.check_fraction("ratio_bound", ratio, above=True)
    _patients.check_fraction("ratio_slack", slack)
    return float(ratio), float(slack)


def _masses(labels, groups, weights, num_groups: int) -> np.ndarray:
    """Returns the fraction of all weights in each cell, ``[C]``."""
    _patients.check_lengths(labels=labels, groups=groups, weights=weights)
    cell = _patients.group_ids(groups, num_groups) * 2 + _patients.binary(labels)
    weights = _patients.near_one(_patients.as_weights(weights, len(labels)))
    if not weights.any():
        raise ValueError("patients of positive weight are needed; got none.")
    return np.bincount(cell, weights / weights.sum(), 2 * num_groups)


def _mean_of(cells: np.ndarray, mass: np.ndarray) -> np.ndarray | None:
    """Returns the mean over some cells, as a row; None without patients in them."""
    total = mass[cells].sum()
    return np.where(cells, mass, 0.0) / total if total > 0 else None
