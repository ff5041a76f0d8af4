"""From checked rows to the document that every output is made of."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from fairjax import metrics
from fairjax.audit import _entries as entries
from fairjax.audit._comparisons import (
    Gap,
    Odds,
    Support,
    compare,
    odds_interval,
    odds_of,
    support,
)
from fairjax.audit._families import Family, families
from fairjax.audit._measures import Measured, Rows, measure
from fairjax.audit._pointwise import curves, sensitivity
from fairjax.audit.data import Attribute, AuditData, Model
from fairjax.audit.options import Options

_T = TypeVar("_T")

_EVERYONE, _ALL = "everyone", "all attributes"
# What a search for the worst intersection asks, and how many it shows.
_SEARCHED = ("true_positive_rate", "false_positive_rate")
_MOST_FOUND = 5
_DEEPEST_SEARCH = 3
_MOST_SHUFFLES = 999


def analyse(
    data: AuditData,
    options: Options,
    advance: Callable[[str], object] = lambda _: None,
) -> dict[str, Any]:
    """What is known of the models, as JSON types: the numbers of a document.

    Computed in double precision from one seed, so that the same rows and options give
    the same numbers.

    Args:
      data: The rows.
      options: What was asked for.
      advance: Told what is being computed.
    """
    return in_double_precision(lambda: _Analysis(data, options, advance).numbers())


def in_double_precision(compute: Callable[[], _T]) -> _T:
    """Runs with 64-bit arrays, a setting that every thread has to itself."""
    with jax.enable_x64(True):
        return compute()


class Gaps(NamedTuple):
    """A family's gaps, and what they were computed from."""

    gaps: dict[str, Gap]
    supported: Support
    odds: Odds


_compare_models = jax.jit(
    metrics.positive_sum,
    static_argnames=(
        "num_groups",
        "confidence",
        "min_positives",
        "min_negatives",
        "num_patients",
        "margin",
    ),
)


