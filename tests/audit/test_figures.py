"""The figures: complete, well-formed, the same every time, told in words."""

import re
import xml.etree.ElementTree as ET

import hypothesis
import pytest
from hypothesis import strategies as st

from experiments.reporting import figures as experiment
from fairjax.audit import figures
from fairjax.audit.render import _canvas
from tests.audit.example import (
    FORMULA,
    HOSTILE,
    build,
    drawings,
    empty,
    example,
    selected,
    sketched,
    sketches,
)

SVG = "{http://www.w3.org/2000/svg}"


def texts(drawing):
    return [
        "".join(t.itertext()) for t in ET.fromstring(drawing.svg).iter(f"{SVG}text")
    ]


def of(kind, found=None):
    return [d for d in (drawings() if found is None else found) if d.kind == kind]


def curves_only(levels):
    """A document of one attribute with many groups, their error rates and curves."""
    document = build(rows=60 * levels, models=1, levels=levels, only=("site",))
    for name in ("gaps", "sensitivity", "discovery", "overall"):
        document[name] = []
    kept = ("true_positive_rate", "false_positive_rate")
    document["groups"] = [g for g in document["groups"] if g["metric"] in kept]
    return document


def test_every_attribute_has_its_figures():
    names = [a["name"] for a in example()["data"]["attributes"]]
    for model in ("risk", "new_risk"):
        for attribute in names:
            mine = [
                d.kind
                for d in sketches()
                if (d.model, d.attribute) == (model, attribute)
            ]
            assert mine == ["forest"] * 3 + ["roc", "calibration", "decision"]
    found = [d.attribute for d in of("sensitivity", sketches())]
    assert found == ["sex", "race", "insurance"]
    assert len(of("gaps", sketches())) == 4
    assert len(of("quadrant", sketches())) == 1


@pytest.mark.slow
def test_the_same_document_gives_the_same_bytes():
    """What is drawn of two models; the rest is compared where it is written."""
    two = build(rows=300, only=("sex",)) | {"groups": [], "gaps": []}
    two["curves"] = dict.fromkeys(two["curves"], ())
    found = figures.draw(two)
    assert {d.kind for d in found} == {"sensitivity", "quadrant"}
    assert figures.draw(two) == found
    assert all(b"<dc:date>" not in d.svg for d in found)


def test_pictures_are_well_formed_and_fetch_nothing():
    assert {d.kind for d in drawings()} == {d.kind for d in sketches()}
    for drawing in drawings():
        for element in ET.fromstring(drawing.svg).iter():
            assert element.tag != f"{SVG}script"
            for name, value in element.attrib.items():
                assert not name.startswith("on")
                if name.endswith("href"):
                    assert value.startswith("#")


def test_every_figure_is_told_in_words():
    for drawing in sketches():
        assert re.fullmatch(r"[a-z0-9-]+", drawing.slug)
        assert drawing.title
        assert len(drawing.alt) > 30
        assert "None" not in drawing.alt


def test_slugs_are_distinct():
    slugs = [d.slug for d in sketches()]
    assert len(slugs) == len(set(slugs))
    twins = build(rows=300, models=1, only=("race",))
    [attribute] = twins["data"]["attributes"]
    twins["data"]["attributes"].append(attribute | {"name": "Race!"})
    for kind in ("groups", "cohort"):
        twins[kind] += [e | {"attribute": "Race!"} for e in twins[kind]]
    slugs = [d.slug for d in sketched(twins)]
    assert "forest-risk-race-error-2" in slugs
    assert len(slugs) == len(set(slugs))


def test_a_forest_plot_shows_every_group_with_its_numbers():
    [drawing] = [d for d in of("forest") if d.slug == "forest-risk-race-error"]
    shown = texts(drawing)
    for name in ("white", "black", "Asian", HOSTILE, FORMULA, "All patients"):
        assert name in shown
    [black] = [
        e
        for e in example()["groups"]
        if (e["model"], e["group"], e["metric"])
        == ("risk", "black", "true_positive_rate")
    ]
    ends = f"[{black['lower']:.3f}, {black['upper']:.3f}]"
    assert f"{black['estimate']:.3f} {ends}" in shown
    assert f"{black['positives']:,}" in shown
    assert shown.count("too few patients to assess") == 2
    assert shown.count("suppressed: small cell") == 2


def test_each_figure_explains_its_signs():
    for drawing in of("gaps"):
        for name in (
            "estimate with interval",
            "corrected for chance",
            "noise floor (chance alone)",
            "no gap",
        ):
            assert name in texts(drawing)
    for drawing in of("forest"):
        assert "over all patients" in texts(drawing)
        assert "noise floor (chance alone)" not in texts(drawing)
    for drawing in of("calibration"):
        assert "a bin, 95 % interval" in texts(drawing)
        assert "perfect calibration" in texts(drawing)
    for drawing in of("sensitivity"):
        assert {"risk", "new_risk", "interval", "threshold used"} <= set(texts(drawing))


def test_bins_that_are_suppressed_are_not_drawn():
    document = build(rows=300, models=1, only=("sex",))
    [curve, _] = document["curves"]["calibration"]
    document |= {"groups": [], "gaps": [], "sensitivity": []}
    document["curves"] |= {"roc": [], "decision": []}
    for name in ("predicted", "observed", "lower", "upper", "rows"):
        curve[name] = [None, *curve[name][1:]]
    [drawing] = of("calibration", figures.draw(document))
    assert texts(drawing).count("some bins suppressed") == 1


