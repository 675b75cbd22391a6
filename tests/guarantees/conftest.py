"""The upstream that the crash proofs share with nobody else: a process of its own, which counts what reaches it."""

from tests.gate.conftest import manifest, shared_upstream, upstream

__all__ = ["manifest", "shared_upstream", "upstream"]
