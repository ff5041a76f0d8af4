"""An audit from table to document: rows, numbers, rules and sentences."""

import platform
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any, cast

import jax
import numpy as np

import fairjax
from fairjax.audit import schema
from fairjax.audit.measure._analysis import analyse
from fairjax.audit.options import Options
from fairjax.audit.reading.data import AuditData
from fairjax.audit.reading.table import read
from fairjax.audit.reproduce import command
from fairjax.audit.rules import judge
from fairjax.audit.wording import words

__all__ = ["audit"]

# Entries of the document that are lists.
_MEASURED = ("cohort", "overall", "groups", "gaps", "sensitivity", "discovery")
_EMPTY = (*_MEASURED, "comparison", "gate", "summary", "limits", "tripod_ai")


def audit(
    options: Options,
    table: Any = None,
    advance: Callable[[str], object] = lambda _: None,
) -> dict[str, Any]:
    """Audits a table of predictions.

    The same table, options and seed give the same document. ``write`` makes a report
    from the document, and ``docs/audit-schema.md`` describes its fields.

    Args:
      options: The columns of the table, and the settings of the audit.
      table: A DataFrame, or a path; ``options.table`` if None.
      advance: Called with the name of each part before the part is computed.

    Returns:
      The document, of types of JSON.

    Raises:
      AuditError: If the table cannot be audited. The message says what is wrong,
        where, and in how many rows.

    Example:
      >>> import numpy as np, pandas as pd
      >>> rows = np.arange(200)
      >>> frame = pd.DataFrame({
      ...     "died": rows % 2, "risk": (rows * 37 % 101 + 40 * (rows % 2)) / 141,
      ...     "sex": np.where(rows < 100, "F", "M")})
      >>> options = Options(
      ...     outcome="died", scores="risk", attributes="sex", replicates=100)
      >>> document = audit(options, frame)  # doctest: +SKIP
      >>> [group["rows"] for group in document["cohort"]]  # doctest: +SKIP
      [100, 100]
    """
    advance("the table")
    data = read(options, table)
    document = analyse(_frame(data, options), data, options, advance)
    # Rules apply to the document after suppression, as readers see it.
    gate = [schema.RuleResult(**result) for result in judge(document, options.rules)]
    document = replace(document, command=command(document), gate=gate)
    return asdict(document) | words(document)


def _frame(data: AuditData, options: Options) -> schema.Document:
    """Returns a document with the data and the settings, without results."""
    positives = int(data.labels.sum())
    return schema.Document(
        schema=schema.NAME,
        schema_version=schema.VERSION,
        fairjax_version=fairjax.__version__,
        title=options.title,
        versions={
            "jax": jax.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        settings=cast(schema.Settings, options.settings()),
        data=schema.Data(
            source=data.source,
            sha256=data.sha256,
            rows_read=data.rows_read,
            rows_used=len(data.labels),
            rows_left_out=dict(data.rows_left_out),
            missing={**data.missing},
            patients=data.num_patients,
            outcome=schema.Outcome(data.outcome, data.positive),
            positives=positives,
            prevalence=float(f"{positives / len(data.labels):.7g}"),
            models=[
                schema.Model(m.name, m.column, m.threshold, m.threshold_source)
                for m in data.models
            ],
            attributes=[],
        ),
        quality=[schema.Finding(*finding) for finding in data.findings],
        curves=schema.Curves([], [], []),
        command=None,
        **{name: [] for name in _EMPTY},
    )
