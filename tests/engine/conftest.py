"""The same real parts as the gate's tests."""

from tests.gate.conftest import clock, desk, driver, manifest, opened, shared_upstream, shipped, tools, upstream

__all__ = ["clock", "desk", "driver", "manifest", "opened", "shared_upstream", "shipped", "tools", "upstream"]
