"""The command line: what is said where, and the exit codes."""

import io
import os
import shlex
import sys

import pytest

from fairjax.audit import command
from fairjax.audit._errors import AuditError, require
from fairjax.audit.options import Options

PLAIN = "audit table.csv --outcome died --score risk --attributes sex race"


@pytest.fixture
def ran(monkeypatch):
    """Stands in for the audit: keeps what it is called with, and returns a gate."""

    class Ran:
        def __init__(self):
            self.gate, self.calls, self.error = (), [], None

        def __call__(self, options, folder, overwrite):
            self.calls.append((options, folder, overwrite))
            if self.error:
                raise self.error
            entries = [
                {"rule": f"rule {i}", "status": status, "reason": f"reason {i}"}
                for i, status in enumerate(self.gate)
            ]
            document = {"summary": ["One × sentence.", "Another."], "gate": entries}
            return document, folder / "report.html"

    found = Ran()
    monkeypatch.setattr(command, "_run", found)
    return found


def options(ran, more=""):
    assert command.main(shlex.split(f"{PLAIN} {more}")) == 0
    return ran.calls[-1][0]


def test_the_least_that_can_be_said(ran, capsys):
    found = options(ran)
    assert found == Options(
        table="table.csv", outcome="died", scores="risk", attributes=["sex", "race"]
    )
    _, folder, overwrite = ran.calls[-1]
    assert (folder.as_posix(), overwrite) == ("audit", False)
    out, err = capsys.readouterr()
    assert out == "One × sentence.\nAnother.\nReport: audit/report.html\n"
    assert err == ""


def test_everything_that_can_be_said(ran):
    text = """
        audit t.csv --outcome died --positive yes --score old new --name Old New
        --logits --patient-id pid --missing-scores drop --missing-outcomes drop
        --attributes sex race age bmi --bins age=18,40.5 bmi=quantile:4
        --levels 'race=white,"black, other", asian' --levels sex=F,M
        --missing refuse --max-intersection-depth 3
        --validation split=val=1 --threshold-rule sensitivity:0.9
        --min-positives 20 --min-negatives 30 --suppress-below 11 --confidence 0.9
        --replicates 500 --seed 7 --margin 0.01 --correction benjamini-hochberg
        --fail-on 'auroc() < 0.7' --fail-on 'auroc_difference(sex * race) > 0.1'
        --allow-undecided --separator tab --decimal , --title 'A title'
        --output out/report --overwrite
    """
    assert command.main(shlex.split(text)) == 0
    found, folder, overwrite = ran.calls[-1]
    assert found == Options(
        table="t.csv",
        outcome="died",
        positive="yes",
        scores=("old", "new"),
        names=("Old", "New"),
        logits=True,
        patient_id="pid",
        missing_scores="drop",
        missing_outcomes="drop",
        attributes=("sex", "race", "age", "bmi"),
        bins={"age": (18.0, 40.5), "bmi": 4},
        levels={"race": ("white", "black, other", "asian"), "sex": ("F", "M")},
        missing="refuse",
        max_intersection_depth=3,
        validation=("split", "val=1"),
        threshold_rule="sensitivity:0.9",
        min_positives=20,
        min_negatives=30,
        suppress_below=11,
        confidence=0.9,
        replicates=500,
        seed=7,
        margin=0.01,
        correction="benjamini-hochberg",
        fail_on=("auroc() < 0.7", "auroc_difference(sex * race) > 0.1"),
        allow_undecided=True,
        separator="\t",
        decimal=",",
        title="A title",
    )
    assert (folder.as_posix(), overwrite) == ("out/report", True)


@pytest.mark.parametrize(
    ("more", "name", "value"),
    [
        ("--threshold 0.3", "thresholds", (0.3,)),
        ("--decisions flag", "decisions", ("flag",)),
        ("--no-intersections", "intersections", False),
        (r"--separator '\t'", "separator", "\t"),
        ("--separator ';' --decimal ,", "separator", ";"),
    ],
)
def test_single_options(ran, more, name, value):
    assert getattr(options(ran, more), name) == value


def test_every_option_can_be_said_and_is_helped_with(capsys):
    assert command.main(["audit", "--help"]) == 0
    text = capsys.readouterr().out
    flags = {
        "names": "--name",
        "scores": "--score",
        "thresholds": "--threshold",
        "intersections": "--no-intersections",
    }
    for name in Options.__dataclass_fields__:
        if name not in ("table", "rules"):
            assert flags.get(name, f"--{name.replace('_', '-')}") in text
    assert "exit code" in text
    assert all(len(line) <= 100 for line in text.splitlines())


