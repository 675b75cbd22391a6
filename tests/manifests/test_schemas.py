"""The published schemas: valid, with names, equal to their files, and true of what Charter writes."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from charter.manifests.schemas import ENVELOPE, event_name, published_schemas, schema_id, schema_text
from charter.manifests.templates import bundled_templates
from charter.manifests.yaml_text import load
from charter.model import events as ev
from tests.workflows.story import told

SCHEMAS = published_schemas()
DOCS = Path(__file__).parents[2] / "docs" / "schemas"


@pytest.mark.parametrize("name", SCHEMAS)
def test_each_is_a_valid_schema_with_id_title_and_description(name: str) -> None:
    schema = SCHEMAS[name]
    Draft202012Validator.check_schema(schema)
    assert schema["$id"] == schema_id(name) == f"urn:charter:schema:{name}:1"
    assert schema["title"]
    assert schema["description"]


def test_every_event_has_one() -> None:
    assert {event_name(event_type) for event_type in ev.PAYLOADS} < set(SCHEMAS)


def test_the_files_are_what_the_models_give() -> None:
    """Run scripts/write_schemas.py after a change of the models."""
    for folder in (DOCS, resources.files("charter") / "schemas"):
        files = {item.name: item.read_text(encoding="utf-8") for item in folder.iterdir()}
        assert files == {f"{name}.json": schema_text(schema) for name, schema in SCHEMAS.items()}


def envelopes() -> list[dict[str, Any]]:
    run = told()
    return [
        {
            "v": 1,
            "tenant": "default",
            "seq": number,
            "stream": run.state.workflow_id,
            "version": number + 1,
            "id": "evt_1",
            "type": event.type,
            "time": event.time,
            "actor": {"kind": "agent", "id": "agent:writer", "acts_for": "ann"},
            "causation_id": "cmd_1",
            "correlation_id": run.state.workflow_id,
            "data": json.loads(event.data.model_dump_json(exclude_defaults=True)),
        }
        for number, event in enumerate(run.log)
    ]


def test_the_envelope_holds_what_a_run_writes_and_each_datum_its_own_schema() -> None:
    envelope = Draft202012Validator(SCHEMAS[ENVELOPE])
    for event in envelopes():
        envelope.validate(event)
        Draft202012Validator(SCHEMAS[event_name(event["type"])]).validate(event["data"])


@pytest.mark.parametrize(
    "change", [{"v": 2}, {"type": "SOMETHING"}, {"extra": 1}, {"data": {"nothing": 1}}, {"actor": {"kind": "robot"}}]
)
def test_the_envelope_refuses_what_charter_does_not_write(change: dict[str, Any]) -> None:
    event = {**envelopes()[0], **change}
    with pytest.raises(ValidationError):
        Draft202012Validator(SCHEMAS[ENVELOPE]).validate(event)


def test_an_editor_accepts_the_bundled_templates_and_finds_a_wrong_word() -> None:
    validator = Draft202012Validator(SCHEMAS["template"])
    for name, text in bundled_templates().items():
        value = load(text, name).value
        validator.validate({"$schema": "x", **value})
        value["steps"][0]["instruction"] = "a typo"
        assert not validator.is_valid(value)


def test_the_context_and_results_that_doors_show_are_valid() -> None:
    run = told()
    shown = json.loads(run.context().model_dump_json())
    Draft202012Validator(SCHEMAS["workflow-context"]).validate(shown)
    request = next(event for event in run.log if event.type == "APPROVAL_REQUESTED").data.request
    Draft202012Validator(SCHEMAS["approval-request"]).validate(json.loads(request.model_dump_json()))
