"""The results table of reports, the terminal and documents, from one summary.

A column says which entry of a method's summary it shows. The summary is the content of
`summary.json`, before or after the file is written.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from experiments.reporting import markdown

Methods = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Column:
    """A column of the results table.

    Attributes:
      heading: Heading for readers.
      metric: Full name, such as ``"auroc"`` or ``"auroc_gap/sex"``.
      kind: The mean over repeats, the bias-corrected gap, or the p-value of the
        difference from the baseline.
      digits: Digits of the number.
      interval: Digits of the interval's ends, or None to leave the interval out.
      terminal: Whether the terminal shows the column too, without intervals.
    """

    heading: str
    metric: str
    kind: Literal["mean", "corrected", "p"] = "mean"
    digits: int = 3
    interval: int | None = None
    terminal: bool = False


def table(
    methods: Methods, columns: Sequence[Column], *, baseline: str, floor: str
) -> tuple[list[str], list[list[str]]]:
    """Makes the header and the rows: main methods, then the baseline's noise floors.

    Args:
      methods: Title -> its summary, as in `summary.json`.
      columns: The columns after the method's name.
      baseline: Title of the method that others were tested against.
      floor: Name of the last row, which is left out if no column has a noise floor.
    """
    header = ["Method", *(column.heading for column in columns)]
    rows = [
        [method["title"], *(_cell(method, column, baseline) for column in columns)]
        for title, method in methods.items()
        # The title of a method's setting has a label in brackets.
        if "[" not in title
    ]
    floors = [_floor(methods[baseline], column) for column in columns]
    if any(floors):
        rows.append([floor, *floors])
    return header, rows


def as_markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Returns the lines of a Markdown table; cells must be Markdown already."""
    return [
        f"| {' | '.join(header)} |",
        "|" + "---|" * len(header),
        *(f"| {' | '.join(row)} |" for row in rows),
    ]


def look_up(entries: Mapping[str, Any], metric: str) -> Any:
    """Returns a metric's entry, or None; ``a/b`` is under ``a``, and there under ``b``.

    Example:
      >>> look_up({"gap": {"sex": 1}}, "gap/sex"), look_up({}, "gap/sex")
      (1, None)
    """
    name, _, part = metric.partition("/")
    found = entries.get(name)
    return found if not part or found is None else found.get(part)


def _cell(method: Mapping[str, Any], column: Column, baseline: str) -> str:
    if column.kind == "p":
        test = look_up(method[f"test_vs_{baseline}"], column.metric)
        if test is None:
            return ""
        return markdown.p_value(
            test["p"] if _undefined(test["p_holm"]) else test["p_holm"]
        )
    estimate = look_up(method, column.metric)
    if estimate is None:
        raise ValueError(f"columns must be in the summary; got {column.metric!r}.")
    value, digits = estimate[column.kind], column.digits
    if column.interval is None:
        return markdown.number(value, digits)
    ends = estimate["low"], estimate["high"]
    return markdown.with_interval(value, *ends, digits, column.interval)


def _floor(method: Mapping[str, Any], column: Column) -> str:
    estimate = look_up(method, column.metric)
    if column.kind != "mean" or "null" not in estimate:
        return ""
    return markdown.number(estimate["null"], column.digits)


def _undefined(value: float | None) -> bool:
    # NaN is not equal to itself.
    return value is None or value != value
