"""What an extra installs, asked for in words where it is missing."""

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def extra(name: str, *, needed_by: str) -> Iterator[None]:
    """Imports within it that fail say how to install what is missing.

    Args:
      name: Of the extra.
      needed_by: What needs it, as the message's subject.

    Raises:
      ModuleNotFoundError: A module is missing, with the command that installs it.

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
