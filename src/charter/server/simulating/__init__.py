"""Templates run against scripted decisions, without a server: ``charter simulate`` and :mod:`charter.testing`."""

from charter.server.simulating.outcome import Simulation
from charter.server.simulating.running import simulate, simulated

__all__ = ["Simulation", "simulate", "simulated"]
