"""``charter template``: workflow definitions."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from charter.cli.failing import USAGE
from charter.cli.output import Json, page_json, print_fields, print_json, print_table, safe, say, stranger
from charter.cli.policies import governed
from charter.cli.session import settings
from charter.model.template import Template

if TYPE_CHECKING:
    from charter.manifests.templates import Catalogue

Drawing = Literal["text", "mermaid"]

commands = typer.Typer(no_args_is_help=True, help="Workflow definitions: shipped ones and yours.")


def _catalogue() -> Catalogue:
    from charter.server.app import read_templates

    return read_templates(settings().workflows.templates)


@commands.command("list")
def list_(as_json: Json = False) -> None:
    """The templates that can be started, shipped ones and those of the templates folder."""
    found = _catalogue().all()
    if as_json:
        page_json(
            {"name": t.name, "version": t.version, "hash": hash_, "title": t.title, "description": t.description}
            for t, hash_ in found
        )
        return
    print_table(("id", "title", "steps"), [(t.ref, t.title, [step.id for step in t.steps]) for t, _ in found])


@commands.command("show")
def show(
    name: Annotated[str, typer.Argument(help="NAME for the newest version, or NAME@VERSION.")], as_json: Json = False
) -> None:
    """One template, as Charter reads it, and its hash."""
    template, hash_ = _catalogue().latest(name)
    if as_json:
        print_json({"hash": hash_, "template": template.model_dump(mode="json", by_alias=True, exclude_none=True)})
        return
    print_fields(
        [
            ("template", template.ref),
            ("title", template.title),
            ("hash", hash_),
            ("description", stranger(template.description)),
            ("steps", "\n".join(_step(template, index) for index in range(len(template.steps)))),
        ]
    )


def _step(template: Template, index: int) -> str:
    step = template.steps[index]
    after = ", ".join(template.needs_of(index))
    fields = {"agent": "allowed_tools", "action": "tool", "approval": "question", "condition": "expression"}
    about = {**fields, "external": "url", "notification": "type"}.get(step.type, "")
    value = getattr(step, about, "")
    text = ", ".join(value) if isinstance(value, tuple) else str(value)
    return f"{step.id} ({step.type}){f' after {after}' if after else ''}: {text}".rstrip(": ")


@commands.command("validate")
def validate(
    files: Annotated[list[Path], typer.Argument(help="Template files (YAML or JSON).")],
    strict: Annotated[bool, typer.Option("--strict", help="Unknown tools are errors, not warnings.")] = False,
    as_json: Json = False,
) -> None:
    """Check template files: shape, steps, expressions, tools. Names file, line and mend; exit code 2 when one is bad."""
    from charter.manifests.templates import read_template
    from charter.server.template_folder import bindings_beside
    from charter.workflows.expressions import problem

    known = {tool.name for tool in governed(settings())}
    bad, checked = False, []
    for path in files:
        text, bindings = path.read_text(encoding="utf-8"), bindings_beside(path)
        file = read_template(text, path.name, check_expression=problem, bindings=bindings)
        findings = file.findings(tools=known, check_expression=problem, strict=strict)
        bad = bad or any(item.level == "error" for item in findings)
        checked.append({"file": str(path), "template": file.template.ref, "findings": findings})
        for item in findings if not as_json else ():
            say(f"{path}:{item.line}: {item.level}: {item.text} {item.mend}")
        if not findings and not as_json:
            say(f"✓ {path}: {file.template.ref}, {len(file.template.steps)} steps")
    if as_json:
        page_json(checked)
    if bad:
        raise typer.Exit(USAGE)


@commands.command("graph")
def graph(
    name: Annotated[str, typer.Argument(help="NAME, NAME@VERSION or a template file.")],
    format_: Annotated[Drawing, typer.Option("--format", help="text, or mermaid for documents.")] = "text",
) -> None:
    """Draw a template: each step with what it waits for."""
    from charter.manifests import graph

    template = _found(name)
    typer.echo(safe(graph.mermaid(template) if format_ == "mermaid" else graph.text(template)), nl=False)


@commands.command("diff")
def diff(
    before: Annotated[str, typer.Argument(help="NAME, NAME@VERSION or a template file.")],
    after: Annotated[str, typer.Argument(help="What it is compared with.")],
    as_json: Json = False,
) -> None:
    """What runs of AFTER do otherwise than runs of BEFORE, step by step. Exit code 1 when they differ."""
    from charter.manifests.graph import changes

    found = changes(_found(before), _found(after))
    if as_json:
        page_json(asdict(change) for change in found)
    else:
        print_table(
            ("change", "where", "before", "after"),
            [(c.kind, c.where, _value(c.before), _value(c.after)) for c in found],
            empty="They do the same.",
        )
    if found:
        raise typer.Exit(1)


def _found(name: str) -> Template:
    """A template of the installation's, or of a file that is there."""
    path = Path(name)
    if path.suffix in (".yaml", ".yml", ".json") and path.is_file():
        from charter.manifests.templates import read_template
        from charter.workflows.expressions import problem

        return read_template(path.read_text(encoding="utf-8"), path.name, check_expression=problem).template
    return _catalogue().latest(name)[0]


def _value(value: Any) -> str:
    return "" if value is None else value if isinstance(value, str) else json.dumps(value)
