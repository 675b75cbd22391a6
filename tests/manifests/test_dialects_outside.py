"""The index-based form: times that start it, requests, notifications and escalation, and what of these cannot be said."""

from __future__ import annotations

from typing import Any

import pytest

from charter.errors import InvalidInput
from charter.manifests.dialects.bindings import read_bindings
from charter.manifests.templates import load_template
from charter.model.template import ApprovalStep, ExternalStep, NotificationStep
from charter.workflows.expressions import problem
from tests.manifests.foreign import INDEXED, SUPPLIER, SUPPLIER_BINDINGS, changed
from tests.manifests.test_dialects import read, refused, step, warnings

BOUND = read_bindings(SUPPLIER_BINDINGS, "b.yaml")


def test_the_parts_of_a_document_that_reaches_outside() -> None:
    file = read(SUPPLIER, BOUND)
    template = file.template
    (times,) = template.on_schedule
    assert (times.cron, times.time_zone) == ("30 8 * * MON-FRI", "Europe/Berlin")
    assert (times.input["supplier"], template.on_signal) == ("s 1", ())
    registry, deep, lead, tell = template.steps
    assert isinstance(registry, ExternalStep)
    assert registry.success_condition == "response.status == 200 && response.body.data.score >= 0"
    assert registry.extract == {"score": "response.body.data.score", "first": "response.body.data.names[0]"}
    assert registry.retry is not None
    assert (registry.retry.attempts, registry.retry.backoff_seconds, registry.timeout_seconds) == (3, 2, 20)
    assert isinstance(deep, ExternalStep)
    assert deep.callback is not None
    assert (deep.method, deep.on_failure, deep.callback.timeout_seconds) == ("POST", "human_review", 7200)
    assert deep.callback.extract == {"verdict": "callback.body.result.verdict"}
    assert deep.callback.success_condition == "callback.body.result.verdict != ''"
    assert isinstance(lead, ApprovalStep)
    assert (lead.on_timeout, lead.remind_after_seconds, lead.escalations[0].role) == ("escalate", 3600, "board")
    assert isinstance(tell, NotificationStep)
    assert tell.email is not None
    assert tell.email.to == ("{{trigger.mail}}", "buy@example.com", "box@example.com")
    assert tell.email.text == "Score {{steps.ask_the_registry.output.score}}, {{steps.deep_check.output.verdict}}."
    assert (tell.wait, tell.on_failure) == (False, "skip")
    assert "error" not in warnings(file, strict=True).values()


def test_a_recipient_whom_nobody_knows_is_a_warning_and_refused_at_load() -> None:
    import json

    assert warnings(read(SUPPLIER))["/steps/3/config/recipients"] == "warning"
    with pytest.raises(InvalidInput, match="nobody knows the address of 'purchasing'"):
        load_template(json.dumps(SUPPLIER), "doc.json", check_expression=problem)


def notified(**config: Any) -> dict[str, Any]:
    steps = [{"type": "notification", "name": "Tell", "config": config}]
    return {"name": "n", "trigger_type": "manual", "steps": steps}


def test_a_webhook_and_other_channels() -> None:
    hook = read(
        notified(channel="webhook", url="https://a.example/x", payload={"no": "{{trigger.no}}"}, blocking=True),
        read_bindings("webhook_secret: SIGN", "b.yaml"),
    ).template
    tell = step(hook, "tell")
    assert (tell.webhook.secret, tell.webhook.data, tell.wait) == ("SIGN", {"no": "{{trigger.no}}"}, True)
    document = notified(channels=["slack"], to="#buyers", message="Supplier {{trigger.no}}")
    chat = read(document, read_bindings("actions: {slack: {tool: chat__post, rename: {to: room}}}", "b.yaml")).template
    call = step(chat, "tell")
    assert (call.type, call.tool, call.on_failure) == ("action", "chat__post", "skip")
    assert call.arguments == {"room": "#buyers", "message": "Supplier {{trigger.no}}"}
    assert warnings(read(document), strict=True) == {"/steps/0/config": "error"}


@pytest.mark.parametrize(
    ("config", "where", "says"),
    [
        ({"channel": "email", "subject": "s", "body": "b"}, "", "an address is a text"),
        ({"channels": ["email", "webhook"], "to": "a@b.c"}, "/channels", "several channels"),
        ({"channel": "email", "to": "a@b.c", "colour": "red"}, "/colour", "not known"),
        ({"channel": "webhook", "payload": {}}, "", "no 'url'"),
        ({"channel": "email", "to": "a@b.c", "on_failure": "shrug"}, "/on_failure", "not known"),
    ],
)
def test_what_a_notification_cannot_say(config: dict[str, Any], where: str, says: str) -> None:
    found = refused(notified(**config))
    assert any(item["pointer"].startswith(f"/steps/0/config{where}") and says in item["problem"] for item in found), (
        found
    )


@pytest.mark.parametrize(
    ("path", "value", "where", "says"),
    [
        ("trigger_config/cron", "every day", "/trigger_config/cron", "five fields"),
        ("trigger_config/cron", "0 0 0 0 0", "/trigger_config/cron", "no cron expression"),
        ("trigger_config/cron", ..., "/trigger_config", "no 'cron'"),
        ("trigger_config/timezone", "Mars/Olympus", "/trigger_config/cron", "no time zone"),
        ("trigger_config/conditions", [], "/trigger_config/conditions", "not known"),
        ("steps/2/config/escalate_to", ..., "/steps/2/config", "escalated to nobody"),
        ("steps/2/config/on_timeout", "reject", "/steps/2/config/escalate_to", "when it is escalated"),
        ("steps/2/config/escalate_to/type", "oracle", "/steps/2/config/escalate_to", "not known"),
        ("steps/0/config/extract_fields", 5, "/steps/0/config/extract_fields", "a map of names"),
        ("steps/0/config/mode", "later", "/steps/0/config/mode", "not known"),
        ("steps/0/config/timeout_hours", 5, "/steps/0/config", "at most 10 minutes"),
    ],
)
def test_what_cannot_be_said(path: str, value: Any, where: str, says: str) -> None:
    found = refused(changed(SUPPLIER, path, value), BOUND)
    assert any(item["pointer"].startswith(where) and says in item["problem"] for item in found), found


@pytest.mark.parametrize(
    ("config", "wanted"),
    [
        ({"expression": "@daily"}, ("0 0 * * *", "UTC", "once")),
        ({"schedule": "5 4 * * *", "tz": "Asia/Tokyo", "missed": "skip"}, ("5 4 * * *", "Asia/Tokyo", "skip")),
    ],
)
def test_the_words_for_times(config: dict[str, Any], wanted: tuple[str, str, str]) -> None:
    document = {**SUPPLIER, "trigger_type": "cron", "trigger_config": config}
    (times,) = read(document, BOUND).template.on_schedule
    assert (times.cron, times.time_zone, times.missed) == wanted
    assert read({**document, "is_active": False}, BOUND).template.on_schedule == ()


def test_others_are_asked_before_the_time_is_over_where_it_says_so() -> None:
    config = {"escalation": {"approvers": {"type": "user", "value": "ceo"}, "after_hours": 0.5}}
    document = changed(INDEXED, "steps/2/config", {**INDEXED["steps"][2]["config"], **config})
    board = step(read(document).template, "board")
    assert (board.on_timeout, board.escalations[0].people, board.escalations[0].after_seconds) == (
        "reject",
        ("ceo",),
        1800,
    )