class _Analysis:
    """Rows on the device, sizes padded to one, and what was asked for."""

    def __init__(
        self, data: AuditData, options: Options, advance: Callable[[str], object]
    ):
        self.data, self.options, self.advance = data, options, advance
        self.families, self.too_many = families(data.attributes, options.depth)
        largest = max((len(f.levels) for f in self.families), default=1)
        # A multiple, so that tables that differ little share a compiled program.
        self.num_groups = -(-largest // 4) * 4
        self.key = jax.random.key(options.seed)
        self.labels = jnp.asarray(data.labels, jnp.int32)
        # Where no patient has two rows the exact tests for rows are the right ones.
        number = data.num_patients or 1
        repeated = data.patients is not None and number < len(data.labels)
        self.patients = jnp.asarray(data.patients) if repeated else None
        self.num_patients = number if repeated else 1
        codes, places = np.zeros(len(data.labels), np.int32), np.zeros((1, 0))
        self.everyone = Family(_EVERYONE, (), (_EVERYONE,), codes, places)

    def numbers(self) -> dict[str, Any]:
        """All entries that hold numbers."""
        found: dict[str, Any] = {
            "families": [entries.family(family) for family in self.families],
            "left_out": list(self.too_many),
            "cohort": [],
            "overall": [],
            "groups": [],
            "gaps": [],
            "curves": {"roc": [], "calibration": [], "decision": []},
            "sensitivity": [],
        }
        # On a second core: programs are compiled, and intersections searched, while the
        # families are measured.
        with ThreadPoolExecutor(1) as pool:
            ready = pool.submit(in_double_precision, self._prepare_comparison)
            searched = pool.submit(in_double_precision, self._discovery)
            for position, model in enumerate(self.data.models):
                rows = self._rows(model)
                self.advance(f"{model.name}: all rows")
                overall = self._measure(rows, self.everyone)
                found["overall"] += entries.overall(model.name, overall)
                for family in self.families:
                    self.advance(f"{model.name}: {family.name}")
                    self._add_family(found, position, model, rows, family, ready)
            self.advance("the worst intersections")
            found["discovery"], varying = searched.result()
        found["varying"] = varying
        entries.adjust(found["gaps"], self.options.correction)
        self.advance("the comparison of models")
        found["comparison"] = list(self._comparison())
        return found

    def _prepare_comparison(self) -> None:
        """Compiles the comparison, which needs no more than the sizes."""
        shapes = jax.eval_shape(
            lambda: self._measure(self._rows(self.data.models[0]), self.everyone)
        )
        empty = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        jax.block_until_ready(self._gaps(self._key(0), empty))

    def _gaps(self, key: jax.Array, measured: Measured) -> Gaps:
        options = self.options
        supported = support(measured, options.min_positives, options.min_negatives)
        odds = odds_of(measured.shares, supported)
        gaps = compare(
            jax.random.fold_in(key, 0),
            measured,
            supported,
            odds_interval(
                jax.random.fold_in(key, 1), odds, confidence=options.confidence
            ),
            confidence=options.confidence,
            replicates=options.replicates,
            max_rows=len(self.data.labels),
        )
        return Gaps(gaps, supported, odds)

    def _rows(self, model: Model) -> Rows:
        return Rows(
            self.labels,
            jnp.asarray(model.scores, float),
            jnp.asarray(model.decisions),
            self.patients,
        )

    def _measure(self, rows: Rows, family: Family) -> Measured:
        return measure(
            rows,
            jnp.asarray(family.codes),
            num_groups=self.num_groups,
            num_patients=self.num_patients,
            confidence=self.options.confidence,
        )

    def _key(self, *numbers: int) -> jax.Array:
        key = self.key
        for number in numbers:
            key = jax.random.fold_in(key, number)
        return key

    def _add_family(
        self,
        found: dict[str, Any],
        position: int,
        model: Model,
        rows: Rows,
        family: Family,
        ready: Future,
    ) -> None:
        options = self.options
        key = self._key(position, self.families.index(family))
        measured = self._measure(rows, family)
        ready.result()
        gaps, supported, odds = self._gaps(key, measured)
        both = np.asarray(supported.both)
        if position == 0:
            found["cohort"] += self._cohort(family, measured, both)
        found["groups"] += entries.groups(model.name, family, measured, supported)
        by_patient = self.patients is not None
        found["gaps"] += entries.gaps(
            model.name, family, gaps, supported, by_patient=by_patient
        )
        if family.intersection:
            return
        drawn = curves(
            rows,
            jnp.asarray(family.codes),
            num_groups=self.num_groups,
            confidence=options.confidence,
        )
        drawn = entries.curves(model.name, family, drawn, both)
        for kind, curve in drawn.items():
            found["curves"][kind] += curve
        if model.threshold is None:
            return
        at_thresholds = sensitivity(
            jax.random.fold_in(key, 2),
            rows,
            family.codes,
            odds,
            confidence=options.confidence,
        )
        found["sensitivity"].append(
            entries.sensitivity(model.name, family, at_thresholds)
        )

    def _cohort(
        self, family: Family, measured: Measured, both: np.ndarray
    ) -> Iterator[entries.Entry]:
        patients = None
        if self.data.patients is not None:
            number = self.data.num_patients or 1
            pairs = family.codes.astype(np.int64) * number + self.data.patients
            pairs = np.unique(pairs) // number
            patients = np.bincount(pairs, minlength=self.num_groups)
        yield from entries.cohort(family, measured, patients, both)

    def _discovery(self) -> tuple[list[entries.Entry], list[str]]:
        """The worst intersections, and the attributes that were not searched.

        A test that shuffles patients needs attributes that do not vary within them.
        """
        searched, varying = self.data.attributes, []
        if self.patients is not None:
            varying = [a.name for a in searched if self._varies(a)]
            searched = [a for a in searched if a.name not in varying]
        if not searched:
            return [], varying
        found = [
            entry
            for position, model in enumerate(self.data.models)
            for place, metric in enumerate(_SEARCHED)
            for entry in entries.discovery(
                model.name,
                metric,
                self._search(position, place, model, metric, searched),
                searched,
                self.data.labels,
            )
        ]
        return found, varying

    def _varies(self, attribute: Attribute) -> bool:
        patients = self.data.patients
        if patients is None:
            return False
        first = np.zeros(self.num_patients, np.int32)
        first[patients] = attribute.codes
        return bool((first[patients] != attribute.codes).any())

    def _search(
        self,
        position: int,
        place: int,
        model: Model,
        metric: str,
        searched: Sequence[Attribute],
    ) -> metrics.Intersections:
        options = self.options
        return metrics.worst_intersections(
            self._key(len(self.data.models) + position, place),
            self.data.labels,
            model.decisions,
            np.stack([attribute.codes for attribute in searched]),
            num_levels=[len(attribute.levels) for attribute in searched],
            metric=metric,
            patients=None if self.patients is None else self.data.patients,
            max_depth=min(_DEEPEST_SEARCH, len(searched)),
            min_support=max(options.min_positives, options.min_negatives),
            top=_MOST_FOUND,
            num_permutations=min(options.replicates, _MOST_SHUFFLES),
        )

    def _comparison(self) -> Iterator[entries.Entry]:
        baseline, *others = self.data.models
        together = Family(_ALL, (), (), np.empty(0, np.int32), np.zeros((0, 0)))
        for model in others:
            for family in (*self.families, together):
                parts = self.families if family is together else (family,)
                if family is together and len(parts) == 1:
                    continue
                found = self._positive_sum(model, baseline, parts)
                levels = [
                    level if len(parts) == 1 else f"{part.name} = {level}"
                    for part in parts
                    for level in part.levels
                ]
                yield entries.comparison(
                    model.name,
                    baseline.name,
                    family.name,
                    found,
                    levels,
                    self.options.margin,
                )

    def _positive_sum(self, model: Model, baseline: Model, parts) -> Any:
        return _compare_models(
            self.labels,
            jnp.asarray(model.scores, float),
            jnp.asarray(baseline.scores, float),
            jnp.stack([jnp.asarray(part.codes) for part in parts]),
            num_groups=tuple(len(part.levels) for part in parts),
            margin=self.options.margin,
            confidence=self.options.confidence,
            min_positives=max(self.options.min_positives, 2),
            min_negatives=max(self.options.min_negatives, 2),
            patients=self.patients,
            num_patients=None if self.patients is None else self.num_patients,
        )
