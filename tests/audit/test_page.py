"""The report's HTML: structure, names, escaping, and nothing fetched."""

import base64
import copy
import functools
import hashlib
import html.parser
import itertools
import re

import pytest

from fairjax.audit import _templates, page
from fairjax.audit.render._canvas import Drawing
from tests.audit.example import (
    FORMULA,
    HOSTILE,
    build,
    empty,
    example,
    report,
    sketches,
    small,
)

VOID = {"meta", "img", "br", "link", "input"}


class Reader(html.parser.HTMLParser):
    """Collects elements with their attributes and text; checks that tags match."""

    def __init__(self):
        super().__init__()
        self.open, self.elements, self.text = [], [], {}

    def handle_starttag(self, tag, attrs):
        element = (tag, dict(attrs), [])
        self.elements.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        for element in self.open:
            element[2].append(data)


def read(text):
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert not reader.open
    return reader.elements


def find(elements, tag, **attributes):
    return [
        e
        for e in elements
        if e[0] == tag and all(e[1].get(k) == v for k, v in attributes.items())
    ]


def words(element):
    return " ".join("".join(element[2]).split())


@functools.cache
def full():
    return read(report())


@functools.cache
def bare():
    return read(page.page(empty(), ()))


def test_sections_stand_in_order_and_the_contents_lead_to_them():
    links = [e[1]["href"] for e in full() if e[0] == "a"]
    ids = [e[1]["id"] for e in full() if "id" in e[1]]
    assert len(ids) == len(set(ids))
    assert {link.removeprefix("#") for link in links} <= set(ids)
    assert all(link.startswith("#") for link in links)
    main = [e[1]["id"] for e in find(full(), "section") if "id" in e[1]]
    assert main == [anchor for anchor, _, _ in page.SECTIONS]


def test_sections_without_results_are_left_out():
    left = [e[1]["id"] for e in find(bare(), "section") if "id" in e[1]]
    needed = [anchor for anchor, _, needs in page.SECTIONS if needs is None]
    assert left == needed
    links = {e[1]["href"] for e in bare() if e[0] == "a"}
    assert links <= {f"#{anchor}" for anchor in [*needed, "content"]}


@pytest.mark.parametrize("make", [full, bare])
def test_the_outline_skips_no_level(make):
    elements = make()
    levels = [int(e[0][1]) for e in elements if re.fullmatch(r"h[1-6]", e[0])]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b <= a + 1 for a, b in itertools.pairwise(levels))
    for tag in ("header", "nav", "main"):
        assert len(find(elements, tag)) == 1
    assert elements[0][1]["lang"] == "en"
    assert next(e for e in elements if e[0] == "a")[1]["href"] == "#content"


def test_tables_are_told_apart():
    tables = find(full(), "table")
    captions = find(full(), "caption")
    assert len(captions) == len(tables) > 50
    assert all(words(c) for c in captions)
    for th in find(full(), "th"):
        assert th[1]["scope"] in ("col", "row")
        assert words(th) or th[1]["scope"] == "row"


def test_figures_have_words_and_numbers():
    images = find(full(), "img")
    assert len(images) == len(sketches())
    by_alt = {i[1]["alt"]: i[1] for i in images}
    for drawing in sketches():
        image = by_alt[drawing.alt]
        encoded = image["src"].removeprefix("data:image/svg+xml;base64,")
        assert base64.b64decode(encoded) == drawing.svg
        assert int(image["width"]) > 200
        assert int(image["height"]) > 90
    with_table = [d for d in sketches() if d.kind not in ("gaps", "quadrant")]
    assert len(find(full(), "details")) == len(with_table)


def test_nothing_is_fetched():
    for tag, attributes, _ in full():
        assert tag not in ("link", "iframe", "object", "embed", "base", "form")
        for name, value in attributes.items():
            assert not name.startswith("on")
            assert name != "style"
            if name in ("src", "href"):
                assert value.startswith(("#", "data:image/svg+xml;base64,"))
    [style] = find(full(), "style")
    assert "url(" not in words(style)
    assert "@import" not in words(style)
    assert "://" not in report()


def test_only_the_pages_own_script_may_run():
    [script] = find(full(), "script")
    digest = hashlib.sha256("".join(script[2]).encode()).digest()
    policy = find(full(), "meta", **{"http-equiv": "Content-Security-Policy"})
    content = policy[0][1]["content"]
    assert f"script-src 'sha256-{base64.b64encode(digest).decode()}'" in content
    assert "default-src 'none'" in content
    assert "unsafe-inline" not in content.split("script-src")[1]
    # The policy must stand before anything that it governs.
    order = [e[0] for e in full()]
    assert order.index("meta") < order.index("style")


def test_names_are_text():
    assert report().count("<script") == 1
    assert HOSTILE.replace("<", "&lt;").replace(">", "&gt;") in report()
    headers = [words(th) for th in find(full(), "th", scope="row")]
    assert headers.count(HOSTILE) > 4
    assert FORMULA in headers


@pytest.mark.parametrize(
    "path",
    [
        ("title",),
        ("command",),
        ("data", "source"),
        ("data", "outcome", "column"),
        ("data", "models", 0, "name"),
        ("data", "models", 0, "threshold_source"),
        ("data", "attributes", 0, "name"),
        ("data", "attributes", 0, "levels", 0),
        ("quality", 0, "message"),
        ("gate", 0, "rule"),
        ("gate", 0, "reason"),
        ("cohort", 0, "group"),
        ("gaps", 0, "highest"),
        ("discovery", 0, "group"),
        ("summary", 0),
        ("limits", 0),
        ("tripod_ai", 0, "topic"),
        ("settings", "correction"),
        ("settings", "note"),
        ("versions", "jax"),
    ],
)
def test_no_entry_becomes_markup(path):
    attack = "\"><img src=x onerror='alert(1)'></script><script>alert(2)</script>"
    document = copy.deepcopy(small())
    entry = document
    for step in path[:-1]:
        entry = entry[step]
    entry[path[-1]] = attack
    text = page.page(document, ())
    assert attack not in text
    assert text.count("<script") == 1
    assert find(read(text), "img") == []
    assert "&lt;img src=x" in text


