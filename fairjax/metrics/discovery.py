"""The most disadvantaged intersection: a bounded search whose p-value knows of it.

Somebody who looks at every combination of attributes finds one that looks bad. The
search here is exhaustive up to a depth, and what it finds is held against the worst
that the same search finds when the outcome is shuffled, so that looking at many groups
costs what it should.

Rows are tabulated once in the cells of the full cross of the attributes; every
intersection is a sum of cells, and no search looks at the rows again.
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
# Those whose rows the labels alone tell, so that predictions can be shuffled.
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
    """The worst intersections found, the worst first.

    Attributes:
      levels: int32 ``[k, A]``, the level of each attribute; -1 where the intersection
        leaves the attribute open.
      support: int64 ``[k]``, rows (patients, if given) that the rate is over.
      estimate: ``[k]``, the rate or mean within the intersection.
      rest: ``[k]``, the same among all others.
      difference: ``[k]``, ``estimate - rest``.
      z: ``[k]``, how many standard errors worse than expected without disparity.
      p_value: ``[k]`` in (0, 1], of this intersection as if it alone had been tested.
      corrected_p_value: ``[k]`` in (0, 1], corrected for having searched.
      searched: How many intersections had enough support to be compared.
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

    The rate of a metric is a mean over rows, the positives for the true positive rate.
    With :math:`r_i` the row's value less the mean of its stratum (its label, if
    ``within_label``) and :math:`\sigma^2_i` that stratum's variance, an intersection
    :math:`S` has

    .. math:: z_S = \pm \frac{\sum_{i \in S} r_i}{\sqrt{V_S (1 - V_S / V)}}, \qquad
              V_S = \sum_{i \in S} \sigma^2_i, \quad V = \sum_i \sigma^2_i

    whose denominator is the standard deviation when the values are shuffled, exactly so
    in a single stratum. The corrected p-value compares it with the largest z of all
    intersections searched, in shuffles of the values within strata:

    .. math:: p_S = \frac{1 + \#\{\max_T z_T^* \ge z_S\}}{1 + N}

    So the chance of any finding where the attributes do not matter is at most the level
    chosen. It is the whole search that is tested: that the first intersection stands
    out is evidence of disparity, not that these very levels are its cause, since those
    that overlap with it stand out too.

    Args:
      key: A random key.
      labels: ``[rows]``, 0 or 1.
      predictions: ``[rows]``, 0 or 1. Rows where either is something else are left out.
      attributes: ``[A, rows]``, the level ids of each attribute, in
        ``0 .. num_levels[a] - 1``. A row with a -1 is left out of the search
        altogether; give missing values a level of their own to keep it.
      num_levels: Number of levels of each attribute.
      metric: One of ``true_positive_rate``, ``false_negative_rate``,
        ``false_positive_rate``, ``true_negative_rate``, ``accuracy``, ``error_rate``,
        ``selection_rate``.
      worse: Which direction is a disadvantage; by default higher for errors (and
        lower for their complements), and lower for the selection rate, which suits
        predictions that bring help.
      within_label: Whether values are shuffled among rows of the same label, and an
        intersection is expected to have the rates of its mix of labels. By default so,
        but for the selection rate. It makes no difference to rates given the label.
      patients: ``[rows]``, codes of at least 0 of the rows' patients, if they have
        several. Whole patients are then shuffled, among those with the same numbers of
        rows of each label, and support counts patients.
      max_depth: Most attributes in an intersection; 1 searches single levels alone.
      min_support: Fewest rows (patients) that the rate may be over, within the
        intersection and outside it.
      top: How many to return; fewer if fewer are eligible.
      num_permutations: Number of shuffles, ``N``.

    Returns:
      The worst, by z. An intersection that holds the same rows as one with fewer
      attributes is not listed again.

    Raises:
      ValueError: If an argument is outside its range, the columns differ in length, the
        full cross of the attributes has more than 2**20 cells, or a patient's rows
        differ in an attribute.

    Checks its arguments, so it is not itself to be compiled; what it calls is. Where
    the values are few, as those of a rate are, or patients' numbers of hits, the table
    of a shuffle is drawn from its distribution, the multivariate hypergeometric. If
    not, up to 2,048 rows (patients) are shuffled by sorting; more are arranged at
    random, once, and shifted by random numbers of places within blocks of at most
    4,096: a group of permutations, for which the test is just as exact, at one pass
    over the rows each.

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
    """Searches for the intersection with the worst mean of any value of the rows.

    The values may be losses, or residuals ``labels - scores``, whose mean is the
    calibration in the large. See ``worst_intersections`` for the statistic and the
    arguments that are not named here.

    Args:
      key: A random key.
      values: ``[rows]``; NaN leaves a row out.
      attributes: ``[A, rows]``, level ids.
      num_levels: Number of levels of each attribute.
      strata: ``[rows]``, ids within which values are exchangeable, such as the labels;
        all rows are by default. -1 leaves a row out.
      worse: Which direction is a disadvantage.
      patients: ``[rows]``, codes of the rows' patients.
      max_depth: Most attributes in an intersection.
      min_support: Fewest rows (patients) within and outside an intersection.
      top: How many to return.
      num_permutations: Number of shuffles.

    Returns:
      The worst, by z.

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
      found: From a search.
      attributes: The level names of each attribute, in the order of the search.

    Returns:
      One name each.

    Raises:
      ValueError: If the number of attributes is another.

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
    """How far to search, as the two searches have it."""

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
    # Nothing varies: nothing differs, and every z is 0.
    varies = eligible & (variance > 1e-12 * variances.sum())
    scale = np.where(varies, 1 / np.sqrt(np.where(varies, variance, 1)), 0)
    z = scale * intersections(tabulate(unit_cells, residuals))
    order = np.argsort(np.where(eligible, -z, np.inf), kind="stable")
    best = order[: min(sizes.top, searched)]
    units = residuals, unit_strata, unit_cells
    tested = cross.Tested(scale, eligible, best, z)
    own, beyond = cross.shuffled_beyond(
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
        (1 + own) / (1 + num_permutations),
        (1 + beyond) / (1 + num_permutations),
        searched,
    )
