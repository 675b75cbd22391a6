"""A template against scripted decisions: the real gate and policies, and nothing else that is real."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from charter.errors import CharterError, Denied, InvalidInput, NotFound
from charter.manifests.definitions import definition_hash
from charter.model.template import Template
from charter.model.tool import ToolManifest
from charter.testing import Simulation, simulate

AT = "2027-01-01T00:00:00Z"
DAY = 86_400


def tool(name: str, output: dict[str, Any] | None = None, **more: Any) -> ToolManifest:
    server, upstream_name = name.split("__")
    schema = {"type": "object"}
    given = {"risk": "low", "side_effects": "none", "idempotent": True, **more}
    hash_ = definition_hash({"name": upstream_name, "inputSchema": schema})
    return ToolManifest(
        name=name,
        server=server,
        upstream_name=upstream_name,
        input_schema=schema,
        output_schema=output,
        definition_hash=hash_,
        **given,
    )


PAY = tool("bank__pay", risk="high", side_effects="irreversible", idempotent=False)
RATE = tool(
    "bank__rate",
    {
        "type": "object",
        "required": ["level", "limit"],
        "properties": {"level": {"enum": ["good", "bad"]}, "limit": {"type": "integer", "minimum": 10}},
        "additionalProperties": False,
    },
)
NOTE = tool("notes__write")


@pytest.fixture(autouse=True)
def _no_installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def template(*steps: dict[str, Any], **more: Any) -> Template:
    return Template.model_validate({"name": "tried", "version": "1", "steps": list(steps), **more})


def run(made: Template, input: dict[str, Any] | None = None, **more: Any) -> Simulation:
    return simulate(made, input, tools=(PAY, RATE, NOTE), at=AT, **more)


def call(id: str, tool: str, **more: Any) -> dict[str, Any]:
    return {"id": id, "type": "action", "tool": tool, **more}


PAYMENT = template(
    {"id": "large", "type": "condition", "expression": "trigger.cents > 1000", "if_true": ["agree"]},
    {"id": "agree", "type": "approval", "question": "Pay?", "requirements": [{"role": "finance", "approvers": 2}]},
    call("pay", "bank__pay", needs=["large", "agree"], arguments={"cents": "{{ trigger.cents }}"}),
)


def test_the_path_is_the_gates_own() -> None:
    two = [{"decision": "approve", "by": name, "roles": ["finance"]} for name in ("ann", "bob")]
    done = run(PAYMENT, {"cents": 2000}, decisions={"approvals": {"agree": two, "bank__pay": "approve"}})
    assert (done.status, done.branches, done.unused, done.refused) == ("completed", {"large": True}, (), ())
    assert [(item["step_id"], item["tool"]) for item in done.asked] == [("agree", None), ("pay", "bank__pay")]
    [made] = done.calls
    assert (made["tool"], made["arguments"]) == ("bank__pay", {"cents": 2000})
    assert made["approval_ids"]
    assert [item["verdict"] for item in done.decisions if item["about"] == "bank__pay"] == [
        "require_approval",
        "permit",
    ]
    assert done.steps == {"large": "completed", "agree": "completed", "pay": "completed"}
    json.dumps(done.as_json())


def test_the_branch_that_is_not_taken_asks_nobody() -> None:
    done = run(PAYMENT, {"cents": 5}, decisions={"approvals": {"agree": "reject", "pay": "approve"}})
    assert (done.status, done.steps["agree"], done.unused) == ("completed", "skipped", ("approvals.agree",))


def test_one_person_is_not_two_and_what_is_missing_is_named() -> None:
    one = {"decision": "approve", "by": "ann", "roles": ["finance"]}
    done = run(PAYMENT, {"cents": 2000}, decisions={"approvals": {"agree": [one, one]}})
    assert done.status == "waiting"
    assert len(done.refused) == 1
    assert done.calls == []
    [waits] = done.waits_for
    assert "step agree" in waits


def test_the_policy_decides_on_those_who_answer() -> None:
    nobody = {"decision": "approve", "by": "eve", "roles": ["guest"]}
    done = run(PAYMENT, {"cents": 2000}, decisions={"approvals": {"agree": nobody}})
    assert done.status == "waiting"
    assert any(item["verdict"] == "deny" and item["action"] == "approval.decide" for item in done.decisions)


def test_rejection_and_silence_end_the_run_as_the_template_says() -> None:
    rejected = run(PAYMENT, {"cents": 2000}, decisions={"approvals": {"agree": "reject"}})
    silent = run(PAYMENT, {"cents": 2000}, decisions={"approvals": {"agree": "timeout"}})
    assert (rejected.status, silent.status) == ("rejected", "rejected")
    assert silent.events[-1]["time"] >= "2027-01-02"


def test_a_late_answer_comes_after_the_escalation() -> None:
    made = template(
        {
            "id": "agree",
            "type": "approval",
            "question": "?",
            "requirements": [{"role": "finance"}],
            "escalations": [{"role": "board", "after_seconds": 3600}],
        }
    )
    late = {"decision": "approve", "by": "zoe", "roles": ["board"], "after_seconds": 7200}
    done = run(made, decisions={"approvals": {"agree": late}})
    assert done.status == "completed"
    assert len(done.of("APPROVAL_ESCALATED")) == 1


def test_tools_answer_from_their_schema_and_from_fixtures() -> None:
    made = template(call("rate", "bank__rate"), output={"limit": "{{ steps.rate.output.limit }}"})
    assert run(made).output == {"limit": 10}
    fixtures = {"bank__rate": {"output": {"limit": 1}}, "rate": {"output": {"limit": 7}}}
    done = run(made, fixtures=fixtures)
    assert (done.output, done.unused) == ({"limit": 7}, ("fixtures.bank__rate",))


def test_a_schema_that_no_made_up_value_satisfies_asks_for_a_fixture() -> None:
    odd = tool("odd__one", {"type": "string", "pattern": "^[0-9]{9}$"})
    done = simulate(template(call("one", "odd__one")), tools=(odd,))
    assert done.status == "failed"
    assert "give a fixture" in (done.reason or "")


def test_failures_retry_on_the_virtual_clock() -> None:
    retry = {"attempts": 3, "backoff_seconds": 3600}
    made = template(call("rate", "bank__rate", retry=retry))
    failing = {"error": "closed", "ran": "no"}
    done = run(made, fixtures={"rate": [failing, failing, {"output": {"limit": 7}}]})
    assert done.status == "completed"
    assert len(done.calls) == 3
    assert done.events[-1]["time"] > "2027-01-01T02"


def test_a_call_in_doubt_waits_for_an_operator() -> None:
    made = template(call("pay", "bank__pay"))
    decisions = {"approvals": {"pay": "approve"}}
    lost = {"pay": {"error": "the line went dead", "ran": "unknown"}}
    assert run(made, decisions=decisions, fixtures=lost).status == "waiting"
    done = run(made, decisions={**decisions, "reviews": {"pay": {"resolution": "ran"}}}, fixtures=lost)
    assert done.status == "completed"
    assert len(done.calls) == 1


def test_an_operators_word_on_a_failed_step() -> None:
    made = template(call("rate", "bank__rate", on_failure="human_review"), output="{{ steps.rate.output.limit }}")
    failing = {"rate": {"error": "closed"}}
    supplied = {"reviews": {"rate": {"resolution": "supply", "output": {"limit": 3}}}}
    assert run(made, fixtures=failing, decisions=supplied).output == 3


def test_waits_are_fast_forwarded_and_signals_come_when_they_are_scripted() -> None:
    made = template(
        {"id": "sleep", "type": "wait", "seconds": 30 * DAY},
        {"id": "paid", "type": "wait", "signal": {"type": "invoice.paid"}, "timeout_seconds": DAY},
    )
    assert run(made).waits_for != ()
    assert run(made, decisions={"signals": {"invoice.paid": "timeout"}}).status == "rejected"
    done = run(made, decisions={"signals": {"invoice.paid": {"data": {"n": 1}, "after_seconds": 60}}})
    assert done.status == "completed"
    assert done.events[-1]["time"].startswith("2027-01-31T00:01")


def test_a_signal_that_does_not_match_is_no_answer() -> None:
    made = template({"id": "paid", "type": "wait", "signal": {"type": "paid", "where": "signal.data.n == 2"}})
    assert run(made, decisions={"signals": {"paid": {"data": {"n": 1}}}}).status == "waiting"
    done = run(made, decisions={"signals": {"paid": [{"data": {"n": 1}}, {"data": {"n": 2}}]}})
    assert done.status == "completed"


AGENT = template(
    {
        "id": "work",
        "type": "agent",
        "agent": "role:writer",
        "allowed_tools": ["notes__*", "bank__pay"],
        "output_schema": {"type": "object", "required": ["text"]},
    },
    output="{{ steps.work.output.text }}",
)


def test_an_agent_calls_tools_asks_people_and_hands_over() -> None:
    work = {"calls": [{"tool": "notes__write"}, {"tool": "bank__pay"}, {"tool": "bank__rate"}], "output": {"text": "x"}}
    done = run(AGENT, decisions={"agents": {"work": work}, "approvals": {"bank__pay": "approve"}})
    assert (done.status, done.output) == ("completed", "x")
    assert [item["tool"] for item in done.calls] == ["notes__write", "bank__pay"]
    assert len(done.refused) == 1  # the tool that its step does not allow


def test_a_refused_hand_over_is_told_and_the_next_one_is_taken() -> None:
    done = run(AGENT, decisions={"agents": {"work": {"output": 5}}})
    assert done.status == "waiting"
    assert "The scripted answer was refused" in done.waits_for[0]
    done = run(AGENT, decisions={"agents": {"work": [{"output": 5}, {"output": {"text": "y"}}]}})
    assert done.output == "y"


def test_external_steps_and_notifications_contact_nobody() -> None:
    made = template(
        {
            "id": "post",
            "type": "external",
            "method": "POST",
            "url": "https://nowhere.invalid/",
            "risk": "low",
            "success_condition": "response.status == 200",
            "callback": {"timeout_seconds": 60},
        },
    )
    assert run(made).status == "waiting"
    done = run(made, decisions={"callbacks": {"post": {"body": {"done": True}}}})
    assert done.status == "completed"


def test_a_run_in_a_circle_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("charter.server.simulating.running.ROUNDS", 20)
    made = template(call("rate", "bank__rate", on_failure="human_review"))
    circle = {"reviews": {"rate": {"resolution": "retry"}}}
    done = run(made, fixtures={"rate": {"error": "closed"}}, decisions=circle)
    assert done.status == "waiting"
    assert "circle" in done.waits_for[0]


@pytest.mark.parametrize(
    ("more", "error"),
    [
        ({"decisions": {"approval": {}}}, InvalidInput),
        ({"decisions": {"approvals": {"agree": "perhaps"}}}, InvalidInput),
        ({"fixtures": {"pay": {"outptu": 1}}}, InvalidInput),
        ({"decisions": {"start": {"kind": "service", "roles": []}}}, Denied),
    ],
)
def test_what_is_not_understood_is_refused(more: dict[str, Any], error: type[CharterError]) -> None:
    with pytest.raises(error):
        run(PAYMENT, {"cents": 1}, **more)


def test_a_template_that_there_is_not() -> None:
    with pytest.raises(NotFound):
        simulate("nothing-of-this-name")


def test_no_file_of_the_installation_is_touched(tmp_path: Path) -> None:
    config = tmp_path / "charter.toml"
    config.write_text("")
    (tmp_path / "tried.yaml").write_text(
        'name: tried\nversion: "1"\nsteps:\n  - {id: rest, type: wait, seconds: 5}\n', encoding="utf-8"
    )
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert simulate(tmp_path / "tried.yaml", config=config).status == "completed"
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
