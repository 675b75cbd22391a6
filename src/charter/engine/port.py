"""What drives the gate over time, whoever does it: the embedded engine now, another one under the same suite.

A driver is made with a ``Gate`` and does nothing but send it commands as the service ``engine`` of a tenant:

- *wake*: ``gate.watchers`` tells which run of this process moved; what other processes did it finds itself;
- *timers*: ``store.due`` lists the runs whose time has come by the gate's clock; ``store.next_wake`` is the next such time;
- *drive*: ``AdvanceWorkflow`` carries a run on and answers the steps to run, then one ``RunStep`` each; with ``run_steps`` it
  runs them itself and goes on with what their outcomes make ready, an outcome and the intents that follow in one commit, and
  answers those that it has to leave; retries, with their backoff, are times of the run like any other, so a driver never
  repeats a step by itself;
- *starts*: while a driver drives it may be the gate's ``driving.carrier``: the calls with which a run begins then have their
  intents in the commit of its start, and the driver runs them;
- *settle the dead*: ``RecoverEffect`` for each effect of a process that is gone.

All of it may be sent twice, late, or by two drivers at once: the gate does it once. Nothing in the gate or below knows who
drives, and a driver keeps nothing that the log does not hold.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from charter.gate import Gate


class Engine(Protocol):
    """Wakes runs, runs their steps, and settles what a dead process left behind.

    A run that cannot be driven (a ``CharterError`` of the gate, a defect of ours) is logged without its contents, left as it
    is on record, tried again later, and hinders no other run. A crash at any point loses nothing and repeats nothing: the
    next driver on the same store goes on from the log. Both hold under several drivers on one store.
    """

    async def recover(self) -> int:
        """Settle the effects of processes that are gone (guarantee 5); answers how many there were.

        Once, before ``run``. Effects of living processes are left alone. Raises ``Unavailable`` when the store does not answer.
        """
        ...

    async def run(self) -> None:
        """Drive until cancelled; times that passed while nobody drove are kept at once, and once.

        Waits for a store that does not answer. Cancelling ends the steps that it runs; each has an end on record, or is
        settled by the ``recover`` of the next process.
        """
        ...

    async def settle(self) -> None:
        """Drive everything that is due now and wait for it; for tests and for commands that run once."""
        ...

    def relay_when(self, wanted: Callable[[], bool]) -> None:
        """Tell the gate's watchers in this process of other processes' commits while ``wanted`` says so."""
        ...


Driver = Callable[[Gate], Engine]
"""Makes the engine of a gate: ``driver(gate)``."""
