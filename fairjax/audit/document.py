"""An audit from start to end: rows, numbers, rules, words, as one document."""

import platform
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

import fairjax
from fairjax.audit._analysis import MOST_CELLS, analyse
from fairjax.audit._families import MAX_GROUPS
from fairjax.audit.formats import joined
from fairjax.audit.options import Options
from fairjax.audit.reading.data import AuditData
from fairjax.audit.reading.table import read
from fairjax.audit.reproduce import command
from fairjax.audit.rules import judge
from fairjax.audit.schema import NAME, VERSION
from fairjax.audit.wording import words


def audit(
    options: Options,
    table: Any = None,
    advance: Callable[[str], object] = lambda _: None,
) -> dict[str, Any]:
    """Audits a table of predictions.

    The same table, options and seed give the same document; ``write`` makes a report
    of it. Its fields are described in ``docs/audit-schema.md``.

    Args:
      options: What is in which column, and what was asked for.
      table: A DataFrame, or a path; ``options.table`` if None.
      advance: Told what is being computed.

    Returns:
      The document, of JSON types.

    Raises:
      AuditError: The table cannot be audited: what is wrong, where, in how many rows.

    Example:
      >>> import numpy as np, pandas as pd
      >>> rows = np.arange(200)
      >>> frame = pd.DataFrame({
      ...     "died": rows % 2, "risk": (rows * 37 % 101 + 40 * (rows % 2)) / 141,
      ...     "sex": np.where(rows < 100, "F", "M")})
      >>> options = Options(
      ...     outcome="died", scores="risk", attributes="sex", replicates=100)
      >>> document = audit(options, frame)
      >>> [group["rows"] for group in document["cohort"]]
      [100, 100]
    """
    advance("the table")
    data = read(options, table)
    document = _frame(data, options) | analyse(data, options, advance)
    document["command"] = command(document)
    document["data"]["attributes"] = document.pop("families")
    unsearched = document.pop("unsearched")
    document["quality"] += _too_many(document.pop("left_out"))
    document["quality"] += _unsearched(unsearched)

    # Rules see what a reader sees, and no more.
    document["gate"] = judge(document, options.rules)
    return document | words(document)


def _too_many(names: list[str]) -> list[dict[str, Any]]:
    return [
        {
            "severity": "info",
            "code": "too_many_groups",
            "message": f"{name} is left out of the tables: it has more than "
            f"{MAX_GROUPS} groups with patients.",
            "rows": None,
        }
        for name in names
    ]


def _unsearched(names: list[str]) -> list[dict[str, Any]]:
    if not names:
        return []
    return [
        {
            "severity": "warning",
            "code": "attributes_not_searched",
            "message": f"The search for the worst intersection leaves out "
            f"{joined(names)}: crossed with the other attributes there are more than "
            f"{MOST_CELLS:,} groups, which is as many as can be searched.",
            "rows": None,
        }
    ]


def _frame(data: AuditData, options: Options) -> dict[str, Any]:
    """What was audited, and how."""
    positives = int(data.labels.sum())
    hidden = options.suppress_below > 0
    return {
        "schema": NAME,
        "schema_version": VERSION,
        "fairjax_version": fairjax.__version__,
        "title": options.title,
        "versions": {
            "jax": jax.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "settings": options.settings(),
        "data": {
            "source": data.source,
            "sha256": data.sha256,
            "rows_read": data.rows_read,
            "rows_used": len(data.labels),
            "rows_left_out": dict(data.rows_left_out),
            # Of an attribute they are a group, and may have to be withheld.
            "missing": {
                name: None if hidden and name in options.attributes else rows
                for name, rows in data.missing.items()
            },
            "patients": data.num_patients,
            "outcome": {"column": data.outcome, "positive": data.positive},
            "positives": positives,
            "prevalence": float(f"{positives / len(data.labels):.7g}"),
            "models": [
                {
                    "name": model.name,
                    "column": model.column,
                    "threshold": model.threshold,
                    "threshold_source": model.threshold_source,
                }
                for model in data.models
            ],
        },
        "quality": [finding._asdict() for finding in data.findings],
    }
