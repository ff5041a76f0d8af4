"""Race, sex and age as one attribute: its subgroups, the rare ones merged.

Which subgroups there are is judged once, from all patients; no method and no split
changes it.
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
# Where the published age groups part.
OLD = 65
_PROTECTED = (
    "protected: it makes the subgroups, and is kept out of the inputs as published"
)


@dataclass(frozen=True, eq=False)
class Composite:
    """A table whose one attribute is the subgroup.

    Attributes:
      table: The table, without the protected attributes among its features.
      parts: What the subgroups are made of.
      levels: Names of the G subgroups, the reference first and `OTHER` last.
      codes: int64 ``[n]``, each row's subgroup.
      reference: The one that all others are measured against.
      stated: Why it is that one.
      merged: Combination -> its rows, of those that are too few to stand alone.
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
    """Cross race, sex and age of a table, as far as it has them.

    Ages are younger and older: from 65 on, or from the first age above where the table
    has no border there. Combinations with too few rows, or too few of either outcome,
    are merged into `OTHER`; as long as these are too few together, the smallest of the
    others joins them.

    Args:
      table: With some of the attributes `PARTS`.
      min_patients: Fewest rows of a subgroup.
      min_outcomes: Fewest rows with, and without, the outcome.

    Raises:
      ValueError: A table with none of these attributes, or ages that cannot be read;
        fewer than two subgroups that are large enough.
    """
    parts = tuple(name for name in PARTS if name in table.attributes)
    if not parts:
        raise ValueError(
            f"{table.name} has none of the attributes {', '.join(PARTS)} that "
            "subgroups are made of."
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
    """The combinations that stand alone, largest first, and those that do not."""
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
    """White men of 65 and more, as published, or else the largest subgroup."""
    wanted = [name for name in kept if re.fullmatch(r"(?i)white male \d+\+", name)]
    if wanted:
        return wanted[0], "the published reference"
    if not kept:
        raise ValueError("no subgroup is large enough to be the reference.")
    return max(kept, key=lambda name: sizes[name]), "the largest subgroup"


def _two_ages(ages: pd.Series) -> pd.Series:
    """``<65`` and ``65+`` of age bands such as ``45-64``, ``<45`` and ``>=65``."""
    starts = {band: _start(band) for band in ages.unique()}
    border = min((s for s in starts.values() if s >= OLD), default=OLD)
    named = {
        band: f"{border}+" if s >= OLD else f"<{border}" for band, s in starts.items()
    }
    return ages.map(named)


def _start(band: str) -> int:
    """The first age of a band.

    Example:
      >>> [_start(band) for band in ("<65", ">=65", "45-64", "65+")]
      [0, 65, 45, 65]
    """
    first = re.search(r"\d+", band)
    if first is None:
        raise ValueError(f"the age group {band!r} has no number to tell its ages by.")
    return 0 if band.strip().startswith("<") else int(first.group())
