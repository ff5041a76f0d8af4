"""The audit of an experiment's predictions, by the library's audit."""

from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np
import pandas as pd

from experiments.core.results import AnyResults, main_methods
from fairjax.audit import Options, audit, write
from fairjax.evaluation import MIN_SUPPORT

_OUTCOME, _PATIENT = "outcome", "patient"


def write_audit(
    results: AnyResults,
    folder: Path,
    *,
    methods: Collection[str],
    system: str,
    advance: Callable[[str], object] = lambda _: None,
) -> Path:
    """Audits some methods, each against the first; returns the report's path.

    The audit uses the predictions of the first repeat, by models that did not train on
    the patient, and the same decisions as the metrics. Where decisions are
    probabilities, the audit uses one random draw, since an audit assesses decisions
    that were taken. Patients count equally, even if the metrics had weights.

    Args:
      results: Results of the run.
      folder: Folder in which a folder ``audit`` is made.
      methods: Names of the methods; methods that were not run are left out.
      system: The system's name for readers.
      advance: Called with a text that says what is being computed.
    """
    table, options = audited_table(results, methods=methods, system=system)
    document = audit(options, table, advance)
    return write(document, folder / "audit", overwrite=True)


def audited_table(
    results: AnyResults, *, methods: Collection[str], system: str
) -> tuple[pd.DataFrame, Options]:
    """Makes the table of predictions, and the audit's options for the table."""
    splits = results.splits
    names: list[str] = []
    columns = {_OUTCOME: splits.table.label, _PATIENT: splits.table.patient_ids}
    for title in main_methods(results):
        found = results.predictions[title]
        if found.name not in methods:
            continue
        decisions = found.decisions[0]
        drawn = decisions.dtype.kind == "f" and bool((decisions % 1).any())
        name = results.titles[title] + (", one draw" if drawn else "")
        names.append(name)
        # A draw in [0, 1) is always below a decision of 1, and never below one of 0.
        draws = np.random.default_rng(results.options.seed).random(len(decisions))
        columns[f"{name}: risk"] = found.scores[0]
        columns[f"{name}: selected"] = (decisions > draws).astype(int)
    attributes = splits.table.attributes[list(splits.attributes)]
    options = Options(
        outcome=_OUTCOME,
        scores=[f"{name}: risk" for name in names],
        names=names,
        decisions=[f"{name}: selected" for name in names],
        attributes=splits.attributes,
        patient_id=_PATIENT,
        # Crossed attributes are searched for the worst, and not all shown.
        intersections=False,
        min_positives=MIN_SUPPORT,
        min_negatives=MIN_SUPPORT,
        seed=results.options.seed,
        title=f"{system} on {splits.table.title}, {splits.table.outcome}",
    )
    frame = pd.DataFrame(columns).join(attributes.reset_index(drop=True))
    return frame, options
