"""Arguments of ``fairjax audit``: names, help texts and parsing."""

import argparse
import csv
import re
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args, get_origin, get_type_hints

from fairjax.audit._errors import AuditError
from fairjax.audit._templates import text_of
from fairjax.audit.options import Options, flag

# ``words/options.txt`` has a line for each heading, then lines with a field of
# `Options`, the placeholder of its value, and its help.
_OPTION = re.compile(r"^  (\w+) ?([A-Z=]*): (.*(?:\n    .*)*)", re.MULTILINE)
# Settings of argparse that do not follow from the type and default of the field.
_SPECIAL: dict[str, dict[str, Any]] = {
    "thresholds": {"nargs": "+", "type": float, "default": ()},
    "bins": {"nargs": "+", "action": "extend", "default": []},
    "levels": {"nargs": "+", "action": "extend", "default": []},
    "fail_on": {"action": "append", "default": []},
    "output": {"default": "audit"},
    "overwrite": {"action": "store_true"},
    "separator": {"type": lambda text: "\t" if text in ("tab", "\\t") else text},
}


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, like every other error of the command."""

    def error(self, message: str) -> NoReturn:
        raise AuditError(f"{message} (see {self.prog} --help)")


def read_arguments(argv: Sequence[str] | None) -> tuple[Options, Path, bool]:
    """Returns the options, the output folder, and whether to replace the folder.

    Args:
        argv: The arguments; the arguments of the process if None.

    Raises:
        AuditError: If the arguments cannot be parsed.
        SystemExit: After the help or the version was printed.
    """
    given = vars(_parser().parse_args(argv))
    for name in ("bins", "levels"):
        given[name] = _by_attribute(name, given[name])
    if given["validation"] is not None:
        given["validation"] = _pair("--validation", given["validation"])
    folder, overwrite = Path(given.pop("output")), given.pop("overwrite")
    del given["command"]
    return Options(**given), folder, overwrite


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="fairjax", description="Audits clinical models.")
    parser.add_argument(
        "--version", action="version", version=f"fairjax {version('fairjax')}"
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    audit = commands.add_parser(
        "audit",
        help="audit a table of predictions",
        usage="fairjax audit TABLE --outcome COLUMN --score COLUMN [COLUMN ...]\n"
        "                     --attributes COLUMN [COLUMN ...] [options]",
        description=text_of("words/description.txt"),
        epilog=text_of("words/epilog.txt"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        # An abbreviation would break when a new option begins with the same letters.
        allow_abbrev=False,
    )
    audit.add_argument("table", metavar="TABLE", help=".csv, .tsv, .gz or .parquet")
    for kind in re.split(r"\n(?=\w)", text_of("words/options.txt")):
        group = audit.add_argument_group(kind.partition("\n")[0])
        for name, metavar, text in _OPTION.findall(kind):
            how = _SPECIAL[name] if name in _SPECIAL else _how(name)
            how = how | ({"metavar": metavar} if metavar else {})
            group.add_argument(
                flag(name), dest=name, help=" ".join(text.split()), **how
            )
    return parser


def _how(name: str) -> dict[str, Any]:
    """Returns argparse settings from the type and the default of an option's field."""
    kind, default = get_type_hints(Options)[name], getattr(Options, name, None)
    if isinstance(default, bool):
        return {"action": "store_false" if default else "store_true"}
    if get_origin(kind) is Literal:
        return {"choices": get_args(kind), "default": default}
    if isinstance(default, (int, float)):
        return {"type": type(default), "default": default}
    several: dict[str, Any] = {"nargs": "+"} if get_origin(kind) is Sequence else {}
    if hasattr(Options, name):
        return several | {"default": default}
    return several | {"required": True}


def _by_attribute(name: str, texts: Sequence[str]) -> dict[str, Any]:
    """Parses texts ``ATTRIBUTE=...``, one for each attribute."""
    flag = f"--{name}"
    found: dict[str, Any] = {}
    for text in texts:
        attribute, value = _pair(flag, text)
        if attribute in found:
            raise AuditError(f"{flag} must name {attribute!r} only once")
        if name == "bins":
            found[attribute] = _cuts(text, value)
        else:
            # Quotes protect a category that contains a comma.
            try:
                found[attribute] = next(csv.reader([value], skipinitialspace=True))
            except csv.Error as error:
                raise AuditError(f"cannot read {flag} {text!r}: {error}") from None
    return found


def _pair(flag: str, text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not (sign and name and value):
        raise AuditError(f"{flag} must be NAME=VALUE; got {text!r}")
    return name, value


def _cuts(text: str, value: str) -> int | list[float]:
    kind, sign, number = value.partition(":")
    try:
        if sign and kind == "quantile":
            return int(number)
        return [float(edge) for edge in value.split(",")]
    except ValueError:
        raise AuditError(
            f"--bins must be like age=18,40,65 or age=quantile:4; got {text!r}"
        ) from None