@pytest.mark.parametrize("title", ["Gaps <in> a & b", "a long title " * 30])
def test_a_file_has_its_title_above_the_figure(title):
    svg = drawings()[0].svg
    root = ET.fromstring(_canvas.titled(svg, title))
    [_, top, width, height] = map(float, root.get("viewBox").split())
    before = [float(v) for v in ET.fromstring(svg).get("viewBox").split()]
    assert before[0] == before[1] == 0
    assert (width, height) == pytest.approx((before[2], before[3] - top), abs=0.01)
    assert float(root.get("height").removesuffix("pt")) == pytest.approx(height)
    above = [t for t in root.findall(f"{SVG}text") if float(t.get("y")) < 0]
    told = " ".join(t.text for t in above)
    assert told.removesuffix("…") in title
    assert all(float(t.get("y")) > top for t in above)


def test_alternative_text_says_what_is_seen():
    [forest] = [d for d in of("forest") if d.slug == "forest-risk-race-error"]
    assert "TPR from" in forest.alt
    assert "(black)" in forest.alt
    assert f"Without estimate: {HOSTILE} and {FORMULA}." in forest.alt
    [roc] = [d for d in of("roc") if d.slug == "roc-risk-race"]
    assert roc.alt.startswith("ROC curves of 3 groups. AUROC: white 0.")
    assert "below predicted on average" in of("calibration")[0].alt
    assert "above both alternatives at thresholds within" in of("decision")[0].alt
    assert "positive-sum" in of("quadrant")[0].alt


@pytest.mark.slow
def test_many_groups_are_all_in_the_forest_and_the_largest_in_the_curves():
    document = curves_only(10)
    found = figures.draw(document)
    [forest] = of("forest", found)
    assert sum(t.startswith("Hospital site") for t in texts(forest)) == 10
    for kind in ("roc", "calibration", "decision"):
        [drawing] = of(kind, found)
        assert "the 8 largest of" in drawing.title
        assert sum(t.startswith("Hospital site") for t in texts(drawing)) == 8
    rows = {c["group"]: c["rows"] for c in document["cohort"]}
    every = [c for c in document["curves"]["roc"] if c["attribute"] == "site"]
    kept = figures.largest(document, "site", every)
    least = min(rows[c["group"]] for c in kept)
    assert all(rows[c["group"]] <= least for c in every if c not in kept)


@pytest.mark.slow
def test_awkward_names_are_drawn():
    names = [
        "$11,000 to $25,000",
        "a\x00b\x1f\u202ec",
        "\u6c49\u5b57" * 30,
        "<b>&amp;]]>",
        "x" * 300,
        "",
        "_^{}\\frac",
    ]
    document = curves_only(len(names))
    [attribute] = document["data"]["attributes"]
    renamed = dict(zip(attribute["levels"], names, strict=True))
    for entries in (
        document["cohort"],
        document["groups"],
        *document["curves"].values(),
    ):
        for entry in entries:
            entry["group"] = renamed[entry["group"]]
    found = figures.draw(document)
    assert [d.kind for d in found] == ["forest", "roc", "calibration", "decision"]
    for drawing in found:
        shown = "".join("".join(texts(drawing)).split())
        for name in names:
            assert "".join(_canvas.plain(name)[:12].split()) in shown


@pytest.mark.slow
def test_numbers_that_are_missing_everywhere():
    document = selected(build(rows=300, only=("sex",)), "risk", "sex")
    gone = ("estimate", "lower", "upper", "corrected", "noise_floor", "p", "p_adjusted")
    for kind in ("overall", "groups", "gaps"):
        for entry in document[kind]:
            entry.update({k: None for k in gone if k in entry})
    for curves in document["curves"].values():
        for curve in curves:
            for key, value in curve.items():
                if isinstance(value, list):
                    curve[key] = [None] * len(value)
    for entry in document["sensitivity"]:
        entry["estimate"] = [None] * len(entry["threshold"])
        entry["lower"] = entry["upper"] = entry["estimate"]
    for entry in document["comparison"]:
        entry["gain"] |= {"estimate": None, "lower": None, "upper": None}
        entry["worst"] |= {"estimate": None, "lower": None, "upper": None}
    for drawing in figures.draw(document):
        ET.fromstring(drawing.svg)
        assert "nan" not in drawing.alt


def test_nothing_audited_is_nothing_drawn():
    assert figures.draw(empty()) == ()


@hypothesis.given(st.text(max_size=60), st.integers(5, 30))
def test_lines_keep_their_width_and_lose_nothing(text, width):
    lines = _canvas.wrap(text, width, lines=1000)
    assert "".join(lines).replace(" ", "") == _canvas.plain(text).replace(" ", "")
    assert all(_canvas._width(line) <= width for line in lines)
    assert len(_canvas.wrap(text, width, lines=2)) <= 2


@hypothesis.given(st.lists(st.floats(0, 1), min_size=1, max_size=5), st.booleans())
def test_axes_show_all_values(values, bounded):
    low, high = _canvas.limits(values, bounded=bounded)
    assert low <= min(values) <= max(values) <= high
    assert high - low >= 0.05
    assert not bounded or (low > -0.01 and high < 1.01)


def test_experiments_share_the_palette():
    assert experiment.COLOURS is figures.COLOURS
    assert experiment.STYLE is figures.STYLE
    assert len(set(figures.COLOURS)) == len(figures.COLOURS)
