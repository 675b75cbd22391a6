"""Random workflows and what may happen to them, in any order: each choice is one of a ``Random`` that is handed in.

``python -m tests.workflows.wandering SEED…`` prints the whole record of each seed's run, for another process to compare.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import partial
from random import Random
from typing import Any

from charter.errors import CharterError
from charter.model import commands as cmd
from charter.model.canonical import canonical
from charter.model.template import ExternalStep, Template
from charter.workflows import children, views
from charter.workflows import decide as rules
from charter.workflows.steps import step_named
from tests.workflows.build import BOB, CAT, DAY, ENGINE, TOOLS, Run, tool

Move = Callable[[], object]
STEPS = 6
ENDS = ["fail", "reject", "skip"]
UNDOING: list[dict[str, Any]] = [
    {"type": "action", "tool": "box__write", "retry": {"attempts": 2, "backoff_seconds": 60}},
    {"type": "external", "url": "https://example.com/undo", "method": "DELETE"},
    {"type": "notification", "email": {"to": ["ann@example.com"], "subject": "Not so", "text": "It is undone."}},
    {"type": "workflow", "template": "other", "retry": {"attempts": 2, "backoff_seconds": 60}},
    {"type": "agent", "allowed_tools": ["*"], "expires_after_seconds": DAY},
]


KINDS = [
    *["agent", "phase", "action", "action", "action", "approval", "condition", "wait", "signal", "poll", "workflow"],
    *["external", "called_back", "notification", "said"],
]


def step_of(random: Random) -> dict[str, Any]:
    """A step of any type, with what may go wrong in it, and what follows when it does."""
    kind = random.choice(KINDS)
    failing = {"on_failure": random.choice(["skip", "fail_workflow", "human_review"])}
    limited = (
        {"timeout_seconds": random.choice([60, 3600]), "on_timeout": random.choice(ENDS)}
        if random.random() < 0.3
        else {}
    )
    undone = {"compensate": {"tool": f"box__{random.choice(['read', 'write'])}"}} if random.random() < 0.5 else {}
    tried = {"retry": {"attempts": 2, "backoff_seconds": 60}} if random.random() < 0.3 else {}
    named = random.choice(["read", "read", "write", "drop"])
    url = "https://example.com/{{ trigger.id }}" if random.random() < 0.1 else "https://example.com"
    made: dict[str, dict[str, Any]] = {
        "agent": {"type": "agent", "allowed_tools": ["*"], "expires_after_seconds": DAY, **failing, **tried, **undone},
        "phase": {**_phase(random), **failing, **tried, **undone},
        "action": {"type": "action", "tool": f"box__{named}", **failing, **limited, **undone, **tried},
        "approval": _approval(random),
        "condition": {
            "type": "condition",
            "expression": random.choice(["trigger.yes", "!trigger.yes", "trigger.none"]),
            **failing,
        },
        "wait": {"type": "wait", "seconds": random.choice([0, 60])},
        "signal": {"type": "wait", "signal": {"type": "word"}, **limited, **failing},
        "poll": {
            "type": "wait",
            "poll": {"tool": "box__read", "until": "result.ok", "every_seconds": 60, "attempts": 3},
            **limited,
            **failing,
        },
        "workflow": {"type": "workflow", "template": "other", **failing, **limited, **undone, **tried},
        "external": {"type": "external", "url": url, **failing, **undone, **tried},
        "called_back": {"type": "external", "url": url, "callback": {"timeout_seconds": 3600}, **failing, **tried},
        "notification": {
            "type": "notification",
            "email": {"to": ["ann@example.com"], "subject": "So", "text": "It is {{ trigger.yes }}."},
            "wait": random.random() < 0.5,
            **failing,
            **undone,
            "retry": {"attempts": random.choice([1, 2]), "backoff_seconds": 60},
        },
        "said": {
            "type": "signal",
            "signal": {"type": "done", "data": random.choice([{"so": True}, "{{ trigger.none }}"])},
            **failing,
        },
    }
    return made[kind]


def _phase(random: Random) -> dict[str, Any]:
    """Work behind a gate: judged at once, by evidence, and by people."""
    checks = [
        {"id": "at_once", "expression": "artifacts.plan == 'agent'"},
        {"id": "looked", "expression": "evidence.ok", "evidence": {"tool": "box__read"}},
        {"id": "asked", "question": random.choice(["Good?", "Good, {{ artifacts.plan }}?", "{{ artifacts.none }}?"])},
    ]
    gate = {
        "checks": [check for check in checks if random.random() < 0.5],
        "approval": {"requirements": [{"approvers": 1}]},
        "attempts": random.choice([1, 2]),
        "timeout_seconds": 3600,
        "on_timeout": random.choice(["reject", "fail", "return", "human_review"]),
        "on_reject": random.choice(["reject", "return"]),
    }
    return {
        "type": "agent",
        "artifacts": [{"name": "plan"}],
        "gate": gate,
        "expires_after_seconds": DAY,
        "max_visits": 2,
    }


def _approval(random: Random) -> dict[str, Any]:
    shown = {"show": {"cents": "{{ trigger.yes }}"}, "amounts": ["cents"]} if random.random() < 0.1 else {}
    failing = {"on_timeout": "reject", "on_failure": random.choice(["fail_workflow", "human_review"])}
    if random.random() < 0.6:
        failing = {"on_timeout": "fail", "on_failure": random.choice(["fail_workflow", "human_review", "skip"])}
    again = {"retry": {"attempts": 2, "backoff_seconds": 60}} if random.random() < 0.5 else {}
    return {
        "type": "approval",
        "question": "Go?",
        "on_reject": random.choice(["reject_workflow", "fail", "continue"]),
        **failing,
        **(again if failing["on_timeout"] == "fail" else {}),
        **shown,
    }


def template_of(random: Random) -> Template:
    """A random DAG; some steps have a condition, and conditions branch."""
    steps: list[dict[str, Any]] = []
    for number in range(random.randint(1, STEPS)):
        needs = [step["id"] for step in steps if random.random() < 0.4]
        step = {"id": f"s{number}", "needs": needs, **step_of(random)}
        if random.random() < 0.15:
            step["if"] = random.choice(["trigger.yes", "!trigger.yes", "trigger.none"])
        steps.append(step)
    for step in steps:
        if step["type"] == "condition":
            after = [other["id"] for other in steps if step["id"] in other["needs"]]
            step["if_true"] = [key for key in after if random.random() < 0.5]
            step["if_false"] = [key for key in after if key not in step["if_true"]]
    undone = [step for step in steps if "compensate" in step]
    if undone and random.random() < 0.4:
        for step in undone[: random.randint(1, 2)]:
            step["compensate"] = {"step": "undo"}
        steps.append({"id": "undo", **random.choice(UNDOING)})
    return Template.model_validate({"name": "t", "version": "1", "steps": steps})


def moves(run: Run) -> Iterator[tuple[str, Move]]:
    """What somebody may do to the run now, and the time; the likeliest way to its end comes first."""
    state = run.state
    if state.status == "paused":
        yield "resume", partial(run.hold, False)
    for key in children.strays(state):
        yield "stop child", partial(_end_child, run, key, "cancelled")
    for key in rules.runnable_steps(state):
        yield from _of_step(run, key)
    for key, effect in state.effects.items():
        yield from _of_effect(run, key, effect.status, effect.invoke.attempt)
    yield from _of_others(run)
    if state.moving:
        yield "signal", partial(run.signal, "word", id_=f"s{len(run.log)}")
    yield "time", lambda: run.wait(60).advance()
    yield "a day", lambda: run.wait(DAY).advance()


def _of_others(run: Run) -> Iterator[tuple[str, Move]]:
    """People, agents and children."""
    state = run.state
    for key in [key for key, item in state.approvals.items() if item.status == "pending"]:
        yield "approve", partial(run.answer, key, by=BOB)
        yield "reject", partial(run.answer, key, "reject", by=CAT)
    for key in [key for key, item in state.children.items() if item.status == "running"]:
        yield from ((f"child {end}", partial(_end_child, run, key, end)) for end in ("completed", "failed", "rejected"))
    for key in [key for key, item in state.invocations.items() if item.status == "open"]:
        yield "complete", partial(run.complete, {"plan": "agent"}, invocation=key)
        yield "hand in", partial(run.complete, {"plan": "nothing"}, invocation=key)
    awaited = [key for key, step in state.driven_steps() if step.status in ("open", "awaiting") and not step.callback]
    for key in [key for key in awaited if _asks_back(run, key)]:
        yield "call back", partial(run.callback, key, {"ok": True}, id_=f"m{len(run.log)}")
    for key, step in [(key, step) for key, step in state.driven_steps() if step.status == "review"]:
        likely = ("fail",) if step.step_type == "approval" else ()
        for resolution in (*likely, "skip", "retry", "supply", "fail"):
            output = True if step.step_type == "condition" else {"by": "hand"}
            yield resolution, partial(run.review, key, resolution, output=output)


def _asks_back(run: Run, key: str) -> bool:
    step = step_named(run.template, key)
    return isinstance(step, ExternalStep) and step.callback is not None


def rare(run: Run) -> Iterator[tuple[str, Move]]:
    """What interferes."""
    yield "cancel", run.cancel
    yield "pause", partial(run.hold, True)
    yield "retry", run.retry
    yield "crash", partial(_crash, run)


def _of_step(run: Run, key: str) -> Iterator[tuple[str, Move]]:
    child_id = children.planned(run.state, key)
    if child_id is None:
        yield f"run {key}", partial(_run_step, run, key)
        return
    confirm = cmd.ConfirmChild(workflow_id=run.state.workflow_id, child_workflow_id=child_id, template="other@1")
    yield "start child", lambda: run.decide(confirm, run.given(ENGINE))
    yield "no child", partial(_end_child, run, child_id, "never_started")


def _run_step(run: Run, key: str) -> None:
    """As the gate does: a call that cannot be prepared is the step's failure."""
    try:
        run.run_step(key)
    except CharterError as error:
        command = cmd.RunStep(workflow_id=run.state.workflow_id, step_id=key)
        run.kept(rules.unprepared(run.state, command, run.given(ENGINE), error))


