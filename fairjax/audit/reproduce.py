"""The command line that reproduces an audit, from its settings."""

import csv
import io
import shlex
from collections.abc import Iterable, Mapping
from typing import Any

from fairjax.audit.options import flag
from fairjax.audit.schema import Document, DocumentLike


def command(document: DocumentLike) -> str | None:
    r"""Returns the command that reproduces an audit; None for an audit from Python.

    The command names the table without its folder. The command has every setting, so
    that new defaults change nothing. Rules and the title are left out, because numbers
    do not depend on them.

    Example:
      >>> settings = {"outcome": "died", "scores": ["risk"], "attributes": ["sex"],
      ...             "bins": {"age": [18, 65]}, "intersections": False, "seed": 0}
      >>> print(command({"data": {"source": "a b.csv"}, "settings": settings}))
      fairjax audit 'a b.csv' \
        --outcome died \
        --score risk \
        --attributes sex \
        --bins age=18,65 \
        --no-intersections \
        --seed 0
    """
    document = Document.of(document)
    settings, source = dict(document.settings), document.data.source
    if "outcome" not in settings or source == "DataFrame":
        return None
    lines = [f"fairjax audit {shlex.quote(source)}"]
    for name, value in settings.items():
        if name == "intersections":
            lines += [] if value else [flag(name)]
        elif value is True:
            lines.append(flag(name))
        elif name == "max_intersection_depth" and not settings["intersections"]:
            continue
        elif value is not None and value is not False:
            words = [shlex.quote(word) for word in _words(name, value)]
            lines += [" ".join([flag(name), *words])] if words else []
    return " \\\n  ".join(lines)


def _words(name: str, value: Any) -> Iterable[str]:
    """Returns the words after the flag of a setting."""
    if name == "validation":
        return ["=".join(value)]
    if isinstance(value, Mapping):
        return [f"{key}={_level(of)}" for key, of in value.items()]
    if isinstance(value, (list, tuple)):
        return [_word(item) for item in value]
    return [_word(value)]


def _level(value: Any) -> str:
    """Returns the text after ``ATTRIBUTE=``."""
    if isinstance(value, int):
        return f"quantile:{value}"
    if isinstance(value, str):
        return value
    stream = io.StringIO(newline="")
    csv.writer(stream, lineterminator="").writerow([_word(item) for item in value])
    return stream.getvalue()


def _word(value: Any) -> str:
    return f"{value:.15g}" if isinstance(value, float) else str(value)
