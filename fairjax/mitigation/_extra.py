"""What the extra ``mitigation`` installs, asked for in words where it is missing."""

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def mitigation_extra() -> Iterator[None]:
    """Imports within it that fail say how to install what is missing.

    Raises:
      ModuleNotFoundError: A module is missing, with the command that installs it.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"The module {error.name!r} is missing, which mitigation needs: "
            "pip install 'fairjax[mitigation]'.",
            name=error.name,
        ) from error
