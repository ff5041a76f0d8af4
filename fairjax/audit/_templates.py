"""Templates of the audit: the page, and the sentences in ``words/``."""

import functools
from importlib import resources
from typing import TYPE_CHECKING, Any

from fairjax.audit import formats
from fairjax.audit._errors import among, listed, require, row_count
from fairjax.audit.glossary import phrase

if TYPE_CHECKING:
    import jinja2

_FILTERS = ("count", "interval", "joined", "level", "number", "p_value", "percent")
_FILTERS += ("plural", "some")


def text_of(name: str) -> str:
    """Reads a text file of the audit, such as ``words/limits.txt``.

    Lines end in a line feed.

    Example:
      >>> text_of("words/limits.txt").split(",")[0]
      'The outcome column is taken as the truth. Where diagnosis'
    """
    data = resources.files("fairjax.audit").joinpath(name).read_bytes()
    return data.decode("utf-8").replace("\r\n", "\n")


@functools.cache
def environment(*, escape: bool, strict: bool = True) -> "jinja2.Environment":
    """Returns the environment of templates; functions of `formats` are filters.

    Args:
      escape: Whether to escape text for HTML.
      strict: Whether an undefined name is an error; if false, it is empty text.
    """
    require("jinja2")
    # Imported here, so that the help does not wait for Jinja.
    import jinja2

    made = jinja2.Environment(
        loader=jinja2.FunctionLoader(text_of),
        autoescape=escape,
        undefined=jinja2.StrictUndefined if strict else jinja2.Undefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters |= {name: getattr(formats, name) for name in _FILTERS}
    for word in (listed, phrase, row_count, among):
        made.filters[word.__name__] = word
    return made


@functools.cache
def titled(name: str) -> "dict[str, tuple[str, jinja2.Template]]":
    """Returns title -> kind and template of paragraphs that begin ``kind title:``."""
    found = {}
    for paragraph in text_of(f"words/{name}.txt").split("\n\n"):
        head, _, text = paragraph.partition(": ")
        kind, title = head.split()
        found[title] = kind, _template(text)
    return found


@functools.cache
def _paragraphs(name: str) -> "tuple[jinja2.Template, ...]":
    return tuple(map(_template, text_of(f"words/{name}.txt").split("\n\n")))


def _template(text: str) -> "jinja2.Template":
    # Joins lines before rendering, so that names of groups keep their spaces.
    return environment(escape=False).from_string(" ".join(text.split()))


def sentences(name: str, **facts: Any) -> list[str]:
    """Renders the paragraphs of a file of ``words/``.

    Each paragraph is a template; empty results are left out.

    Args:
      name: Name of the file, without folder and suffix.
      facts: Variables of the templates.
    """
    found = [template.render(facts) for template in _paragraphs(name)]
    return [text for text in found if text]
