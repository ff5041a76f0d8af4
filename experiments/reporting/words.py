"""Sentences of the reports, from a file ``words.txt`` beside each system's modules.

A paragraph is ``name: text``; `str.format` fills the text's fields.
"""

from pathlib import Path


def read(module: str) -> dict[str, str]:
    """Reads name -> text from the words beside a module's file.

    Example:
      >>> read(__file__)["not_run"]
      'The methods needed for this answer were not run.'
    """
    text = Path(module).with_name("words.txt").read_text(encoding="utf-8")
    paragraphs = (" ".join(lines.split()) for lines in text.strip().split("\n\n"))
    return dict(paragraph.split(": ", 1) for paragraph in paragraphs)
