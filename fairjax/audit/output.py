"""Writes the folder of an audit, completely or not at all."""

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
# In the order of writing: the document is last, because it marks a folder as an audit.
_ENTRIES = ("tables", "figures", REPORT, DOCUMENT)
_SCRATCH = ".fairjax-audit-"
# Other files that a user adds to these folders are never replaced.
_TABLES = {"tables", "figures"} | {f"tables/{name}.csv" for name in sheets({})}
_FIGURE = re.compile(
    r"(forest|roc|calibration|decision|gaps|sensitivity|quadrant)\b.*\.svg"
)


def write(
    document: Mapping[str, Any], folder: str | os.PathLike[str], overwrite: bool = False
) -> Path:
    """Writes the audit to the folder, and returns the path of the report.

    The same document gives the same bytes. All files are written to a scratch folder
    and then moved. A failure leaves no new files, and an earlier audit unchanged.

    Args:
      document: The audit.
      folder: The folder; created with its parents if it does not exist.
      overwrite: Whether to replace an earlier audit in the folder. A folder with other
        files is never changed.

    Returns:
      The path of ``report.html``.

    Raises:
      AuditError: If the folder cannot be written, contains an audit and ``overwrite``
        is false, or contains files that are not an audit's; or if a package of the
        extra ``audit`` is not installed.
      ValueError: If the document contains NaN or infinity, which JSON cannot hold.

    Example:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     _ = Path(folder, "mine.txt").write_text("notes")
      ...     write({}, folder)
      Traceback (most recent call last):
      fairjax.audit._errors.AuditError: ...: contains mine.txt, which is not from an ...
    """
    target = Path(folder)
    check(target, overwrite)
    made = _files(document)
    # A link stays; the folder that it points to is written.
    target = target.resolve()
    parents = [p for p in (target.parent, *target.parent.parents) if not p.exists()]
    scratch = f"{_scratch(target)}{secrets.token_hex(4)}"
    # A folder that exists may be a mount, which cannot be moved, but its entries can.
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
        # Keeps earlier files that could not be moved back, for the user to save.
        if not (aside / "old").exists():
            shutil.rmtree(aside, ignore_errors=True)
        for parent in parents:
            if parent.exists() and not any(parent.iterdir()):
                parent.rmdir()
    return Path(folder) / REPORT


def check(folder: str | os.PathLike[str], overwrite: bool = False) -> None:
    """Checks that ``write`` accepts a folder, before anything is computed.

    Args:
      folder: The folder.
      overwrite: Whether to replace an earlier audit in the folder.

    Raises:
      AuditError: If ``write`` would refuse the folder.

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
        raise AuditError(f"{folder}: no permission to write; give another folder.")
    paths = [
        path.relative_to(target)
        for path in sorted(target.rglob("*"))
        # A killed audit may have left scratch folders.
        if not path.relative_to(target).parts[0].startswith(_SCRATCH)
    ]
    strange = next((p for p in paths if not _known(p)), None)
    # An audit killed while moving files may have left the document in a scratch folder.
    asides = [aside / part for aside in _left(target) for part in ("old", "new")]
    audits = (_is_audit(place / DOCUMENT) for place in (target, *asides))
    if strange is None and paths and not any(audits):
        strange = paths[0]
    if strange is not None:
        raise AuditError(
            f"{folder}: contains {strange.as_posix()}, which is not from an "
            "audit; give another folder."
        )
    if paths and not overwrite:
        raise AuditError(
            f"{folder}: contains an audit; replace the audit with --overwrite, or give "
            "another folder."
        )


def _check_parent(target: Path) -> None:
    """Checks that the parent of a new folder is a folder that can be written."""
    parent = next(p for p in target.absolute().parents if p.exists() or p.is_symlink())
    if not parent.is_dir():
        raise AuditError(f"{target}: {parent.name} is a file, not a folder.")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise AuditError(f"{target}: no permission to write to {parent.name!r}.")


def _scratch(target: Path) -> str:
    """Returns the prefix of scratch folders for the target."""
    return f"{_SCRATCH}{hashlib.sha256(target.name.encode()).hexdigest()[:8]}-"


def _left(target: Path) -> list[Path]:
    """Returns scratch folders of killed audits of the same folder."""
    target = target.resolve()
    return [
        path
        for place in (target, target.parent)
        if place.is_dir()
        for path in sorted(place.glob(f"{_scratch(target)}*"))
        if path.is_dir() and not path.is_symlink()
    ]


def _known(path: Path) -> bool:
    """Returns whether an audit may have written the path, relative to its folder."""
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
    """Replaces earlier entries by new ones; moves the earlier ones back on failure."""
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
    """Undoes the moves of killed audits of the same folder; removes their files."""
    for aside in _left(target):
        if (aside / "old").is_dir() and (aside / "new" / DOCUMENT).exists():
            _put_back(target, aside)
        shutil.rmtree(aside, ignore_errors=True)


def _put_back(target: Path, aside: Path) -> None:
    """Undoes all moves; the document is last in order and was not moved."""
    for name in _ENTRIES:
        if not (aside / "new" / name).exists():
            (target / name).rename(aside / "new" / name)
        if (aside / "old" / name).exists():
            (aside / "old" / name).rename(target / name)
    (aside / "old").rmdir()


def _files(document: Mapping[str, Any]) -> dict[str, bytes]:
    """Returns every file of the audit: relative path -> bytes."""
    require("jinja2", "matplotlib")
    # Imported here, so that the command line starts without matplotlib.
    from fairjax.audit.figures import draw
    from fairjax.audit.page import page
    from fairjax.audit.render._canvas import titled
    from fairjax.audit.sheets import sheets

    typed = Document.of(document)
    drawings = draw(typed)
    text = json.dumps(document, allow_nan=False, ensure_ascii=False, indent=1)
    found = {DOCUMENT: f"{text}\n", REPORT: page(typed, drawings)}
    found |= {f"tables/{name}.csv": table for name, table in sheets(typed).items()}
    # A lone surrogate, which text of a table may contain, has no bytes in UTF-8.
    made = {name: text.encode("utf-8", "replace") for name, text in found.items()}
    # The page has captions above its images; a file has its title in the image.
    return made | {
        f"figures/{drawing.slug}.svg": titled(drawing.svg, drawing.title)
        for drawing in drawings
    }
