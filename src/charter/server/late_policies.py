"""The policy sets of a process that may never ask them: read, and Cedar loaded, at the first question."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from charter.gate.parts import Tools
from charter.model.base import JsonObject
from charter.model.policy import Action, Decision, Facts
from charter.model.principal import Principal

if TYPE_CHECKING:
    from charter.server.evaluator import PolicySets


class LatePolicies:
    """An ``Evaluator``. Every question raises ``Misconfigured`` or ``InvalidInput`` where the policies do not load."""

    def __init__(self, folder: Path | None, shadow_folder: Path | None, tools: Tools) -> None:
        self._folder, self._shadow_folder, self._tools = folder, shadow_folder, tools

    @cached_property
    def sets(self) -> PolicySets:
        """The policy sets themselves."""
        from charter.server.evaluator import PolicySets

        return PolicySets(self._folder, self._shadow_folder, self._tools.all())

    @property
    def policy_set_hash(self) -> str:
        """The hash of the set in force."""
        return self.sets.policy_set_hash

    def evaluate(self, facts: Facts) -> Decision:
        """The decision of the set in force."""
        return self.sets.evaluate(facts)

    def shadow(self, facts: Facts, decision: Decision) -> JsonObject | None:
        """What the candidate set would have decided, or None when there is none."""
        return self.sets.shadow(facts, decision)

    def could_ever(self, facts: Facts) -> bool:
        """Whether the set in force could ever permit this."""
        return self.sets.could_ever(facts)

    def could_ever_of(self, principal: Principal, action: Action) -> bool:
        """Whether the set in force could ever permit this principal this verb."""
        return self.sets.could_ever_of(principal, action)