def _of_effect(run: Run, key: str, status: str, attempt: int) -> Iterator[tuple[str, Move]]:
    if status == "dead_lettered":
        yield "settled", partial(run.resolve, key, "did_not_run")
        yield "sent again", partial(run.resolve, key, "retry")
        return
    if status == "in_doubt":
        for resolution in ("ran", "did_not_run", "retry"):
            yield resolution, partial(run.resolve, key, resolution, output={"ok": True})
        return
    yield "succeeded", partial(run.outcome, key, attempt=attempt, output={"ok": True})
    yield "not yet", partial(run.outcome, key, attempt=attempt, output={"ok": False})
    yield "failed", partial(run.outcome, key, "failed", attempt=attempt)
    yield "an error", partial(run.outcome, key, attempt=attempt, is_error=True)
    yield "unknown", partial(run.outcome, key, "unknown", attempt=attempt)


def _end_child(run: Run, child_id: str, status: Any) -> None:
    end = cmd.EndChild(workflow_id=run.state.workflow_id, child_workflow_id=child_id, status=status, reason="so")
    run.decide(end, run.given(ENGINE))


def _crash(run: Run) -> None:
    dead, run.instance = run.instance, f"srv_{len(run.log)}"
    for effect_id in list(run.state.effects):
        run.recover(effect_id, dead=dead)


def wander(random: Random, look: Callable[[Run], None] = lambda run: None) -> Run:
    """A run to its end: a while at random, then straight on. ``look`` is shown it after each move."""
    tools = {**TOOLS, "box__read": tool("read", idempotent=True)}
    run = Run(template_of(random), tools=tools).start({"yes": random.random() < 0.7})
    for _ in range(random.randint(0, 30)):
        among = list(rare(run)) if random.random() < 0.06 else list(moves(run))
        random.choice(among)[1]()
        look(run)
    for _ in range(300):
        if not (run.state.live or rules.wake_at(run.state)):
            break
        next(move for name, move in moves(run) if name not in ("signal",) or _waits_for_a_word(run))()
        look(run)
    return run


def _waits_for_a_word(run: Run) -> bool:
    return any(item.what == "signal" for item in views.blocked_by(run.state))


def text(seed: int) -> str:
    """The run of this seed, event by event, and what is shown of it at the end."""
    run = wander(Random(seed))
    lines = [canonical([event.type, event.time, event.data.model_dump(mode="json")]).decode() for event in run.log]
    return "\n".join([*lines, run.context().model_dump_json()]) + "\n"


if __name__ == "__main__":
    for each in sys.argv[1:]:
        print(text(int(each)), end="")
