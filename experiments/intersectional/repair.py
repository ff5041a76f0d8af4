"""The effect of the disparate impact remover on the columns of a split's training rows.

Values that are equal within a subgroup stay equal. So in a column of two values, all or
none of a subgroup's patients with one value are changed. Repair cannot give such a
column the same distribution in all subgroups; columns of many values can be repaired.
"""

from dataclasses import dataclass

import numpy as np

from experiments.intersectional.stages import remover
from experiments.reporting import words

_SAID = words.read(__file__)


@dataclass(frozen=True)
class Columns:
    """Columns of one kind.

    Attributes:
      number: Number of columns.
      before: The largest Kolmogorov-Smirnov distance of two subgroups before repair,
        mean over the columns; NaN without columns.
      after: The same distance after repair.
      constant: Number of columns with a single value after repair.
    """

    number: int
    before: float
    after: float
    constant: int

    @property
    def kept(self) -> float:
        """The fraction of the distance that repair left; NaN if there was none."""
        return self.after / self.before if self.before > 0 else float("nan")


@dataclass(frozen=True)
class Repair:
    """The effect of repair.

    Attributes:
      two: Columns of two values.
      more: Columns of more than two values.
      single: Number of columns of one value, which cannot be repaired.
    """

    two: Columns
    more: Columns
    single: int


def measured_repair(
    inputs: np.ndarray, train: np.ndarray, codes: np.ndarray, level: float
) -> Repair:
    """Repairs the training rows of a split, and compares their subgroups.

    Args:
      inputs: ``[n, d]``.
      train: Row numbers of the training rows.
      codes: ``[n]``, subgroups.
      level: Repair level.
    """
    rows, groups = inputs[train], codes[train]
    fitted = remover(rows, groups, level)
    apart = fitted.report(rows, sensitive_features=groups)
    before = _num_values(rows)
    # In the type that models read.
    repaired = fitted.transform(rows, sensitive_features=groups)
    after = _num_values(np.asarray(repaired, inputs.dtype))

    def of(chosen: np.ndarray) -> Columns:
        own = apart[chosen].mean()
        return Columns(
            number=int(chosen.sum()),
            before=float(own["kolmogorov_smirnov_before"]),
            after=float(own["kolmogorov_smirnov_after"]),
            constant=int((after[chosen] == 1).sum()),
        )

    return Repair(of(before == 2), of(before > 2), int((before == 1).sum()))


def _num_values(rows: np.ndarray) -> np.ndarray:
    """Counts the different values of each column, ``[d]``."""
    ordered = np.sort(rows, axis=0)
    return 1 + (ordered[1:] != ordered[:-1]).sum(axis=0)


def in_words(repair: Repair | None) -> dict[str, str]:
    """Returns an entry of the protocol; none if nothing was repaired."""
    if repair is None:
        return {}
    kinds = (("two values", repair.two), ("more than two", repair.more))
    listed = [_kind(what, columns) for what, columns in kinds if columns.number]
    if repair.single:
        listed.append(f"columns of one value: {repair.single}")
    return {"repaired": _SAID["repaired"].format(listed="; ".join(listed))}


def _kind(what: str, columns: Columns) -> str:
    missing = np.isnan(columns.kept)
    kept = "" if missing else " " + _SAID["kept"].format(kept=columns.kept)
    return _SAID["columns"].format(what=what, columns=columns, kept=kept)
