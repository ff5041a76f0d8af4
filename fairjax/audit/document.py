"""An audit from start to end: rows, numbers, rules, words, as one document."""

import platform
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

import fairjax
from fairjax.audit._analysis import analyse
from fairjax.audit._families import MAX_GROUPS, families
from fairjax.audit._suppression import suppress, withheld
from fairjax.audit.data import AuditData
from fairjax.audit.options import Options
from fairjax.audit.rules import judge
from fairjax.audit.schema import NAME, VERSION
from fairjax.audit.table import read
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
    document["data"]["attributes"] = document.pop("families")
    if options.suppress_below > 0:
        # Of the families that are shown, from the rows that are counted.
        shown, _ = families(data.attributes, options.depth)
        suppress(document, withheld(shown, data.labels, options.suppress_below))
    document["quality"] += _varying(document.pop("varying"))
    document["quality"] += _too_many(document.pop("left_out"))

    # Rules see what a reader sees, and no more.
    document["gate"] = judge(document, options.rules)
    return document | words(document)


def _varying(names: list[str]) -> list[dict[str, Any]]:
    return [
        {
            "severity": "info",
            "code": "attribute-varies-within-patients",
            "message": f"{name} differs between rows of one patient, so the search for "
            "the worst intersection, which shuffles whole patients, leaves it out.",
            "rows": None,
        }
        for name in names
    ]


def _too_many(names: list[str]) -> list[dict[str, Any]]:
    return [
        {
            "severity": "info",
            "code": "too-many-groups",
            "message": f"{name} is left out of the tables: it has more than "
            f"{MAX_GROUPS} groups with patients. The search for the worst "
            "intersection covers it.",
            "rows": None,
        }
        for name in names
    ]


def _frame(data: AuditData, options: Options) -> dict[str, Any]:
    """What was audited, and how."""
    positives = int(data.labels.sum())
    return {
        "schema": NAME,
        "schema_version": VERSION,
        "fairjax_version": fairjax.__version__,
        "title": options.title,
        "versions": {
            "fairjax": fairjax.__version__,
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
