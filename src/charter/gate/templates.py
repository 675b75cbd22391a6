"""The definitions that runs are pinned to: kept in the store under their hash, so that a run outlives the file it came from."""

from __future__ import annotations

from functools import lru_cache

import orjson
from pydantic import ValidationError

from charter.errors import Conflict, IntegrityError, InvalidInput, NotFound
from charter.gate.parts import Templates
from charter.manifests.arguments import CompiledSchema, check_value, compile_schema
from charter.manifests.templates import template_hash as hash_of
from charter.model import commands as cmd
from charter.model.base import Json, JsonObject
from charter.model.phase import Check
from charter.model.template import AgentStep, Template
from charter.store.port import Store
from charter.workflows.state import State
from charter.workflows.steps import step_named


@lru_cache(maxsize=512)
def _compiled(schema_text: bytes) -> CompiledSchema:
    return compile_schema(orjson.loads(schema_text), what="The template's schema")


_AS_START_LISTS = (
    "Correct the fields named in detail.problems, by the input schema of the template, and start it again."
)
_AS_STEP_SHOWS = (
    "Send `output` by the step's output_schema, which get_workflow shows, and call complete_step again; detail.problems "
    "names the fields."
)
_AS_SUPPLIED = "Correct the fields named in detail.problems, by the step's output_schema in the template."


def _of(schema: JsonObject) -> CompiledSchema:
    return _compiled(orjson.dumps(schema, option=orjson.OPT_SORT_KEYS))


def pinned(text: str, template_hash: str) -> Template:
    """The template of this text. Raises ``IntegrityError`` (``template_changed``) when it is not the one with this hash."""
    try:
        template = Template.model_validate_json(text)
    except ValidationError:
        template = None
    if template is None or hash_of(template) != template_hash:
        raise IntegrityError(
            f"The stored text of the template {template_hash} is not what its runs were started with.",
            code="template_changed",
            next_step="Run `charter audit verify`, and restore the database from a backup.",
        )
    return template


class KnownTemplates:
    """Finds a run's template by its hash."""

    def __init__(self, store: Store, published: Templates) -> None:
        self._store = store
        self._published = published
        self._known: dict[tuple[str, str], Template] = {}

    def remember(self, tenant: str, template: Template, template_hash: str) -> None:
        """It is in the store."""
        self._known[(tenant, template_hash)] = template

    async def of(self, tenant: str, template_hash: str) -> Template:
        """The template that a run is pinned to."""
        found = self._known.get((tenant, template_hash))
        if found is not None:
            return found
        text = await self._store.claimed(tenant, "template", template_hash)
        if text is None:
            raise NotFound(f"The template {template_hash} of this run is not in the store.", code="unknown_template")
        template = pinned(text, template_hash)
        self.remember(tenant, template, template_hash)
        return template

    async def claim(self, tenant: str, template: Template, template_hash: str) -> list[tuple[str, str, str]]:
        """What a start must claim so that the definition stays: nothing when it is there already.

        Raises ``Conflict`` (``template_immutable``) when runs of this ``name@version`` were started from another definition.
        """
        if (tenant, template_hash) in self._known:
            return []
        started = await self._store.claimed(tenant, "template_ref", template.ref)
        if started is not None and started != template_hash:
            raise Conflict(
                f"{template.ref} was changed after it was published or runs were started from it; a version never changes.",
                code="template_immutable",
                next_step=f"Put the definition back as it was (published/{template.ref}.json in the templates folder, or the "
                "file there that it comes from), or publish the changed one as a new version.",
                detail={"template": template.ref, "published": started, "offered": template_hash},
            )
        claims = [] if started is not None else [("template_ref", template.ref, template_hash)]
        if await self._store.claimed(tenant, "template", template_hash) is None:
            claims.append(("template", template_hash, template.model_dump_json(by_alias=True)))
        return claims

    def check_input(self, template: Template, value: JsonObject) -> None:
        """The input against the template's schema. Raises ``InvalidInput``."""
        schema = _of(template.input_schema)
        check_value(schema, value, what=f"The input of {template.ref}", next_step=_AS_START_LISTS)

    def checked_output(self, template: Template, state: State, command: cmd.CompleteStep) -> cmd.CompleteStep:
        """The command with what the agent hands over, which its step's schema takes. Raises ``InvalidInput``.

        A summary alone is the output ``{"summary": …}`` where the schema takes that.
        """
        invocation = state.invocations[command.agent_invocation_id or ""]
        step = step_named(template, invocation.step_id)
        if not isinstance(step, AgentStep) or step.handed_over is None:
            return command
        schema = _of(step.handed_over)
        summary = {"summary": command.summary}
        if command.output is None and command.summary and schema.accepts(summary):
            return command.model_copy(update={"output": summary})
        what = f"The output of step {step.id!r}"
        if command.output is None and not schema.accepts(None):
            raise InvalidInput(
                f"{what} is missing.",
                code="invalid_arguments",
                next_step=_AS_STEP_SHOWS,
                detail={"problems": [item.as_json() for item in schema.problems({}) or schema.problems(None)]},
            )
        check_value(schema, command.output, what=what, next_step=_AS_STEP_SHOWS)
        return command

    def check_supplied(self, template: Template, command: cmd.ReviewStep) -> None:
        """What an operator supplies for an agent's work, which later steps read. Raises ``InvalidInput``."""
        if command.resolution != "supply":
            return
        try:
            step = step_named(template, command.step_id)
        except KeyError:
            return  # the decider refuses it
        if isinstance(step, AgentStep) and step.handed_over is not None:
            what = f"The output of step {step.id!r}"
            check_value(_of(step.handed_over), command.output, what=what, next_step=_AS_SUPPLIED)

    def schema_problems(
        self, template: Template, state: State, command: cmd.CompleteStep
    ) -> dict[str, tuple[str, ...]]:
        """What the schemas of the gate's checks say of the artifacts, by check; the decider judges by it."""
        step = step_named(template, state.invocations[command.agent_invocation_id or ""].step_id)
        if not isinstance(step, AgentStep) or step.gate is None:
            return {}
        checks = [check for check in step.gate.checks if check.document_schema is not None]
        return {check.id: _problems(check, command.output) for check in checks}


def _problems(check: Check, output: Json) -> tuple[str, ...]:
    if check.document_schema is None:
        return ()
    schema = _of(check.document_schema)
    if check.artifact is None:
        value = output
    elif isinstance(output, dict) and check.artifact in output:
        value = output[check.artifact]
    else:
        return (f"there is no artifact {check.artifact!r}",)
    try:
        check_value(schema, value, what=check.id)
    except InvalidInput as error:
        found = error.detail.get("problems", []) if error.detail else []
        return tuple(f"{item['pointer'] or 'it'}: {item['message']}" for item in found) or (error.message,)
    return ()
