"""The choke point. ``Gate.handle`` carries out commands, ``Queries`` reads; there is no other way in."""

from charter.gate.gate import Gate
from charter.gate.parts import NO_CONTEXT, CallContext, Evaluator, Limits, Parts
from charter.gate.queries import Queries

__all__ = ["NO_CONTEXT", "CallContext", "Evaluator", "Gate", "Limits", "Parts", "Queries"]
