"""Race, sex and age as one attribute, whose rare subgroups are merged.

The subgroups are determined once, from all patients; they do not depend on method or
split.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from experiments.datasets import ClinicalTable

PARTS = ("race", "sex", "age")
SUBGROUP = "subgroup"
OTHER = "all others"
# The age at which the published age groups are split.
OLD = 65
_PROTECTED = (
    "protected attribute: defines the subgroups and is not an input, as published"
)


@dataclass(frozen=True, eq=False)
class Composite:
    """A table whose one attribute is the subgroup.

    Attributes:
      table: The table, without the protected attributes among its features.
      parts: The attributes that are crossed.
      levels: Names of the G subgroups, the reference first and `OTHER` last.
      codes: int64 ``[n]``, each row's subgroup.
      reference: The subgroup that all others are compared with.
      stated: Why this subgroup is the reference.
      merged: Combination -> its number of rows, for combinations that were merged.
    """

    table: ClinicalTable
    parts: tuple[str, ...]
    levels: tuple[str, ...]
    codes: np.ndarray
    reference: str
    stated: str
    merged: dict[str, int]


def composite(
    table: ClinicalTable, *, min_patients: int, min_outcomes: int
) -> Composite:
    """Crosses race, sex and age of a table, as far as the table has these attributes.

    Ages are split at 65, or at the next border above if the table has no border at 65.
    Combinations with too few rows, or too few of either outcome, are merged into
    `OTHER`. If `OTHER` is still too small, the smallest remaining combinations are
    merged into it.

    Args:
      table: A table with some of the attributes `PARTS`.
      min_patients: Smallest number of rows of a subgroup.
      min_outcomes: Smallest number of rows with, and without, the outcome.

    Raises:
      ValueError: If the table has none of these attributes, ages cannot be read, or
        fewer than two subgroups are large enough.
    """
    parts = tuple(name for name in PARTS if name in table.attributes)
    if not parts:
        raise ValueError(
            f"the table must have one of the attributes {', '.join(PARTS)}; "
            f"{table.name} has none."
        )
    columns = {name: table.attributes[name].astype(str) for name in parts}
    if "age" in columns:
        columns["age"] = _two_ages(columns["age"])
    names = columns[parts[0]]
    for part in parts[1:]:
        names = names + " " + columns[part]
    label = np.asarray(table.label) == 1
    kept, rare = _kept(names, label, min_patients, min_outcomes)
    if len(kept) + bool(rare) < 2:
        raise ValueError(
            f"{table.name} has fewer than two subgroups of {', '.join(parts)} with at "
            f"least {min_patients} rows and {min_outcomes} of each outcome: lower "
            "--min-patients or --min-outcomes."
        )
    sizes = names.value_counts()
    reference, stated = _reference(kept, sizes)
    levels = (reference, *sorted(k for k in kept if k != reference))
    levels += (OTHER,) if rare else ()
    own = names.where(names.isin(kept), OTHER)
    codes = pd.Index(levels).get_indexer(pd.Index(own)).astype(np.int64)
    dtype = pd.CategoricalDtype(list(levels))
    attribute = pd.Categorical.from_codes(codes, dtype=dtype)
    inputs = [c for c in table.features.columns if c not in parts]
    removed = {c: _PROTECTED for c in parts if c in table.features}
    return Composite(
        table=replace(
            table,
            features=table.features[inputs],
            attributes=pd.DataFrame({SUBGROUP: attribute}, index=table.features.index),
            dropped={**table.dropped, **removed},
        ),
        parts=parts,
        levels=levels,
        codes=codes,
        reference=reference,
        stated=stated,
        merged={name: int(sizes[name]) for name in rare},
    )


def _kept(
    names: pd.Series, label: np.ndarray, min_patients: int, min_outcomes: int
) -> tuple[list[str], list[str]]:
    """Returns the combinations that stay, largest first, and the merged ones."""
    counts = pd.crosstab(names, label).reindex(columns=[False, True], fill_value=0)

    def enough(rows: pd.DataFrame | pd.Series) -> bool:
        total = rows.to_numpy().reshape(-1, 2).sum(axis=0)
        return bool(total.sum() >= min_patients and total.min() >= min_outcomes)

    order = counts.sum(axis=1).sort_values(ascending=False, kind="stable").index
    kept = [name for name in order if enough(counts.loc[name])]
    rare = [name for name in order if name not in kept]
    while rare and kept and not enough(counts.loc[rare]):
        rare.insert(0, kept.pop())
    return kept, rare


def _reference(kept: Sequence[str], sizes: pd.Series) -> tuple[str, str]:
    """Returns white men of 65 and more, as published, or else the largest subgroup."""
    wanted = [name for name in kept if re.fullmatch(r"(?i)white male \d+\+", name)]
    if wanted:
        return wanted[0], "the published reference"
    if not kept:
        raise ValueError("no subgroup is large enough to be the reference.")
    return max(kept, key=lambda name: sizes[name]), "the largest subgroup"


def _two_ages(ages: pd.Series) -> pd.Series:
    """Maps age bands such as ``45-64``, ``<45`` and ``>=65`` to ``<65`` and ``65+``."""
    starts = {band: _start(band) for band in ages.unique()}
    border = min((s for s in starts.values() if s >= OLD), default=OLD)
    named = {
        band: f"{border}+" if s >= OLD else f"<{border}" for band, s in starts.items()
    }
    return ages.map(named)


def _start(band: str) -> int:
    """Returns the first age of a band.

    Example:
      >>> [_start(band) for band in ("<65", ">=65", "45-64", "65+")]
      [0, 65, 45, 65]
    """
    first = re.search(r"\d+", band)
    if first is None:
        raise ValueError(f"an age group must contain a number; got {band!r}.")
    return 0 if band.strip().startswith("<") else int(first.group())