def test_a_figures_words_are_escaped():
    drawing = Drawing("gaps", "risk", "", "x", "<b>", '"><script>', b"<svg/>")
    text = page.page(small(), [drawing])
    assert text.count("<script") == 1
    assert "&lt;b&gt;" in text


@pytest.mark.slow
def test_the_same_document_gives_the_same_page():
    assert page.page(example(), sketches()) == report()


def test_groups_that_are_not_assessed_say_so():
    cells = [words(e) for e in full() if e[0] in ("td", "span")]
    for phrase in ("too few patients to assess", "suppressed: small cell", "no rows"):
        assert phrase in cells


def test_the_whole_comes_first_in_tables_of_performance():
    assert report().count('class="pinned"') == 16


@pytest.mark.parametrize(
    ("statuses", "kind"),
    [
        (["failed", "undecided"], "failed"),
        (["passed", "undecided"], "undecided"),
        (["passed"], "passed"),
        ([], "neutral"),
    ],
)
def test_the_verdict_follows_the_gate(statuses, kind):
    rule = small()["gate"][0]
    gate = [rule | {"status": status} for status in statuses]
    gaps = [
        g | {"lower": 0.0, "upper": 1.0, "p_adjusted": 1.0} for g in small()["gaps"]
    ]
    text = page.page(small() | {"gate": gate, "gaps": gaps}, ())
    assert f'class="verdict {kind}"' in text


def test_the_verdict_without_a_gate_claims_no_more_than_was_found():
    def headline(document):
        [found] = [
            e for e in read(page.page(document, ())) if e[1].get("class") == "headline"
        ]
        return words(found)

    quiet = small() | {"gate": []}
    gaps = [g | {"lower": 0.0, "upper": 1.0, "p_adjusted": 1.0} for g in quiet["gaps"]]
    assert "does not prove equality" in headline(quiet | {"gaps": gaps})
    gaps = [g | {"lower": 0.1, "p_adjusted": 0.0, "status": "ok"} for g in gaps]
    assert "by more than chance explains" in headline(quiet | {"gaps": gaps})
    # One gap of any metric is enough, and a passed gate does not cover it.
    rest = [g | {"lower": 0.0, "upper": 1.0, "p_adjusted": 1.0} for g in gaps]
    rest[-1] = gaps[-1] | {"metric": "calibration_slope_difference"}
    passed = [small()["gate"][0] | {"status": "passed"}]
    shown = quiet | {"gaps": rest, "gate": passed}
    assert "by more than chance explains" in headline(shown)
    assert 'class="verdict neutral"' in page.page(shown, ())
    gaps = [g | {"status": "insufficient"} for g in gaps]
    assert "too few patients" in headline(quiet | {"gaps": gaps})
    assert "too few patients" in headline(empty())


def test_no_compliance_is_claimed():
    text = " ".join("".join(e[2]) for e in full() if e[0] == "body")
    assert "support evidence for" in text
    assert not re.search(r"compl(y|ies|ian)", text, re.IGNORECASE)


def test_how_to_reproduce():
    [section] = find(full(), "section", id="reproduce")
    for phrase in (
        "fairjax audit predictions.csv --outcome died",
        "jax",
        "0.10.2",
        example()["data"]["sha256"],
        "Seed",
        "2000",
    ):
        assert phrase in words(section)


def test_missing_values_are_counted_and_what_became_of_them():
    told = words(find(full(), "section", id="audited")[0])
    for text in ("died: 0", "risk: 12 (left out)", "race: suppressed (a group of"):
        assert text in told


def test_an_audit_of_a_frame_has_no_command():
    [pre] = find(read(page.page(small(), ())), "pre")
    assert words(pre) == small()["command"]
    document = small() | {"command": None}
    assert find(read(page.page(document, ())), "pre") == []


def test_decisions_without_threshold():
    document = build(rows=300, models=1, only=("sex",))
    document["data"]["models"][0]["threshold"] = None
    assert "decisions as given" in page.page(document, ())


# Contrast of text with what it stands on, as WCAG 2.2 computes it.
PAIRS = [
    *((ink, back) for ink in ("ink", "soft", "link") for back in ("paper", "stripe")),
    ("ink", "back"),
    ("soft", "back"),
    ("link", "back"),
    ("ink", "head"),
    ("soft", "head"),
    *((kind, f"{kind}-back") for kind in ("bad", "warn", "good")),
    *(("ink", f"{kind}-back") for kind in ("bad", "warn", "good", "calm")),
]


def luminance(colour):
    digits = colour * 2 if len(colour) == 3 else colour
    parts = [int(digits[n : n + 2], 16) / 255 for n in (0, 2, 4)]
    linear = [
        p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", ["light", "dark", "print"])
def test_contrast_meets_level_aa(theme):
    style = _templates.text_of("render/report.css")
    blocks = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    assert len(blocks) == 3
    chosen = blocks[["light", "dark", "print"].index(theme)]
    colours = dict(re.findall(r"--([\w-]+): #(\w+);", chosen))
    for ink, back in PAIRS:
        light, dark = sorted(
            (luminance(colours[ink]), luminance(colours[back])), reverse=True
        )
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (ink, back)
