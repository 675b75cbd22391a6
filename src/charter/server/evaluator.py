"""The policy sets in force: read from files at the edge, rebuilt when the tools or the files change, swapped whole."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from charter.errors import Misconfigured
from charter.model.base import JsonObject
from charter.model.policy import Action, Decision, Facts
from charter.model.principal import Principal
from charter.model.tool import ToolManifest
from charter.policies import PolicySet, PolicySources, could_ever, could_ever_of, evaluate, load_policy_set
from charter.policies.replay import shadow
from charter.policies.shipped import shipped_sources


def read_policies(folder: Path | None) -> PolicySources:
    """The ``*.cedar`` files of a folder, or the shipped ones. Raises ``Misconfigured`` for a folder without any."""
    if folder is None:
        return shipped_sources()
    try:
        files = {path.name: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.cedar"))}
    except (OSError, UnicodeDecodeError) as error:
        raise Misconfigured(
            f"The policies in {folder.name} cannot be read: {error}", code="policies_unreadable"
        ) from None
    if not files:
        raise Misconfigured(
            f"The policy folder {folder.name} holds no *.cedar files, so everything would be denied.",
            code="no_policies",
            next_step="Run `charter init` for the starter set, or correct policies.folder in charter.toml.",
        )
    return PolicySources.from_files(files)


class PolicySets:
    """What the gate asks. ``reload`` takes new tools and files; a set that does not load leaves the old one in force."""

    def __init__(self, folder: Path | None, shadow_folder: Path | None, tools: Sequence[ToolManifest]) -> None:
        self._folder, self._shadow_folder = folder, shadow_folder
        self.active: PolicySet = load_policy_set(read_policies(folder), tools)
        self.candidate: PolicySet | None = None
        if shadow_folder is not None:
            self.candidate = load_policy_set(read_policies(shadow_folder), tools)

    def reload(self, tools: Sequence[ToolManifest]) -> None:
        """Read the files again for these tools. Raises what loading raises; nothing has changed then."""
        active = load_policy_set(read_policies(self._folder), tools)
        candidate = None
        if self._shadow_folder is not None:
            candidate = load_policy_set(read_policies(self._shadow_folder), tools)
        self.active, self.candidate = active, candidate

    @property
    def policy_set_hash(self) -> str:
        """The hash of the set in force."""
        return self.active.hash

    def evaluate(self, facts: Facts) -> Decision:
        """The decision of the set in force."""
        return evaluate(self.active, facts)

    def shadow(self, facts: Facts, decision: Decision) -> JsonObject | None:
        """What the candidate set would have decided, or None when there is none."""
        return shadow(self.candidate, facts, decision) if self.candidate is not None else None

    def could_ever(self, facts: Facts) -> bool:
        """Whether the set in force could ever permit this principal this tool."""
        return could_ever(self.active, facts)

    def could_ever_of(self, principal: Principal, action: Action) -> bool:
        """Whether the set in force could ever permit this principal this verb, whatever it is about."""
        return could_ever_of(self.active, principal, action)