def test_version(capsys):
    assert command.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("fairjax 0.")


@pytest.mark.parametrize(
    ("statuses", "more", "code"),
    [
        (("passed", "passed"), "", 0),
        (("passed", "failed"), "", 1),
        (("passed", "undecided"), "", 1),
        (("passed", "undecided"), "--allow-undecided", 0),
        (("failed", "undecided"), "--allow-undecided", 1),
    ],
)
def test_exit_codes_of_the_gate(ran, capsys, statuses, more, code):
    ran.gate = statuses
    assert command.main(shlex.split(f"{PLAIN} {more}")) == code
    out = capsys.readouterr().out
    for i, status in enumerate(statuses):
        assert f"{status}: rule {i} (reason {i})\n" in out
    assert out.endswith("Report: audit/report.html\n")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "required: COMMAND"),
        ("mitigate", "invalid choice: 'mitigate'"),
        ("audit", "required: TABLE, --outcome, --score, --attributes"),
        (f"{PLAIN} --treshold 0.3", "unrecognized arguments: --treshold 0.3"),
        # No abbreviations, which would change meaning as options are added.
        (f"{PLAIN} --thresh 0.3", "unrecognized arguments"),
        (f"{PLAIN} --threshold high", "invalid float value: 'high'"),
        (f"{PLAIN} --threshold 30", "--threshold must be in [0, 1]"),
        (f"{PLAIN} --bins age", "--bins must be NAME=VALUE; got 'age'"),
        (f"{PLAIN} --bins sex=old", "--bins must be like age=18,40,65"),
        (f"{PLAIN} --bins sex=quantile:x", "--bins must be like age=18,40,65"),
        (
            f"{PLAIN} --bins sex=4,5 sex=6",
            "--bins must name 'sex' only once",
        ),
        (f"{PLAIN} --levels sex=", "--levels must be NAME=VALUE"),
        (f"{PLAIN} --validation split", "--validation must be NAME=VALUE"),
        (f"{PLAIN} --fail-on 'auroc < 1'", "cannot read the rule"),
        (f"{PLAIN} --correction bonferroni", "invalid choice: 'bonferroni'"),
    ],
)
def test_what_cannot_be_understood(ran, capsys, text, words):
    assert command.main(shlex.split(text)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("fairjax audit: error: ")
    assert err.count("\n") == 1
    assert words in err
    assert not ran.calls


def test_errors_of_the_audit_are_one_line(ran, capsys):
    ran.error = AuditError("several\nlines  of text")
    assert command.main(shlex.split(PLAIN)) == 2
    assert capsys.readouterr().err == ("fairjax audit: error: several lines of text\n")


def test_other_errors_are_shown_and_are_no_failed_rule(ran, capsys):
    ran.error = ZeroDivisionError("a defect of ours")
    assert command.main(shlex.split(PLAIN)) == 3
    err = capsys.readouterr().err
    assert "Traceback (most recent call last)" in err
    assert "ZeroDivisionError: a defect of ours" in err


def test_a_terminal_is_told_what_is_being_done(monkeypatch, capsys):
    with command._progress("auditing table.csv") as say:
        say("race")
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with command._progress("auditing table.csv") as say:
        say("risk: race × \x1b[2Jsex")
        say("x" * 1000)
    text = capsys.readouterr().err
    assert "auditing table.csv ..." in text
    assert "auditing table.csv: risk: race × " in text
    assert "[2J" not in text.replace(" [2J", "")
    assert all(len(line) < 100 for line in text.split("\r"))
    assert text.endswith("\r\x1b[K")


def test_a_stream_that_lacks_a_character():
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    command._say("sex × race", stream)
    stream.flush()
    assert stream.buffer.getvalue() == b"sex ? race\n"


def test_names_do_not_command_the_terminal(capsys):
    command._say("race = \x1b[2Jwhite", sys.stdout)
    assert capsys.readouterr().out == "race =  [2Jwhite\n"


def test_a_missing_extra_is_named():
    with pytest.raises(AuditError) as caught:
        require("json", "no_such_module_anywhere")
    assert (
        'no_such_module_anywhere must be installed for this: pip install "fairjax[a'
        in (str(caught.value))
    )


def test_a_reader_that_stops_reading_changes_nothing(ran, monkeypatch):
    """As ``fairjax audit ... | head -1``: the gate's answer stays what it is."""
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        assert command.main(shlex.split(PLAIN)) == 0
        ran.gate = ["failed"]
        assert command.main(shlex.split(PLAIN)) == 1


def test_no_output_at_all_changes_nothing(ran, monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    ran.gate = ["failed"]
    assert command.main(shlex.split(PLAIN)) == 1
