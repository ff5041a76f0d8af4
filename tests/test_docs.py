"""The documents: their code runs, their links lead somewhere, their tables are real."""

import re
from pathlib import Path

import pytest

from experiments import docs

DOCUMENTS = sorted([docs.ROOT / "README.md", *(docs.ROOT / "docs").glob("*.md")])
COMMANDS = (
    'pip install -e ".[experiments]" && python -m experiments.fairgrad',
    'pip install -e ".[test]" && pytest',
)


def text(document: Path) -> str:
    return document.read_text(encoding="utf-8")


def test_readme_opens_with_the_two_commands():
    blocks = re.findall(r"```sh\n(.*?)\n```", text(docs.ROOT / "README.md"), re.DOTALL)
    assert tuple(blocks[:2]) == COMMANDS


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda d: d.name)
def test_python_blocks_run(document, capsys):
    blocks = re.findall(r"```python\n(.*?)```", text(document), re.DOTALL)
    namespace: dict[str, object] = {}
    exec(compile("\n".join(blocks), document.name, "exec"), namespace)
    if document.name == "README.md":
        assert "weights" in capsys.readouterr().out


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda d: d.name)
def test_links_lead_to_files(document):
    links = re.findall(r"\]\(([^)#:]+)\)", text(document))
    missing = [link for link in links if not (document.parent / link).exists()]
    assert not missing


@pytest.mark.parametrize("document", docs.DOCUMENTS, ids=str)
def test_tables_are_those_that_the_command_writes(document):
    written = text(docs.ROOT / document)
    assert "| ERM |" in written
    assert docs.fill(written, docs.ROOT / docs.RESULTS) == written


@pytest.mark.parametrize("document", docs.DOCUMENTS, ids=str)
def test_tables_come_from_full_runs(document):
    repeats = re.findall(r"; (\d+) x 5-fold", text(docs.ROOT / document))
    assert repeats
    assert min(map(int, repeats)) >= 20


def test_a_document_without_results_is_an_error(tmp_path):
    marked = "<!-- results: support2 -->\n<!-- end -->"
    with pytest.raises(ValueError, match="support2"):
        docs.fill(marked, tmp_path)
