"""Shared by all tests: async tests run on asyncio through anyio's plugin."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

# No test depends on the wall clock: a busy machine may be slow to draw an example.
settings.register_profile("charter", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("charter")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"
