"""For tests of templates: run one against scripted decisions, without a server (docs/testing-templates.md)."""

from charter.server.simulating import Simulation, simulate, simulated

__all__ = ["Simulation", "simulate", "simulated"]
