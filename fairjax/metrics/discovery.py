"""Search for the most disadvantaged intersection, with p-values corrected for it.

A search through every combination of attributes always finds a combination that looks
bad. This search is exhaustive up to a depth. Its p-values compare the result with the
worst intersections of the same search on shuffled outcomes, and so account for the
number of groups searched.

Rows are tabulated once in the cells of the full cross of the attributes. Every
intersection is a sum of cells, and no search reads the rows again.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, Real

from fairjax.metrics import _intersections as cross
from fairjax.metrics._rows import check_columns, check_sizes
from fairjax.metrics.counts import BinaryRows
from fairjax.metrics.definitions import CELLS, METRICS
from fairjax.types import check_choice

_Attributes: TypeAlias = Int[Array | np.ndarray, "attributes _"]
_Codes: TypeAlias = Int[Array | np.ndarray, " rows"]

_Direction: TypeAlias = Literal["lower", "higher"]
# Rates whose rows depend only on the labels, so that predictions can be shuffled.
_RATES = (
    "true_positive_rate",
    "false_negative_rate",
    "false_positive_rate",
    "true_negative_rate",
    "accuracy",
    "error_rate",
    "selection_rate",
)


class Intersections(NamedTuple):
    """The worst intersections of a search, the worst first.

    Attributes:
      levels: int32 ``[k, A]``, the category of each attribute; -1 for an attribute that
        the intersection does not restrict.
      support: int64 ``[k]``, number of rows (patients, if given) behind the rate.
      estimate: ``[k]``, the rate or mean within the intersection.
      rest: ``[k]``, the rate or mean among all other rows.
      difference: ``[k]``, ``estimate - rest``.
      z: ``[k]``, how many standard errors worse than expected without disparity.
      p_value: ``[k]`` in (0, 1], as if only this intersection had been tested.
      corrected_p_value: ``[k]`` in (0, 1], corrected for the search.
      searched: Number of intersections with enough support to be compared.
    """

    levels: Int[np.ndarray, "k attributes"]
    support: Int[np.ndarray, " k"]
    estimate: Float[np.ndarray, " k"]
    rest: Float[np.ndarray, " k"]
    difference: Float[np.ndarray, " k"]
    z: Float[np.ndarray, " k"]
    p_value: Float[np.ndarray, " k"]
    corrected_p_value: Float[np.ndarray, " k"]
    searched: int


def worst_intersections(
    key: PRNGKeyArray,
    labels: BinaryRows,
    predictions: BinaryRows,
    attributes: _Attributes,
    *,
    num_levels: Sequence[int],
    metric: str = "true_positive_rate",
    worse: _Direction | None = None,
    within_label: bool | None = None,
    patients: _Codes | None = None,
    max_depth: int = 3,
    min_support: int = 20,
    top: int = 10,
    num_permutations: int = 999,
) -> Intersections:
    r"""Searches all intersections of up to ``max_depth`` attributes for the worst rate.

    The rate of a metric is a mean over rows, such as the positives for the true
    positive rate. Let :math:`r_i` be the row's value minus the mean of its stratum (its
    label, if ``within_label``) and :math:`\sigma^2_i` the variance of the stratum. The
    statistic of an intersection :math:`S` is

    .. math:: z_S = \pm \frac{\sum_{i \in S} r_i}{\sqrt{V_S (1 - V_S / V)}}, \qquad
              V_S = \sum_{i \in S} \sigma^2_i, \quad V = \sum_i \sigma^2_i

    whose denominator is the standard deviation over shuffles of the values, exactly so
    in a single stratum. The corrected p-value compares :math:`z_S` with the largest z
    of all intersections searched, in shuffles of the values within strata:

    .. math:: p_S = \frac{1 + \#\{\max_T z_T^* \ge z_S\}}{1 + N}

    If the attributes do not matter, the probability of any finding is at most the
    chosen significance level. The test applies to the whole search. If the first
    intersection stands out, there is evidence of disparity, but not evidence that these
    categories are the cause, since overlapping intersections stand out too.

    The function checks its arguments, so it cannot be compiled itself. Its parts are
    compiled. With few distinct values, as for a rate or patients' numbers of hits, the
    table of a shuffle is drawn from the multivariate hypergeometric distribution.
    Otherwise, up to 2,048 rows (patients) are shuffled by sorting. More rows are
    arranged once at random, and then shifted by random numbers of places within blocks
    of at most 4,096. These shifts form a group of permutations, for which the test is
    equally exact, and each shift costs one pass over the rows.

    Args:
      key: A random key.
      labels: ``[rows]``, 0 or 1.
      predictions: ``[rows]``, 0 or 1. Rows with another label or prediction are
        ignored.
      attributes: ``[A, rows]``, the category ids of each attribute, in
        ``0 .. num_levels[a] - 1``. A row with a -1 is omitted from the whole search; to
        keep rows with missing values, make missing a separate category.
      num_levels: Number of categories of each attribute.
      metric: One of ``true_positive_rate``, ``false_negative_rate``,
        ``false_positive_rate``, ``true_negative_rate``, ``accuracy``, ``error_rate``,
        ``selection_rate``.
      worse: Which direction is a disadvantage. The default is higher for error rates,
        and lower for their complements and for the selection rate, which suits
        predictions that bring help.
      within_label: Whether values are shuffled among rows of the same label, so that
        the expected rate of an intersection follows from its mix of labels. The default
        is True, except for the selection rate. Rates given the label do not depend on
        this option.
      patients: ``[rows]``, patient codes of at least 0, if patients have several rows.
        Whole patients are then shuffled, among patients with equal numbers of rows of
        each label, and support counts patients.
      max_depth: Maximum number of attributes in an intersection; 1 searches only single
        categories.
      min_support: Minimum rows (patients) behind the rate, both within the intersection
        and outside.
      top: Number of intersections to return; fewer if fewer are eligible.
      num_permutations: Number of shuffles, ``N``.

    Returns:
      The worst intersections by z. An intersection with the same rows as an
      intersection of fewer attributes is not listed again.

    Raises:
      ValueError: If an argument is outside its range, the columns differ in length, the
        full cross of the attributes has more than 2**20 cells, or a patient's rows
        differ in an attribute.

    References:
      Hemerik and Goeman, "Exact testing with random permutations", TEST 27 (2018);
      Westfall and Young, "Resampling-Based Multiple Testing" (1993).

    Example:
      >>> import jax, numpy as np
      >>> rows = np.arange(400)
      >>> sex, insured = rows % 2, rows // 2 % 2
      >>> missed = (sex == 1) & (insured == 0)
      >>> found = worst_intersections(
      ...     jax.random.key(0), np.ones(400), ~missed, np.stack([sex, insured]),
      ...     num_levels=(2, 2), num_permutations=99, top=1,
      ... )
      >>> found.levels.tolist(), found.estimate.item(), found.rest.item()
      ([[1, 0]], 0.0, 1.0)
      >>> found.searched, round(found.corrected_p_value.item(), 2)
      (8, 0.01)
    """
    check_choice("metric", metric, *_RATES)
    if worse is None:
        worse = "higher" if METRICS[metric].higher_is_better is False else "lower"
    within_label = metric != "selection_rate" if within_label is None else within_label
    labels, predictions = np.asarray(labels), np.asarray(predictions)
    attributes = np.asarray(attributes)
    _check_columns(attributes, labels=labels, predictions=predictions)
    hits, others = METRICS[metric].cells or ((), ())
    asked = [CELLS[cell][0] for cell in hits + others]
    base = np.isin(labels, asked) & np.isin(predictions, (0, 1))
    values = np.isin(
        2 * labels + predictions, [np.dot((2, 1), CELLS[cell]) for cell in hits]
    )
    strata = np.where(base, (labels == 1) & within_label, -1)
    sizes = _Sizes(max_depth, min_support, top, num_permutations)
    return _search(key, values, strata, attributes, patients, num_levels, worse, sizes)


def worst_mean_intersections(
    key: PRNGKeyArray,
    values: Real[Array | np.ndarray, " rows"],
    attributes: _Attributes,
    *,
    num_levels: Sequence[int],
    strata: _Codes | None = None,
    worse: _Direction = "higher",
    patients: _Codes | None = None,
    max_depth: int = 3,
    min_support: int = 20,
    top: int = 10,
    num_permutations: int = 999,
) -> Intersections:
    """Searches for the intersections with the worst mean of any value of the rows.

    The values may be losses, or residuals ``labels - scores``, whose mean is the
    calibration in the large. See ``worst_intersections`` for the statistic and details
    of the arguments.

    Args:
      key: A random key.
      values: ``[rows]``; NaN omits a row.
      attributes: ``[A, rows]``, category ids.
      num_levels: Number of categories of each attribute.
      strata: ``[rows]``, ids within which values are exchangeable, such as the labels.
        By default all rows are exchangeable. -1 omits a row.
      worse: Which direction is a disadvantage.
      patients: ``[rows]``, patient codes, if patients have several rows.
      max_depth: Maximum number of attributes in an intersection.
      min_support: Minimum rows (patients) within and outside an intersection.
      top: Number of intersections to return.
      num_permutations: Number of shuffles.

    Returns:
      The worst intersections by z.

    Raises:
      ValueError: As ``worst_intersections``.

    Example:
      >>> import jax, numpy as np
      >>> loss = np.repeat([0.1, 0.9], 50) + 0.01 * (np.arange(100) % 7)
      >>> found = worst_mean_intersections(
      ...     jax.random.key(0), loss, np.repeat([[0, 1]], 50, axis=1),
      ...     num_levels=(2,), num_permutations=99,
      ... )
      >>> found.levels.tolist(), round(found.difference[0].item(), 1)
      ([[1], [0]], 0.8)
    """
    values = np.asarray(values, np.float64)
    strata = np.zeros(values.shape, np.int32) if strata is None else np.asarray(strata)
    attributes = np.asarray(attributes)
    _check_columns(attributes, values=values, strata=strata)
    missing = np.isnan(values)
    if np.isinf(values).any():
        count = np.isinf(values).sum()
        raise ValueError(f"values must be finite or NaN; got {count} infinite values.")
    values, strata = np.where(missing, 0, values), np.where(missing, -1, strata)
    sizes = _Sizes(max_depth, min_support, top, num_permutations)
    return _search(key, values, strata, attributes, patients, num_levels, worse, sizes)


def intersection_names(
    found: Intersections, attributes: Mapping[str, Sequence[str]]
) -> tuple[str, ...]:
    """Names intersections, such as ``"sex=female, insurance=Medicaid"``.

    Args:
      found: Result of a search.
      attributes: Category names of each attribute, in the order of the search.

    Returns:
      One name for each intersection.

    Raises:
      ValueError: If the number of attributes differs from the search.

    Example:
      >>> import numpy as np
      >>> none = np.zeros(2)
      >>> found = Intersections(
      ...     np.array([[1, 0], [-1, 0]]), np.array([9, 20]), *[none] * 6, searched=8
      ... )
      >>> intersection_names(found, {"sex": ["f", "m"], "age": ["<65", "65+"]})
      ('sex=m, age=<65', 'age=<65')
    """
    if found.levels.shape[1] != len(attributes):
        raise ValueError(
            f"attributes must name the {found.levels.shape[1]} attributes of the "
            f"search; got {len(attributes)}."
        )
    return tuple(
        ", ".join(
            f"{name}={levels[level]}"
            for level, (name, levels) in zip(row, attributes.items(), strict=True)
            if level >= 0
        )
        for row in found.levels
    )


def _check_columns(attributes: _Attributes, **columns: np.ndarray) -> None:
    if attributes.ndim != 2:
        raise ValueError(
            "attributes must be [attributes, rows], one row of category ids each; got "
            f"shape {attributes.shape}."
        )
    check_columns(**columns, attributes=np.broadcast_to(0, attributes.shape[1:]))


class _Sizes(NamedTuple):
    """Limits of a search."""

    max_depth: int
    min_support: int
    top: int
    num_permutations: int


def _search(
    key: PRNGKeyArray,
    values: np.ndarray,
    strata: np.ndarray,
    attributes: np.ndarray,
    patients: _Codes | None,
    num_levels: Sequence[int],
    worse: _Direction,
    sizes: _Sizes,
) -> Intersections:
    check_choice("worse", worse, "lower", "higher")
    check_sizes(**sizes._asdict())
    num_levels, num_permutations = tuple(num_levels), sizes.num_permutations
    values, strata = values.astype(np.float64), strata.astype(np.int32)
    cells = cross.cells_of(attributes, num_levels)
    inside = (strata >= 0) & (cells >= 0)
    depth = min(sizes.max_depth, len(num_levels))

    def tabulate(cells: np.ndarray, weights: np.ndarray) -> np.ndarray:
        table = np.bincount(cells, weights, minlength=math.prod(num_levels))
        return table.reshape(num_levels)

    def intersections(table: np.ndarray) -> np.ndarray:
        return cross.flat(cross.marginals(table, depth))

    rows = tabulate(cells[inside], np.ones(inside.sum()))
    totals = tabulate(cells[inside], values[inside])
    if patients is None:
        units = values[inside], strata[inside], cells[inside]
    else:
        units = cross.totals_of_patients(
            values, strata, cells, inside, np.asarray(patients)
        )
    unit_values, unit_strata, unit_cells = units
    support = tabulate(unit_cells, np.ones_like(unit_values))
    eligible = cross.eligible_for(support, depth, sizes.min_support)
    searched = int(eligible.sum())
    residuals, variances = cross.centre(unit_values, unit_strata)
    if worse == "lower":
        residuals = -residuals
    spread = intersections(tabulate(unit_cells, variances))
    variance = spread * (1 - spread / max(variances.sum(), np.finfo(float).tiny))
    # Without variation all z are 0.
    varies = eligible & (variance > 1e-12 * variances.sum())
    scale = np.where(varies, 1 / np.sqrt(np.where(varies, variance, 1)), 0)
    z = scale * intersections(tabulate(unit_cells, residuals))
    order = np.argsort(np.where(eligible, -z, np.inf), kind="stable")
    best = order[: min(sizes.top, searched)]
    units = residuals, unit_strata, unit_cells
    tested = cross.Tested(scale, eligible, best, z)
    same, beyond = cross.shuffled_beyond(
        key, units, tested, num_levels, depth, num_permutations
    )
    inner, total = (intersections(table)[best] for table in (rows, totals))
    estimate = total / inner
    rest = (totals.sum() - total) / (rows.sum() - inner)
    return Intersections(
        cross.levels_of(best, num_levels, depth),
        np.rint(intersections(support)[best]).astype(np.int64),
        estimate,
        rest,
        estimate - rest,
        z[best],
        (1 + same) / (1 + num_permutations),
        (1 + beyond) / (1 + num_permutations),
        searched,
    )
