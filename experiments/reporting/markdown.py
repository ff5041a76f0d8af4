"""Texts and numbers from the data, formatted for Markdown."""

import math
import re


def escape(text: str) -> str:
    r"""Escapes a text for Markdown, and puts it on one line.

    An attribute may be named ``<script>``, or contain the bar that ends a table's cell.

    Example:
      >>> escape("a|b <script>")
      'a\\|b &lt;script&gt;'
    """
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*|\[\]])", r"\\\1", " ".join(text.split()))


def number(value: float | None, digits: int) -> str:
    """Formats a number, or returns a dash if there is no number.

    Example:
      >>> number(0.12345, 3), number(None, 3)
      ('0.123', '-')
    """
    missing = value is None or math.isnan(value)
    return "-" if missing else f"{value:.{digits}f}"


def with_interval(
    value: float | None,
    low: float | None,
    high: float | None,
    digits: int = 3,
    end_digits: int = 3,
) -> str:
    """Formats a number and the ends of its interval.

    Example:
      >>> with_interval(0.12345, 0.1, None, 4)
      '0.1235 [0.100, -]'
    """
    ends = ", ".join(number(end, end_digits) for end in (low, high))
    return f"{number(value, digits)} [{ends}]"


def p_value(value: float | None) -> str:
    """Formats a p-value to three digits, or returns a dash if there is no p-value.

    Example:
      >>> p_value(0.0004), p_value(0.0312), p_value(float("nan"))
      ('<.001', '0.031', '-')
    """
    return "<.001" if value is not None and value < 0.001 else number(value, 3)
