"""The audit's folder: written as a whole or not at all."""

import json
import os
import pathlib
import shutil

import pytest

from fairjax.audit import output
from fairjax.audit._errors import AuditError
from fairjax.audit.output import check, write
from tests.audit.example import empty, small

TREE = {"audit.json", "report.html", "tables", "figures"}


def contents(folder):
    """Every file below the folder with its bytes, hidden ones included."""
    return {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


FULL = OSError(28, "No space left on device")


def failing(monkeypatch, name, after, error=FULL):
    """Makes a method of paths fail after some calls."""
    original, calls = getattr(pathlib.Path, name), [0]

    def method(self, *args, **kwargs):
        calls[0] += 1
        if calls[0] == after + 1:
            raise error
        return original(self, *args, **kwargs)

    monkeypatch.setattr(pathlib.Path, name, method)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return write(small(), tmp_path_factory.mktemp("written") / "new" / "audit")


def test_the_folder_holds_the_audit(report):
    new = report.parents[1]
    assert report == new / "audit" / "report.html"
    found = contents(report.parent)
    assert {name.split("/")[0] for name in found} == TREE
    assert json.loads(found["audit.json"]) == small()
    assert found["report.html"].startswith(b"<!DOCTYPE html>")
    for name in ("cohort", "groups", "gaps", "quality", "gate", "curve_roc"):
        assert f"tables/{name}.csv" in found
    assert "figures/forest-risk-race-error.svg" in found
    assert os.listdir(new.parent) == ["new"]
    assert os.listdir(new) == ["audit"]


@pytest.mark.slow
def test_the_same_document_gives_the_same_bytes(report, tmp_path):
    write(small(), tmp_path)
    found = contents(tmp_path)
    assert found == contents(report.parent)
    for data in found.values():
        assert str(tmp_path).encode() not in data
        assert b"\r\n" not in data
        assert b"<dc:date>" not in data


def test_an_audit_is_replaced_only_when_asked(report, tmp_path):
    shutil.copytree(report.parent, tmp_path, dirs_exist_ok=True)
    with pytest.raises(AuditError, match="contains an audit; .*--overwrite"):
        write(empty(), tmp_path)
    assert json.loads((tmp_path / "audit.json").read_text())["gaps"]
    write(empty(), tmp_path, overwrite=True)
    assert json.loads((tmp_path / "audit.json").read_text()) == empty()
    assert set(os.listdir(tmp_path)) == TREE
    assert not list((tmp_path / "figures").iterdir())


@pytest.mark.parametrize(
    "name",
    [
        "notes.txt",
        "tables/mine.xlsx",
        "figures/a/b.svg",
        "figures/edited.svg",
        "tables/notes.csv",
        "audit.json",
        ".env",
    ],
)
def test_what_is_not_an_audits_is_never_touched(tmp_path, name):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('{"schema": "other"}')
    for overwrite in (False, True):
        with pytest.raises(AuditError, match="which is not from an audit"):
            write(small(), tmp_path, overwrite)
    assert contents(tmp_path) == {name: b'{"schema": "other"}'}


def test_a_note_added_to_an_audit_is_not_lost(tmp_path):
    write(empty(), tmp_path)
    (tmp_path / "tables" / "notes.txt").write_text("mine")
    with pytest.raises(AuditError, match=r"tables/notes\.txt"):
        write(empty(), tmp_path, overwrite=True)


def test_an_empty_folder_is_used_in_place(tmp_path):
    before = tmp_path.stat().st_ino
    write(empty(), tmp_path)
    assert tmp_path.stat().st_ino == before
    assert set(os.listdir(tmp_path)) == TREE


def test_a_link_keeps_its_place(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    write(empty(), tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert set(os.listdir(tmp_path / "real")) == TREE


def test_what_is_no_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "dangling").symlink_to(tmp_path / "gone")
    with pytest.raises(AuditError, match="is a file"):
        check(tmp_path / "file")
    with pytest.raises(AuditError, match="link to nothing"):
        check(tmp_path / "dangling")
    for folder in ("file/audit", "file/a/b"):
        with pytest.raises(AuditError, match="file is a file, not a folder"):
            check(tmp_path / folder)
    assert (tmp_path / "file").read_text() == "x"


def test_what_may_not_be_written_is_refused_at_once(tmp_path, monkeypatch):
    (tmp_path / "there").mkdir()
    monkeypatch.setattr(output.os, "access", lambda path, how: False)
    for name in ("there", "new", "new/audit"):
        with pytest.raises(AuditError, match="no permission to write"):
            check(tmp_path / name)


@pytest.mark.parametrize("after", [0, 3, 12])
def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch, after):
    failing(monkeypatch, "write_bytes", after)
    with pytest.raises(AuditError, match="cannot be written: No space left on device"):
        write(empty(), tmp_path / "some" / "where")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("after", range(8))
def test_a_failed_move_leaves_the_former_audit(tmp_path, monkeypatch, after):
    write(empty(), tmp_path)
    before = contents(tmp_path)
    failing(monkeypatch, "rename", after)
    with pytest.raises(AuditError, match="cannot be written"):
        write(empty(title="new"), tmp_path, overwrite=True)
    assert contents(tmp_path) == before
    assert set(os.listdir(tmp_path)) == TREE


def test_a_failed_move_into_a_new_place_leaves_nothing(tmp_path, monkeypatch):
    failing(monkeypatch, "rename", 0)
    with pytest.raises(AuditError):
        write(empty(), tmp_path / "new")
    assert os.listdir(tmp_path) == []


def test_an_interrupt_puts_the_former_audit_back(tmp_path, monkeypatch):
    write(empty(), tmp_path)
    before = contents(tmp_path)
    failing(monkeypatch, "rename", 3, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        write(empty(title="new"), tmp_path, overwrite=True)
    assert contents(tmp_path) == before


def test_a_document_that_cannot_be_drawn_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write(empty(positives=float("nan")), tmp_path / "audit")
    assert os.listdir(tmp_path) == []


def test_what_a_killed_audit_left_is_no_obstacle(tmp_path):
    (tmp_path / ".fairjax-audit-0123" / "new").mkdir(parents=True)
    (tmp_path / ".fairjax-audit-0123" / "new" / "report.html").write_text("half")
    write(empty(), tmp_path)
    assert set(os.listdir(tmp_path)) >= TREE


class Killed(BaseException):
    """What nothing after it sees."""


@pytest.mark.parametrize("after", range(9))
def test_an_audit_killed_at_any_move_is_undone_by_the_next(
    tmp_path, monkeypatch, after
):
    write(empty(), tmp_path)
    before = contents(tmp_path)
    with monkeypatch.context() as patched:
        failing(patched, "rename", after, Killed())
        # As if the process had ended there.
        patched.setattr(output, "_put_back", lambda *_: None)
        patched.setattr(output.shutil, "rmtree", lambda *_, **__: None)
        try:
            write(empty(title="killed"), tmp_path, overwrite=True)
        except Killed:
            assert after < 8
    assert set(os.listdir(tmp_path)) - TREE
    with pytest.raises(AuditError, match="contains an audit; replace"):
        check(tmp_path)
    check(tmp_path, overwrite=True)
    failing(monkeypatch, "mkdir", 0)
    with pytest.raises(AuditError, match="No space left"):
        write(empty(title="new"), tmp_path, overwrite=True)
    if after < 8:
        assert contents(tmp_path) == before
    assert set(os.listdir(tmp_path)) == TREE


def test_what_a_killed_first_audit_left_beside_is_removed(tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        failing(patched, "rename", 0, Killed())
        patched.setattr(output.shutil, "rmtree", lambda *_, **__: None)
        with pytest.raises(Killed):
            write(empty(), tmp_path / "audit")
    [left] = os.listdir(tmp_path)
    (tmp_path / ".fairjax-audit-of-another").mkdir()
    write(empty(), tmp_path / "audit")
    assert left not in os.listdir(tmp_path)
    assert set(os.listdir(tmp_path)) == {"audit", ".fairjax-audit-of-another"}


def test_text_without_bytes_is_replaced(tmp_path):
    write(empty(title="a\ud800b"), tmp_path / "audit")
    assert b"a?b" in (tmp_path / "audit" / "report.html").read_bytes()


def test_the_folder_has_the_permissions_of_any_other(tmp_path):
    (tmp_path / "usual").mkdir()
    write(empty(), tmp_path / "audit")
    modes = {(tmp_path / n).stat().st_mode for n in ("usual", "audit", "audit/tables")}
    assert len(modes) == 1


def test_a_missing_extra_is_one_clear_line(tmp_path, monkeypatch):
    monkeypatch.setattr(output, "require", lambda *names: missing(names))

    def missing(names):
        assert names == ("jinja2", "matplotlib")
        raise AuditError('pip install "fairjax[audit]"')

    with pytest.raises(AuditError, match=r"fairjax\[audit\]"):
        write(empty(), tmp_path / "audit")
    assert os.listdir(tmp_path) == []
