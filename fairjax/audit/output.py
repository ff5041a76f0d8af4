"""Writes an audit's folder: all of it, or nothing."""

import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fairjax.audit._errors import AuditError, require
from fairjax.audit.schema import NAME, Document
from fairjax.audit.sheets import sheets

REPORT, DOCUMENT = "report.html", "audit.json"
# In the order in which they are put in place: the document comes last, for it says
# that a folder is an audit's.
_ENTRIES = ("tables", "figures", REPORT, DOCUMENT)
_SCRATCH = ".fairjax-audit-"
# What a reader adds to these folders is not replaced with them.
_TABLES = {"tables", "figures"} | {f"tables/{name}.csv" for name in sheets({})}
_FIGURE = re.compile(
    r"(forest|roc|calibration|decision|gaps|sensitivity|quadrant)\b.*\.svg"
)


def write(
    document: Mapping[str, Any], folder: str | os.PathLike[str], overwrite: bool = False
) -> Path:
    """Writes the audit into the folder, and returns the path of its report.

    The same document gives the same bytes. Everything is made first and written
    aside, then moved in place; what fails leaves nothing behind, and an audit already
    there as it was.

    Args:
      document: The audit.
      folder: Made where it does not exist; its parents too.
      overwrite: Whether an audit already there is replaced. A folder that holds
        anything else is never touched.

    Raises:
      AuditError: The folder cannot be written, holds an audit that is not to be
        replaced, or files that are not an audit's; or a package of the extra
        ``audit`` is not installed.
      ValueError: The document holds NaN or infinity, which JSON has no words for.

    Example:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     _ = Path(folder, "mine.txt").write_text("notes")
      ...     write({}, folder)
      Traceback (most recent call last):
      fairjax.audit._errors.AuditError: ...: holds mine.txt, which no audit wrote...
    """
    target = Path(folder)
    check(target, overwrite)
    made = _files(document)
    # A link keeps its place; the folder it names is written.
    target = target.resolve()
    parents = [p for p in (target.parent, *target.parent.parents) if not p.exists()]
    scratch = f"{_scratch(target)}{secrets.token_hex(4)}"
    # A folder that exists may be a mount, which cannot be moved: its entries are.
    aside = (target if target.exists() else target.parent) / scratch
    try:
        _clean(target)
        for name in ("tables", "figures"):
            (aside / "new" / name).mkdir(parents=True)
        for name, data in made.items():
            (aside / "new" / name).write_bytes(data)
        if target.exists():
            _swap(target, aside)
        else:
            (aside / "new").rename(target)
    except OSError as error:
        reason = error.strerror or str(error)
        raise AuditError(f"{folder}: cannot be written: {reason}") from error
    finally:
        # Former files that could not be put back are the user's to save.
        if not (aside / "old").exists():
            shutil.rmtree(aside, ignore_errors=True)
        for parent in parents:
            if parent.exists() and not any(parent.iterdir()):
                parent.rmdir()
    return Path(folder) / REPORT


def check(folder: str | os.PathLike[str], overwrite: bool = False) -> None:
    """Refuses a folder that ``write`` would refuse, before anything is computed.

    Raises:
      AuditError: As ``write``.

    Example:
      >>> check("a/folder/that/is/not/there")
      >>> check(__file__)
      Traceback (most recent call last):
        ...
      fairjax.audit._errors.AuditError: ...: is a file; give a folder for the audit.
    """
    target = Path(folder)
    try:
        absent = not target.exists()
    except OSError as error:
        raise AuditError(f"{folder}: {error.strerror or error}") from error
    if absent:
        if target.is_symlink():
            raise AuditError(f"{folder}: is a link to nothing; give another folder.")
        _check_parent(target)
        return
    if not target.is_dir():
        raise AuditError(f"{folder}: is a file; give a folder for the audit.")
    if not os.access(target, os.W_OK | os.X_OK):
        raise AuditError(f"{folder}: may not be written to.")
    paths = [
        path.relative_to(target)
        for path in sorted(target.rglob("*"))
        # What an audit that was killed may have left behind.
        if not path.relative_to(target).parts[0].startswith(_SCRATCH)
    ]
    strange = next((p for p in paths if not _known(p)), None)
    # One that was killed between moving files may have left the document aside.
    asides = [aside / part for aside in _left(target) for part in ("old", "new")]
    audits = (_is_audit(place / DOCUMENT) for place in (target, *asides))
    if strange is None and paths and not any(audits):
        strange = paths[0]
    if strange is not None:
        raise AuditError(
            f"{folder}: holds {strange.as_posix()}, which no audit wrote; give "
            "another folder."
        )
    if paths and not overwrite:
        raise AuditError(
            f"{folder}: holds an audit already; replace it with --overwrite, or give "
            "another folder."
        )


