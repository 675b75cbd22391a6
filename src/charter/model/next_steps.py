"""What to do next, in the words of the door at which somebody stands. All that is known of it is here.

Next steps are written for agents, who are told most of them: by the verbs of the MCP door. On the command line the same is
said with commands; over plain HTTP, where there are neither, without them. The doors ask here when they show an error or a
reply; what is on record keeps the first form.
"""

from __future__ import annotations

import re
from itertools import takewhile
from typing import Final, Literal

from charter.errors import NotFound, Refused

Door = Literal["commands", "http"]

NOT_PERMITTED: Final = (
    "Ask the operator, or ask for something that the policies permit; describe_tools lists what may be used."
)
AS_DESCRIBED: Final = (
    "Correct the fields named in detail.problems as describe_tools shows the schema, and send it again."
)

_SAID: Final[dict[str, dict[Door, str]]] = {
    NotFound.default_next_step: {
        "commands": "Check the identifier; `charter workflows list`, `charter approvals list` and `charter tools list` "
        "show what exists.",
        "http": "Check the identifier: under it there is nothing that this credential may know of.",
    },
    NOT_PERMITTED: {
        "commands": "Use a credential to which the policies permit it, or ask the operator; `charter policy explain` "
        "tells what decides.",
        "http": "Ask the operator for a policy that permits it to this credential.",
    },
    Refused.default_next_step: {
        "commands": "Run `charter workflows show WORKFLOW` to see the state and what waits for whom.",
        "http": "Ask the operator how the workflow stands; sending it again changes nothing.",
    },
    AS_DESCRIBED: {
        "commands": "Correct the arguments as `charter tools show TOOL` shows the schema, and send them again.",
        "http": "Correct the fields named in errors.problems, and send it again.",
    },
}
_COMMANDS: Final = {
    "get_workflow": "workflows show WORKFLOW",
    "describe_tools": "workflows actions WORKFLOW",
    "agent_actions": "workflows actions WORKFLOW",
    "cancel_workflow": "workflows cancel WORKFLOW",
    "advance_workflow": "workflows advance WORKFLOW",
    "tools/list": "tools list",
}
_AGENTS: Final = ("start_workflow", "propose_action", "request_approval", "invoke_tool", "complete_step")
"""What agents alone do: there is no command for it."""
VERBS: Final = (*_COMMANDS, *_AGENTS)
_VERB: Final = re.compile(rf"(?:\b(?P<call>[Cc]all) )?(?<![\w/])(?P<verb>{'|'.join(VERBS)})\b")
_NOTHING_LEFT: Final = "Ask the operator: this is done by an agent's tools or on the command line, not over this door."


def said_at(door: Door, text: str) -> str:
    """The next step ``text``, as it is said at this door."""
    if not _VERB.search(text):
        return text
    if (known := _SAID.get(text)) is not None:
        return known[door]
    if door == "commands":
        return _VERB.sub(_by_command, text)
    kept = [_before_verbs(sentence) for sentence in re.split(r"(?<=\.) ", text)]
    return " ".join(filter(None, kept)) or _NOTHING_LEFT


def _before_verbs(sentence: str) -> str:
    """The sentence up to the clause that names a verb: what follows that one speaks of it."""
    clauses = list(takewhile(lambda clause: not _VERB.search(clause), re.split(r"(?<=[;:]) ", sentence)))
    whole = " ".join(clauses)
    return f"{whole[:-1]}." if whole.endswith((";", ":")) else whole


def _by_command(found: re.Match[str]) -> str:
    command, call = _COMMANDS.get(found["verb"]), found["call"]
    if command is None:
        do = {"C": "Have the agent call ", "c": "have the agent call "}.get((call or " ")[0], "")
        return do + found["verb"]
    run = {"C": "Run ", "c": "run "}.get((call or " ")[0], "")
    return f"{run}`charter {command}`"
