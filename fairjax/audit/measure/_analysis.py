"""Computation of the document from checked rows."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from fairjax import metrics
from fairjax.audit import schema
from fairjax.audit.measure import _entries as entries
from fairjax.audit.measure import _pointwise
from fairjax.audit.measure._comparisons import Compared, Odds, Support, compare, support
from fairjax.audit.measure._estimates import Measured, Rows, measure
from fairjax.audit.measure._families import MAX_GROUPS, families
from fairjax.audit.measure._models import compare_models
from fairjax.audit.measure._pointwise import curves, rates_at_thresholds
from fairjax.audit.measure._small_cells import count, decide, without
from fairjax.audit.measure._suppression import masked, suppress
from fairjax.audit.options import Options
from fairjax.audit.reading._quality import finding
from fairjax.audit.reading.data import AuditData, Model
from fairjax.audit.schema import Cohort, Discovery, Document
from fairjax.groups import Grouping

_T = TypeVar("_T")

_EVERYONE = "everyone"
# Metrics of the search for the worst intersection, and number of groups shown.
_SEARCHED = ("true_positive_rate", "false_positive_rate")
_MOST_FOUND = 5
# Number of groups found, if some may be suppressed.
_MOST_SIFTED = 100
_DEEPEST_SEARCH = 3
_MOST_SHUFFLES = 999
_MANY_ROWS = 2_000_000
# Largest number of combinations of categories that `fairjax.metrics` searches.
MOST_CELLS = 2**20


def analyse(
    document: Document,
    data: AuditData,
    options: Options,
    advance: Callable[[str], object] = lambda _: None,
) -> Document:
    """Returns the document with all results on the models.

    Computes in double precision from one seed, so that the same rows and options give
    the same numbers.

    Args:
      document: The data and settings of the audit, with empty lists of results.
      data: The rows.
      options: The options of the audit.
      advance: Called with the name of each part before the part is computed.
    """
    analysis = in_double_precision(lambda: _Analysis(data, options, advance))
    document = in_double_precision(lambda: analysis.fill(document))
    if analysis.suppressed is not None:
        document = suppress(document, analysis.suppressed, analysis.families, data)
    # The search found more groups than are shown, because some may be suppressed.
    return replace(document, discovery=_most(document.discovery))


def _most(found: Sequence[Discovery]) -> list[Discovery]:
    """Returns the first entries of each model and metric."""
    seen: Counter[tuple[str, str]] = Counter()
    kept = []
    for entry in found:
        seen[entry.model, entry.metric] += 1
        if seen[entry.model, entry.metric] <= _MOST_FOUND:
            kept.append(entry)
    return kept


def searchable(
    attributes: Sequence[Grouping],
) -> tuple[list[Grouping], list[str]]:
    """Returns attributes whose full crossing can be searched, and names of the others.

    Leaves out the attributes with the most categories, to keep most attributes.
    """
    kept, cells = set(), 1
    for attribute in sorted(attributes, key=lambda a: len(a.levels)):
        cells *= len(attribute.levels)
        if cells <= MOST_CELLS:
            kept.add(attribute.name)
    return (
        [a for a in attributes if a.name in kept],
        [a.name for a in attributes if a.name not in kept],
    )


def in_double_precision(compute: Callable[[], _T]) -> _T:
    """Runs a function with 64-bit arrays, a setting that JAX keeps for each thread."""
    with jax.enable_x64(True):
        return compute()


class _Analysis:
    """The rows, groupings padded to one size, and options of an audit."""

    def __init__(
        self, data: AuditData, options: Options, advance: Callable[[str], object]
    ):
        self.data, self.options, self.advance = data, options, advance
        self.families, self.too_many = families(data.attributes, options.depth)
        self.suppressed = None
        if options.suppress_below > 0:
            self.suppressed = decide(self.families, data, options.suppress_below)
            # Rows of suppressed groups are in no group of any computation.
            self.families = tuple(
                without(family, self.suppressed.groups[family.name])
                for family in self.families
            )
        largest = max((len(f.levels) for f in self.families), default=1)
        # A multiple of 4, so that similar tables share compiled programs.
        self.num_groups = -(-largest // 4) * 4
        self.labels = data.labels.astype(np.int32)
        # If no patient has two rows, the exact tests for rows apply.
        number = data.num_patients or 1
        repeated = data.patients is not None and number < len(data.labels)
        self.patients = data.patients if repeated else None
        self.num_patients = number if repeated else 1
        codes = np.zeros(len(data.labels), np.int32)
        self.everyone = Grouping(_EVERYONE, (_EVERYONE,), codes)

    def fill(self, document: Document) -> Document:
        """Returns the document with all entries that have numbers."""
        attributes = [
            schema.Attribute(f.name, list(f.levels), f.binned, f.intersection)
            for f in self.families
        ]
        # Other threads compile programs and search intersections while this thread
        # computes the metrics of the groupings.
        with ThreadPoolExecutor(2) as pool:
            ready = pool.submit(in_double_precision, self._compile)
            searched = pool.submit(in_double_precision, self._discovery)
            if len(self.labels) > _MANY_ROWS:
                # Saves memory; compilation is a small part of the time for many rows.
                searched.result()
            for position, model in enumerate(self.data.models):
                rows = self._rows(model)
                self.advance(f"{model.name}: all rows")
                overall = jax.device_get(self._measure(rows, self.everyone))
                document.overall.extend(entries.overall(model.name, overall))
                for family in self.families:
                    self.advance(f"{model.name}: {family.name}")
                    self._add_family(document, position, model, rows, family, ready)
            self.advance("the worst intersections")
            found, unsearched = searched.result()
        self.advance("the comparison of models")
        compared = compare_models(
            self.data,
            self.families,
            self.suppressed,
            self.options,
            num_groups=self.num_groups,
            by_patient=self.patients is not None,
        )
        limit = {"limit": MAX_GROUPS}
        findings = [finding("too_many_groups", name=n, **limit) for n in self.too_many]
        if unsearched:
            limit = {"limit": MOST_CELLS}
            findings.append(
                finding("attributes_not_searched", names=unsearched, **limit)
            )
        return replace(
            document,
            data=replace(document.data, attributes=attributes),
            quality=document.quality + [schema.Finding(*found) for found in findings],
            gaps=entries.adjusted(document.gaps, self.options.correction),
            discovery=found,
            comparison=list(compared),
        )

    def _compile(self) -> None:
        """Compiles the comparison of groups, which only needs sizes, and the curves."""
        rows = self._rows(self.data.models[0])
        shapes = jax.eval_shape(lambda: self._measure(rows, self.everyone))
        empty = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
        seen = empty, *self._supported(empty)
        jax.block_until_ready(self._compare(self._key(0, 0), seen, None))
        if len(rows.labels) <= _MANY_ROWS:
            codes = self.everyone.codes
            jax.block_until_ready(curves(rows, codes, num_groups=self.num_groups))

    def _supported(self, measured: Measured) -> tuple[Support, Odds]:
        options = self.options
        return support(measured, options.min_positives, options.min_negatives)

    def _compare(
        self, key: jax.Array, seen: tuple[Measured, Support, Odds], others: Any
    ) -> Compared:
        """Compares groups, also at other thresholds unless ``others`` is None."""
        number = 0 if others is None else len(others)
        if others is None:
            shape = len(_pointwise.SENSITIVITY_THRESHOLDS), *seen[2].rates.shape
            others = np.zeros(shape)
        options = self.options
        asked = {"confidence": options.confidence, "replicates": options.replicates}
        return compare(key, *seen, others, np.int32(number), **asked)

    def _rows(self, model: Model) -> Rows:
        return Rows(
            self.labels,
            np.asarray(model.scores, float),
            np.asarray(model.decisions),
            self.patients,
        )

    def _measure(self, rows: Rows, family: Grouping) -> Measured:
        return measure(
            rows,
            family.codes,
            num_groups=self.num_groups,
            num_patients=self.num_patients,
            confidence=self.options.confidence,
        )

    def _key(self, *numbers: int) -> jax.Array:
        """Returns a random key for each use, without a compiled program."""
        words = np.random.SeedSequence([self.options.seed, *numbers]).generate_state(2)
        return jax.random.wrap_key_data(jnp.asarray(words), impl="threefry2x32")

    def _add_family(
        self,
        document: Document,
        position: int,
        model: Model,
        rows: Rows,
        family: Grouping,
        ready: Future,
    ) -> None:
        number = self.families.index(family)
        measured, others = self._measure(rows, family), None
        if model.threshold is not None and not family.intersection:
            others = rates_at_thresholds(rows, family.codes, num_groups=self.num_groups)
        ready.result()
        seen, hidden = (measured, *self._supported(measured)), None
        enough = np.asarray(seen[1].both)
        if self.suppressed is not None:
            hidden = partial(self.suppressed.hidden, family.name, position)
            seen = masked(*seen, hidden)
        compared = self._compare(self._key(position, number), seen, others)
        measured, supported, compared = jax.device_get((*seen[:2], compared))
        if position == 0:
            document.cohort.extend(self._cohort(family, measured, enough))
        document.groups.extend(entries.groups(model.name, family, measured, supported))
        document.gaps.extend(
            entries.gaps(
                model.name,
                family,
                measured,
                compared.gaps,
                supported,
                by_patient=self.patients is not None,
                hidden=hidden,
            )
        )
        if family.intersection:
            return
        drawn = jax.device_get(curves(rows, family.codes, num_groups=self.num_groups))
        drawn = entries.curves(model.name, family, measured, drawn, supported.both)
        for kind in ("roc", "calibration", "decision"):
            document.curves[kind].extend(drawn[kind])
        if others is not None:
            document.sensitivity.append(
                entries.sensitivity(model.name, family, compared.odds)
            )

    def _cohort(
        self, family: Grouping, measured: Measured, enough: np.ndarray
    ) -> Iterator[Cohort]:
        patients, known = None, family.codes >= 0
        if self.data.patients is not None:
            here = replace(family, codes=family.codes[known])
            one = np.zeros(len(here.codes), np.int64)
            patients = count(here, one, 1, self.data.patients[known])[:, 0]
        yield from entries.cohort(family, measured, patients, enough)

    def _discovery(self) -> tuple[list[Discovery], list[str]]:
        """Returns the worst intersections, and attributes that are not searched.

        A test that shuffles patients needs attributes that do not vary within patients.
        """
        steady = [a for a in self.data.attributes if not self.data.varying(a).any()]
        searched, unsearched = searchable(steady)
        if not searched:
            return [], unsearched
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
                len(self.data.models) * len(_SEARCHED),
            )
        ]
        return found, unsearched

    def _search(
        self,
        position: int,
        place: int,
        model: Model,
        metric: str,
        searched: Sequence[Grouping],
    ) -> metrics.Intersections:
        options = self.options
        return metrics.worst_intersections(
            self._key(position, place, 2),
            self.data.labels,
            model.decisions,
            np.stack([attribute.codes for attribute in searched]),
            num_levels=[len(attribute.levels) for attribute in searched],
            metric=metric,
            patients=None if self.patients is None else self.data.patients,
            max_depth=min(_DEEPEST_SEARCH, options.depth, len(searched)),
            min_support=max(options.min_positives, options.min_negatives),
            top=_MOST_FOUND if self.suppressed is None else _MOST_SIFTED,
            num_permutations=min(options.replicates, _MOST_SHUFFLES),
        )
