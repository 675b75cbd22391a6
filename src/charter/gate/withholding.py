"""The part of a run's input that goes into sensitive arguments: sealed at the start, opened only to make those arguments.

What the template and the tools' manifests say decides, so nobody has to mark anything twice. On record, in the state that is
folded from it, and in every text and condition the part is a marker.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from charter.errors import CharterError, Conflict, IntegrityError, InvalidInput
from charter.gate.preparing import Preparer
from charter.manifests.redaction import redact_at
from charter.manifests.withheld import Here, problems, reads, step_problem, withheld
from charter.model.base import JsonObject
from charter.model.digests import input_digest
from charter.model.template import ChildStep, Step, Template
from charter.model.tool import ToolManifest
from charter.workflows import expressions
from charter.workflows.draft import Draft, Withheld
from charter.workflows.expressions import ExpressionError
from charter.workflows.gate_steps import scope_of
from charter.workflows.outbound import call_of
from charter.workflows.state import State, StepState

if TYPE_CHECKING:
    from charter.gate.parts import Parts

T = TypeVar("T")


_MOST = 512


@dataclass(frozen=True, slots=True)
class _Reading:
    """What a template withholds, and the tools and templates that were looked at to find it."""

    pointers: tuple[str, ...]
    tools: Mapping[str, ToolManifest | None]
    templates: Mapping[str, Template | None]

    @classmethod
    def of(cls, template: Template, here: Here) -> _Reading:
        tools: dict[str, ToolManifest | None] = {}
        templates: dict[str, Template | None] = {}

        def tool(name: str) -> ToolManifest | None:
            return tools.setdefault(name, here.tool(name))

        def child(name: str) -> Template | None:
            return templates.setdefault(name, here.template(name))

        return cls(withheld(template, Here(tool, child)), tools, templates)

    def holds(self, here: Here) -> bool:
        """Nothing that it depends on was changed."""
        same = all(here.tool(name) is found for name, found in self.tools.items())
        return same and all(here.template(name) is found for name, found in self.templates.items())


class Withholding:
    """Keeps inputs for one gate."""

    def __init__(self, parts: Parts, prepare: Preparer) -> None:
        self._prepare = prepare
        self._at_hand: dict[str, JsonObject] = {}
        self._read: dict[str, _Reading] = {}
        self._here = Here(parts.tools.find, lambda name: _latest(parts, name))

    def of_start(self, template: Template, template_hash: str, value: JsonObject) -> Withheld | None:
        """What of this input is not for the record, None for nothing.

        Raises ``InvalidInput`` (``input_withheld``) where the template would put it on record by another way.
        """
        pointers = self._pointers(template, template_hash)
        if not pointers:
            return None
        shown, hit = redact_at(pointers, value)
        if not hit:
            return None
        found = next(problems(template, pointers, self._here), None)
        if found is not None:
            raise InvalidInput(
                f"{template.ref} cannot be started: {found.where}: {found.text}.",
                code="input_withheld",
                next_step=found.mend,
            )
        return Withheld(pointers, shown)

    def _pointers(self, template: Template, template_hash: str) -> tuple[str, ...]:
        """What its runs withhold: read once, and again when a tool or a child's template that it asks for is another one."""
        known = self._read.get(template_hash)
        if known is None or not known.holds(self._here):
            if len(self._read) >= _MOST:
                self._read.clear()
            known = self._read[template_hash] = _Reading.of(template, self._here)
        return known.pointers

    @contextmanager
    def at_hand(self, draft: Draft) -> Iterator[None]:
        """While a start is committed: its first calls are made before what it seals is in the store."""
        mine = {item.ref: item.content for item in draft.secrets}
        self._at_hand.update(mine)
        try:
            yield
        finally:
            for ref in mine:
                self._at_hand.pop(ref, None)

    async def same_input(self, state: State, value: JsonObject) -> bool:
        """Whether the run was started with this input. One whose sealed part was erased is judged by what is left."""
        if state.sealed_ref is None:
            return state.input == value
        try:
            return await self._real(state) == value
        except CharterError as error:
            if error.error_code != "erased":
                raise
        shown, _ = redact_at(state.withheld, value)
        return bool(shown == state.input)

    async def call(self, state: State, template: Template, step: Step) -> tuple[str, JsonObject]:
        """The governed tool and the arguments that a step calls it with. Raises as ``workflows.outbound.call_of`` does."""
        since = state.steps.get(step.id, StepState()).opened_at
        scope = scope_of(state, template, step.id)
        return await self._made(state, step, scope, lambda scope: call_of(step, scope, since))

    async def child_input(self, state: State, step: ChildStep) -> Any:
        """What a step starts its child with."""
        return await self._made(state, step, state.scope(), lambda scope: expressions.render(step.input, scope))

    async def _made(self, state: State, step: Step, scope: dict[str, Any], make: Callable[[dict[str, Any]], T]) -> T:
        """What ``make`` makes of the step's scope, which has the whole input where the step needs what is withheld of it."""
        if not self._needed(state, step):
            return make(scope)
        scope["trigger"] = await self._real(state)
        try:
            return make(scope)
        except ExpressionError:
            raise _unmade(step) from None

    def _needed(self, state: State, step: Step) -> bool:
        """Raises ``Conflict`` (``input_withheld``) where a tool does not call an argument sensitive any more."""
        if state.sealed_ref is None or not reads(step, state.withheld, self._here):
            return False
        problem = step_problem(step, state.withheld, self._here)
        if problem is None:
            return True
        raise Conflict(
            f"Step {step.id!r} cannot be carried out: {problem}; the tool's manifest was changed since the run began.",
            code="input_withheld",
            next_step="Let the manifest call the argument sensitive again, and retry the step.",
        )

    async def _real(self, state: State) -> JsonObject:
        """The whole input. Raises ``NotFound`` (``erased``), ``IntegrityError`` where it is not what was sealed."""
        ref = state.sealed_ref or ""
        content = self._at_hand.get(ref) or await self._prepare.secret(state.tenant, ref)
        value: JsonObject = content["input"]
        found = input_digest(
            tenant=state.tenant, workflow_id=state.workflow_id, value=value, salt=str(content.get("salt"))
        )
        if found != state.input_digest:
            raise IntegrityError(
                f"What is sealed as the input of {state.workflow_id} is not what it was started with.",
                next_step="Run `charter audit verify`, and restore the database from a backup.",
            )
        return value


def _unmade(step: Step) -> ExpressionError:
    """Without the engine's own words, which may quote the value."""
    return ExpressionError(
        f"What step {step.id!r} sends could not be made of the run's input; the values are sensitive, so no more is told.",
        next_step="Check the expressions of the step with an input of the same shape in `charter simulate`.",
    )


def _latest(parts: Parts, name: str) -> Template | None:
    try:
        return parts.templates.latest(name)[0]
    except CharterError:
        return None
