"""The command that makes an audit again."""

import shlex

import pytest

from fairjax.audit.reproduce import command


def arguments(**settings):
    """The words of the command for the settings, after the table's name."""
    asked = {"outcome": "died", "intersections": True} | settings
    found = command({"data": {"source": "in.csv"}, "settings": asked})
    words = shlex.split(found.replace("\\\n", " "))
    assert words[:5] == ["fairjax", "audit", "in.csv", "--outcome", "died"]
    return words[5:]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, []),
        ({"scores": ["old", "new risk"]}, ["--score", "old", "new risk"]),
        ({"names": [], "positive": None, "logits": False, "bins": {}}, []),
        ({"logits": True}, ["--logits"]),
        ({"patient_id": "pid"}, ["--patient-id", "pid"]),
        ({"bins": {"age": 4}}, ["--bins", "age=quantile:4"]),
        ({"bins": {"age": [18, 65.5]}}, ["--bins", "age=18,65.5"]),
        ({"levels": {"race": ["a, b", "c"]}}, ["--levels", 'race="a, b",c']),
        ({"validation": ["split", "va l"]}, ["--validation", "split=va l"]),
        ({"thresholds": [0.3, 0.25]}, ["--threshold", "0.3", "0.25"]),
        ({"margin": 0.0, "seed": 0}, ["--margin", "0", "--seed", "0"]),
        ({"decimal": ","}, ["--decimal", ","]),
        ({"separator": "\t"}, ["--separator", "\t"]),
        (
            {"intersections": False, "max_intersection_depth": 2},
            ["--no-intersections"],
        ),
        ({"max_intersection_depth": 3}, ["--max-intersection-depth", "3"]),
        ({"positive": "$(rm -rf)"}, ["--positive", "$(rm -rf)"]),
    ],
)
def test_each_setting_becomes_its_flag(settings, words):
    assert arguments(**settings) == words


def test_an_audit_from_python_has_no_command():
    settings = {"outcome": "died", "intersections": True}
    document = {"data": {"source": "DataFrame"}, "settings": settings}
    assert command(document) is None
    assert command({"data": {"source": "a.csv"}, "settings": {}}) is None
