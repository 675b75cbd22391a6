"""One long run with everything in it, as text that another process must give byte for byte (``-m tests.workflows.story``)."""

from __future__ import annotations

from charter.model.canonical import canonical
from tests.workflows.build import BOB, CAT, Run, asked, effect_of, template

FLOW = template(
    {"id": "work", "type": "agent", "allowed_tools": ["*"], "instructions": "About {{ trigger }}"},
    {
        "id": "ok",
        "type": "approval",
        "question": "Go? {{ trigger }}",
        "show": "{{ trigger }}",
        "if": "size(trigger) > 3",
    },
    {
        "id": "save",
        "type": "action",
        "tool": "box__write",
        "arguments": {"all": "{{ steps }}", "text": "{{ trigger }}"},
    },
    output={"result": "{{ steps.save.output }}", "said": "It was {{ trigger }}."},
)


def told() -> Run:
    """The run at its end."""
    run = Run(FLOW).start({key: [key, {"z": 1, "a": 2}] for key in "hgfedcba"}, key="k")
    effect = effect_of(run.invoke("read", {"b": 1, "a": 2}))
    run.instance = "srv_2"
    run.recover(effect.effect_id)
    run.outcome(effect.effect_id, attempt=2, output={"y": 1, "x": 2})
    proposal_id, approval_id = asked(run, "pay", {"amount": 5})
    run.answer(approval_id, by=BOB)
    run.answer(approval_id, by=CAT)
    effect = effect_of(run.invoke(proposal_id=proposal_id))
    run.outcome(effect.effect_id, "unknown")
    run.resolve(effect.effect_id, "did_not_run")
    _, approval_id = asked(run, "write", {"text": "a"})
    run.answer(approval_id, "edit", edited={"text": "b"})
    run.complete({"b": 1, "a": {"d": 1, "c": 2}})
    run.answer(run.approval_id())
    run.run_step("save")
    run.answer(run.approval_id())
    run.outcome(effect_of(run.run_step("save")).effect_id, output={"written": True})
    return run


def text() -> str:
    """Every event as canonical JSON, one a line, and what the caller sees at the end in the order it comes."""
    run = told()
    lines = [canonical([event.type, event.time, event.data.model_dump(mode="json")]).decode() for event in run.log]
    return "\n".join([*lines, run.context().model_dump_json()]) + "\n"


if __name__ == "__main__":
    print(text(), end="")
