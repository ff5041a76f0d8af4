"""Imports of optional dependencies, with an error that says how to install them."""

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def extra(name: str, *, needed_by: str) -> Iterator[None]:
    """Makes failing imports in its context say how to install the missing extra.

    Args:
      name: Name of the extra.
      needed_by: The part of fairjax that needs the extra, as a subject in the message.

    Raises:
      ModuleNotFoundError: A module is missing; the message has the command that
        installs it.

    Example:
      >>> with extra("mitigation", needed_by="mitigation"):
      ...     import sklearn
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"The module {error.name!r} is missing, which {needed_by} needs: "
            f"pip install 'fairjax[{name}]'.",
            name=error.name,
        ) from error