def _check_parent(target: Path) -> None:
    """Refuses a folder that cannot be made where it is to be."""
    parent = next(p for p in target.absolute().parents if p.exists() or p.is_symlink())
    if not parent.is_dir():
        raise AuditError(f"{target}: {parent.name} is a file and no folder.")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise AuditError(f"{target}: its folder {parent.name!r} may not be written to.")


def _scratch(target: Path) -> str:
    """How names of scratch folders for the target begin."""
    return f"{_SCRATCH}{hashlib.sha256(target.name.encode()).hexdigest()[:8]}-"


def _left(target: Path) -> list[Path]:
    """What audits of the same folder that were killed have left."""
    target = target.resolve()
    return [
        path
        for place in (target, target.parent)
        if place.is_dir()
        for path in sorted(place.glob(f"{_scratch(target)}*"))
        if path.is_dir() and not path.is_symlink()
    ]


def _known(path: Path) -> bool:
    """Whether an audit may have written the path, which is relative to its folder."""
    return (
        path.as_posix() in _ENTRIES
        or path.as_posix() in _TABLES
        or (path.parts[0] == "figures" and _FIGURE.fullmatch(path.name) is not None)
    )


def _is_audit(path: Path) -> bool:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and found.get("schema") == NAME


def _swap(target: Path, aside: Path) -> None:
    """Moves the new entries in place; the former ones go back if that fails."""
    (aside / "old").mkdir()
    try:
        for name in _ENTRIES:
            if (target / name).exists():
                (target / name).rename(aside / "old" / name)
            (aside / "new" / name).rename(target / name)
    except BaseException:
        _put_back(target, aside)
        raise
    shutil.rmtree(aside / "old")


def _clean(target: Path) -> None:
    """Undoes and removes what audits of the same folder that were killed have left."""
    for aside in _left(target):
        if (aside / "old").is_dir() and (aside / "new" / DOCUMENT).exists():
            _put_back(target, aside)
        shutil.rmtree(aside, ignore_errors=True)


def _put_back(target: Path, aside: Path) -> None:
    """Undoes what was moved; the document, which is moved last, was not."""
    for name in _ENTRIES:
        if not (aside / "new" / name).exists():
            (target / name).rename(aside / "new" / name)
        if (aside / "old" / name).exists():
            (aside / "old" / name).rename(target / name)
    (aside / "old").rmdir()


def _files(document: Mapping[str, Any]) -> dict[str, bytes]:
    """Every file of the audit: relative path -> bytes."""
    require("jinja2", "matplotlib")
    # Loaded here, so that the command line starts without them.
    from fairjax.audit.figures import draw
    from fairjax.audit.page import page
    from fairjax.audit.render._canvas import titled
    from fairjax.audit.sheets import sheets

    typed = Document.of(document)
    drawings = draw(typed)
    text = json.dumps(document, allow_nan=False, ensure_ascii=False, indent=1)
    found = {DOCUMENT: f"{text}\n", REPORT: page(typed, drawings)}
    found |= {f"tables/{name}.csv": table for name, table in sheets(typed).items()}
    # A lone surrogate, which some tables' text holds, has no bytes in UTF-8.
    made = {name: text.encode("utf-8", "replace") for name, text in found.items()}
    # On the page a caption stands above the picture; a file has its own.
    return made | {
        f"figures/{drawing.slug}.svg": titled(drawing.svg, drawing.title)
        for drawing in drawings
    }
