"""Fixtures that several files of tests share."""

import jaxtyping
import pytest


@pytest.fixture
def untyped():
    """Lets wrong arguments through to the function's own check, as users have it."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
