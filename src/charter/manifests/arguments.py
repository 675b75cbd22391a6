"""Validation of arguments against JSON Schema, made safe for schemas and values that strangers wrote.

The validator is ``jsonschema-rs``: about 1 µs a call here against 22-113 µs for ``jsonschema``, and its regular
expressions run in linear time. Nothing is ever fetched: a remote ``$ref`` does not compile. Size and depth are
capped before a value reaches the validator, because native code recurses on the machine's stack.
Errors never repeat a value, so a password that is too short does not come back in a message.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jsonschema_rs
import orjson

from charter.errors import InvalidInput, Misconfigured
from charter.manifests.schema_cost import check_cost
from charter.model.base import Json, JsonObject
from charter.model.next_steps import AS_DESCRIBED
from charter.model.tool import ToolManifest

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 64
MAX_PROBLEMS = 10
_CACHE_SIZE = 4096
_REGEX = jsonschema_rs.RegexOptions(size_limit=1 << 20, dfa_size_limit=1 << 21)


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong: where (a JSON pointer, ``""`` is the whole), which keyword says so, and what it says."""

    pointer: str
    keyword: str
    message: str

    def as_json(self) -> dict[str, str]:
        return {"pointer": self.pointer, "keyword": self.keyword, "message": self.message}


@dataclass(frozen=True, slots=True)
class CompiledSchema:
    """A schema ready to use. ``schema`` is kept so that a cache can tell it from another one under the same name."""

    schema: Json
    _validator: Any

    def accepts(self, value: Json) -> bool:
        """Whether ``value`` (within the caps) is valid."""
        return bool(self._validator.is_valid(value))

    def problems(self, value: Json) -> tuple[Problem, ...]:
        """At most ten problems of ``value``, in the schema's order; empty when it is valid."""
        found: list[Problem] = []
        for error in self._validator.iter_errors(value):
            found.append(_problem(error))
            if len(found) == MAX_PROBLEMS:
                break
        return tuple(found)


def _refuse_remote(uri: str) -> Any:
    raise ValueError(f"{uri} is not inside the schema, and nothing is fetched")


def compile_schema(schema: Json, *, what: str = "The schema") -> CompiledSchema:
    """Compile a JSON Schema (any draft that it names, else 2020-12).

    Raises ``Misconfigured`` (``unsupported_schema``) for one that is not valid, refers to something outside itself, has
    a pattern with look-around or back-references, or would cost too much to evaluate. ``what`` begins the message.
    """
    why: str
    try:
        if encoded_problem := _too_big(schema):
            why = encoded_problem
        else:
            check_cost(schema)
            validator = jsonschema_rs.validator_for(
                schema, validate_formats=True, pattern_options=_REGEX, retriever=_refuse_remote, mask="the value"
            )
            return CompiledSchema(schema, validator)
    except (jsonschema_rs.ValidationError, ValueError, TypeError, RecursionError) as error:
        why = getattr(error, "message", None) or str(error)
    raise Misconfigured(
        f"{what} cannot be used: {why[:500]}",
        code="unsupported_schema",
        next_step="Use JSON Schema 2020-12 without remote $ref; in patterns, no look-around and no back-references.",
    )


_compiled: dict[str, CompiledSchema] = {}


def compiled_input(manifest: ToolManifest) -> CompiledSchema:
    """The tool's input schema, compiled once a definition. Raises ``Misconfigured`` as :func:`compile_schema` does."""
    found = _compiled.get(manifest.definition_hash)
    if found is not None and found.schema is manifest.input_schema:
        return found
    if found is None or found.schema != manifest.input_schema:
        found = compile_schema(manifest.input_schema, what=f"The input schema of {manifest.name}")
    else:
        found = CompiledSchema(manifest.input_schema, found._validator)
    if len(_compiled) >= _CACHE_SIZE:
        _compiled.pop(next(iter(_compiled)))
    _compiled[manifest.definition_hash] = found
    return found


def check_arguments(manifest: ToolManifest, arguments: Json) -> JsonObject:
    """The arguments, when the tool's input schema accepts them.

    Raises ``InvalidInput`` (``invalid_arguments``) whose detail lists the problems, and ``Misconfigured`` when the
    schema itself cannot be used. Nothing was changed and nothing was sent.
    """
    if type(arguments) is not dict:
        raise _invalid(manifest.name, (Problem("", "type", "the arguments must be a JSON object"),))
    too_big = _too_big(arguments)
    if too_big:
        raise _invalid(manifest.name, (Problem("", "size", too_big),))
    schema = compiled_input(manifest)
    if schema.accepts(arguments):
        return arguments
    raise _invalid(manifest.name, schema.problems(arguments))


def check_value(
    schema: CompiledSchema, value: Json, *, what: str, next_step: str = "Correct the fields named in detail.problems."
) -> None:
    """Check any other value, such as a workflow's input; ``what`` names it in the ``invalid_arguments`` error.

    ``next_step``: where its schema can be read, and what is to be done then.
    """
    too_big = _too_big(value)
    problems = (Problem("", "size", too_big),) if too_big else schema.problems(value)
    if problems:
        raise _invalid(what, problems, next_step)


def _too_big(value: Json) -> str | None:
    """Why ``value`` is over a cap or not JSON, or None. An opening bracket each level bounds the depth cheaply."""
    try:
        data = orjson.dumps(value)
    except (TypeError, ValueError, RecursionError) as error:
        if "recursion" in str(error).lower() or isinstance(error, RecursionError):
            return f"nested deeper than {MAX_DEPTH} levels"
        return f"not JSON: {error}"
    if len(data) > MAX_BYTES:
        return f"{len(data):,} bytes of JSON; at most {MAX_BYTES:,} are taken"
    if data.count(b"{") + data.count(b"[") > MAX_DEPTH and deeper_than(value, MAX_DEPTH):
        return f"nested deeper than {MAX_DEPTH} levels"
    return None


def _children(value: Json) -> Iterator[Json]:
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list | tuple):
        yield from value


def deeper_than(value: Json, limit: int) -> bool:
    """Whether arrays and objects nest deeper than ``limit``; costs no stack."""
    level = [value]
    for _ in range(limit + 1):
        level = [child for parent in level for child in _children(parent) if isinstance(child, dict | list | tuple)]
        if not level:
            return False
    return True


def _pointer(path: list[str | int]) -> str:
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


def _problem(error: jsonschema_rs.ValidationError) -> Problem:
    keyword = str(error.schema_path[-1]) if error.schema_path else "schema"
    for part in reversed(error.schema_path):
        if isinstance(part, str):
            keyword = part
            break
    return Problem(_pointer(error.instance_path), keyword, error.message[:300])


def _invalid(what: str, problems: tuple[Problem, ...], next_step: str = AS_DESCRIBED) -> InvalidInput:
    first = problems[0]
    where = first.pointer or "the whole value"
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return InvalidInput(
        f"{what} does not fit the schema: {where}: {first.message}{more}.",
        code="invalid_arguments",
        next_step=next_step,
        detail={"problems": [problem.as_json() for problem in problems]},
    )
