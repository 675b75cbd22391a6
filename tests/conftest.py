"""Shared by all tests: async tests run on asyncio through anyio's plugin."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

# No test depends on the wall clock: a busy machine may be slow to draw an example. Nor on luck: what lands is checked on the
# same examples as what is there; `make search` draws others, to find what nobody knows yet.
settings.register_profile("charter", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
settings.register_profile("search", settings.get_profile("charter"), derandomize=False, print_blob=True)
settings.load_profile(os.environ.get("CHARTER_HYPOTHESIS", "charter"))


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"
