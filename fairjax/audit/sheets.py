"""The audit's tables as CSV, safe to open in a spreadsheet."""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

from fairjax.audit.formats import Document

# Where a cell begins that a spreadsheet would run: at the start, and after what another
# locale's spreadsheets part cells at. Some skip spaces before the sign, and some read
# full-width forms as ASCII.
_FORMULA = re.compile(
    "(^|[;\t\n])(\\s*(?=[=+\\-@\uff1d\uff0b\uff0d\uff20]))|^()(?=[\t\n])"
)
_COLUMNS: dict[str, tuple[str, ...]] = {
    "overall": ("model", "metric", "estimate", "lower", "upper", "method"),
    "cohort": (
        "attribute",
        "group",
        "rows",
        "patients",
        "positives",
        "negatives",
        "prevalence",
        "lower",
        "upper",
        "status",
    ),
    "groups": (
        "model",
        "attribute",
        "group",
        "metric",
        "estimate",
        "lower",
        "upper",
        "method",
        "shrunken",
        "rows",
        "positives",
        "denominator",
        "status",
    ),
    "gaps": (
        "model",
        "attribute",
        "metric",
        "estimate",
        "lower",
        "upper",
        "corrected",
        "noise_floor",
        "p",
        "p_adjusted",
        "test",
        "highest",
        "lowest",
        "compared",
        "left_out",
        "withheld",
        "status",
    ),
    "discovery": (
        "model",
        "metric",
        "group",
        "rows",
        "positives",
        "estimate",
        "rest",
        "difference",
        "p",
        "p_corrected",
        "searched",
    ),
    "quality": ("severity", "code", "message", "rows"),
    "gate": ("rule", "estimate", "lower", "upper", "status", "reason"),
    "tripod_ai": ("topic", "item", "section"),
}
_CURVES = {
    "roc": ("fpr", "tpr"),
    "calibration": ("predicted", "observed", "lower", "upper", "rows"),
    "decision": ("threshold", "net_benefit", "treat_all"),
}


def sheets(document: Document) -> dict[str, str]:
    r"""The document's tables: name -> text of the CSV file.

    Every table is there, with its header alone where the audit has no entries. Lines
    end in a line feed, a missing number is an empty cell, a list is joined by "; ".

    Example:
      >>> sheets({"quality": [{"severity": "info", "code": "a", "message": "=1+1",
      ...                      "rows": 2}]})["quality"]
      "severity,code,message,rows\ninfo,a,'=1+1,2\n"
    """
    tables = {
        name: _table(columns, document.get(name, ()))
        for name, columns in _COLUMNS.items()
    }
    who = ("model", "attribute", "group")
    curves = document.get("curves", {})
    for kind, series in _CURVES.items():
        tables[f"curve_{kind}"] = _table(
            (*who, *series), _long(curves.get(kind, ()), who, series)
        )
    who, series = ("model", "attribute", "metric"), ("threshold", "estimate")
    series = (*series, "lower", "upper")
    tables["sensitivity"] = _table(
        (*who, *series), _long(document.get("sensitivity", ()), who, series)
    )
    tables["comparison"] = _comparison(document.get("comparison", ()))
    return tables


def cell(value: Any) -> str:
    """The value as a cell's text; text that a spreadsheet would run gets a quote.

    Example:
      >>> cell("=cmd()"), cell(-0.5), cell("-0.5"), cell(None), cell(["a", "=b"])
      ("'=cmd()", '-0.5', "'-0.5", '', "a;' =b")
    """
    if value is None:
        return ""
    if isinstance(value, (bool, int, float)):
        return str(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return cell("; ".join(str(v) for v in value))
    # Readers take a carriage return for the row's end, even within quotes.
    text = str(value).replace("\r\n", "\n").replace("\r", "\n")
    return _FORMULA.sub(lambda found: f"{found[1] or ''}'{found[2] or ''}", text)


def _table(columns: Sequence[str], entries: Sequence[Mapping[str, Any]]) -> str:
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns)
    for entry in entries:
        writer.writerow([cell(entry.get(column)) for column in columns])
    return stream.getvalue()


def _long(
    entries: Sequence[Mapping[str, Any]], who: Sequence[str], series: Sequence[str]
) -> list[dict[str, Any]]:
    """A line for each point of each curve."""
    return [
        {**{k: entry[k] for k in who}, **dict(zip(series, point, strict=True))}
        for entry in entries
        for point in zip(*(entry[k] for k in series), strict=True)
    ]


def _comparison(entries: Sequence[Mapping[str, Any]]) -> str:
    """A line for the whole, for the group that gains least, and for each group."""
    lines = []
    for entry in entries:
        who = {k: entry[k] for k in ("model", "baseline", "attribute", "verdict")}
        who["margin"] = entry["margin"]
        lines += [
            {**who, "part": "overall", **entry["gain"]},
            {**who, "part": "worst", **entry["worst"]},
            *({**who, "part": "group", **group} for group in entry["groups"]),
        ]
    columns = ("model", "baseline", "attribute", "part", "group", "estimate")
    return _table((*columns, "lower", "upper", "margin", "verdict"), lines)
