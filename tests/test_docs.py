"""The documents: their code runs, their links lead somewhere, their tables are real."""

import functools
import inspect
import pkgutil
import re
from pathlib import Path

import numpy as np
import optax
import pytest

import fairjax
from experiments.reporting import docs
from fairjax import evaluation, methods, steps
from tests.conformance import DEPRECATED

REPORTS = docs.ROOT / "docs" / "results"
PAGES = sorted((docs.ROOT / "docs").rglob("*.md"))
DOCUMENTS = [
    docs.ROOT / "README.md",
    *(page for page in PAGES if not page.is_relative_to(REPORTS)),
]
COMMANDS = (
    'pip install -e ".[experiments]" && python -m experiments.fairgrad',
    'pip install -e ".[test]" && pytest',
)


def name(document: Path) -> str:
    return document.relative_to(docs.ROOT).as_posix()


def text(document: Path) -> str:
    return document.read_text(encoding="utf-8")


def test_readme_opens_with_the_two_commands():
    blocks = re.findall(r"```sh\n(.*?)\n```", text(docs.ROOT / "README.md"), re.DOTALL)
    assert tuple(blocks[:2]) == COMMANDS


# The others compile many programs.
QUICK = ("docs/data.md",)


@pytest.mark.parametrize(
    "document",
    [
        d if name(d) in QUICK else pytest.param(d, marks=pytest.mark.slow)
        for d in DOCUMENTS
        if "```python" in text(d)
    ],
    ids=name,
)
def test_python_blocks_run(document, capsys, monkeypatch):
    # Of fewer resamples, whose metrics are most of what the blocks compute.
    few = functools.partial(
        evaluation.compare_methods, num_bootstrap=20, num_permutations=20
    )
    monkeypatch.setattr(evaluation, "compare_methods", few)
    blocks = re.findall(r"```python\n(.*?)```", text(document), re.DOTALL)
    namespace: dict[str, object] = {}
    exec(compile("\n".join(blocks), name(document), "exec"), namespace)
    if name(document) == "README.md":
        assert "weights" in capsys.readouterr().out


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_links_lead_to_files(document):
    links = re.findall(r"\]\(([^)#:]+)\)", text(document))
    missing = [link for link in links if not (document.parent / link).exists()]
    assert not missing


def named_in(document):
    return set(re.findall(r"\bfairjax((?:\.[A-Za-z]\w*)+)", text(document)))


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_names_exist(document):
    for path in named_in(document):
        pkgutil.resolve_name(f"fairjax{path}")


def test_every_method_and_step_is_in_the_table():
    table = text(docs.ROOT / "docs" / "reconcilers" / "README.md")
    rows = [line.split("|") for line in table.splitlines() if line.startswith("| [")]
    made = {row[2].strip(" `") for row in rows} - {"none"}
    public = {n for n in methods.__all__ if inspect.isfunction(getattr(methods, n))}
    assert made == public - set(DEPRECATED)
    used = {found for row in rows for found in re.findall(r"`(\w+)`", row[3])}
    assert used == set(steps.__all__) - {"Order", *DEPRECATED}


def test_equivalent_lines_can_be_called():
    """The code in the tables for users of other libraries, such as they have it."""
    document = text(docs.ROOT / "docs" / "coming-from.md")
    lines = re.findall(r"`((?:fairjax|optax)\.[^`]*num_objectives=K[^`]*)`", document)
    assert len(lines) > 40
    options = {"alpha": 1.0, "c": 0.5, "labels": "own", "leak": 0.1, "n": 4}
    shares = np.array([0.5, 0.5], np.float32)
    given = {"K": 2, "p": shares, "weights": shares, "step": steps.combine(), **options}
    tx = fairjax.upgrad(num_objectives=2)
    names = {"fairjax": fairjax, "optax": optax, "steps": steps, "tx": tx, **given}
    for line in lines:
        made = eval(line, dict(names))
        assert isinstance(made, optax.GradientTransformation), line


@pytest.mark.parametrize("document", docs.DOCUMENTS, ids=str)
def test_tables_are_those_that_the_command_writes(document):
    written = text(docs.ROOT / document)
    assert re.search(r"^\| (ERM|Joint training|Base) \|", written, re.MULTILINE)
    assert docs.fill(written, docs.ROOT / docs.RESULTS) == written


@pytest.mark.parametrize("document", docs.DOCUMENTS, ids=str)
def test_tables_come_from_full_runs(document):
    repeats = re.findall(r"\. (\d+) x 5-fold", text(docs.ROOT / document))
    assert repeats
    # Models of these are trained once a fold: four repeats are 20 splits.
    once = ("multifair.md", "intersectional.md")
    assert min(map(int, repeats)) >= (4 if document.name in once else 20)


def test_a_document_without_results_is_an_error(tmp_path):
    marked = "<!-- results: support2 -->\n<!-- end -->"
    with pytest.raises(ValueError, match="support2"):
        docs.fill(marked, tmp_path)
