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
from charter.cli.session import As, Roles, TokenFile, Who, run_as, settings, who
from charter.errors import CharterError, Misconfigured
from charter.model.template import Template

if TYPE_CHECKING:
    from charter.manifests.finding import Finding
    from charter.manifests.installed_checks import Installation
    from charter.manifests.templates import Catalogue, TemplateFile
    from charter.model.principal import Principal
    from charter.model.reply import Publication
    from charter.server.app import Charter
    from charter.server.settings_model import Settings

Drawing = Literal["text", "mermaid"]

commands = typer.Typer(no_args_is_help=True, help="Workflow definitions: shipped ones and yours.")


def _catalogue() -> Catalogue:
    from charter.server.templates import read_templates

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
    strict: Annotated[bool, typer.Option("--strict", help="Names unknown here are errors, not warnings.")] = False,
    as_json: Json = False,
) -> None:
    """Check template files: shape, steps, expressions, names. Tells file, line and mend; exit code 2 when one is bad."""
    here = _installation(settings())
    bad, checked = False, []
    for path in files:
        file, findings = _checked(path, here, strict=strict)
        bad = bad or _wrong(findings)
        checked.append({"file": str(path), "template": file.template.ref, "findings": findings})
        if not as_json:
            _tell(path, findings)
        if not findings and not as_json:
            say(f"✓ {path}: {file.template.ref}, {len(file.template.steps)} steps")
    if as_json:
        page_json(checked)
    if bad:
        raise typer.Exit(USAGE)


@commands.command("publish")
def publish(
    file: Annotated[Path, typer.Argument(help="A template file (YAML or JSON), in whatever form.")],
    as_name: As = None,
    role: Roles = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Make a file's template what its NAME@VERSION means here, for good. Takes the role operator or admin.

    It is checked as by `validate --strict`, and who published it goes on record with its hash. A version never changes: what
    was changed needs a new one. The same again changes nothing. A running server follows; runs keep what they began with.
    """
    config = settings()
    folder = config.workflows.templates
    if folder is None:
        raise Misconfigured(
            "No folder for templates is configured.",
            code="no_templates_folder",
            next_step='Set [workflows] templates = "templates" in charter.toml, or run `charter init`.',
        )
    read, findings = _checked(file, _installation(config), strict=True)
    if _wrong(findings):
        if as_json:
            page_json([{"file": str(file), "template": read.template.ref, "findings": findings}])
        else:
            _tell(file, findings)
        raise typer.Exit(USAGE)
    done, newest = _publish(config, folder, read.template, who(as_name, role, token_file))
    if as_json:
        print_json({**done.model_dump(), "newest": newest})
        return
    _tell(file, findings)
    say(f"{done.template} {'is published' if done.anew else 'was published before'}: {done.template_hash}")
    say(f"`{read.template.name}` starts {newest} from now on; runs under way keep the version that they began with.")


def _publish(config: Settings, folder: Path, template: Template, by: Who) -> tuple[Publication, str]:
    """On record first, then the file that servers read: after a crash in between, the same command again writes it.

    What was published, and the version that its name alone starts from now on.
    """
    from charter.model.commands import PublishTemplate
    from charter.server.templates import read_templates, write_published

    async def record(charter: Charter, caller: Principal) -> Publication:
        text = template.model_dump_json(by_alias=True, exclude_defaults=True)
        found: Publication = await charter.gate.handle(caller, PublishTemplate(text=text))
        return found

    done = run_as(by, record)
    write_published(folder, template)
    return done, read_templates(folder).latest(template.name)[0].ref


def _installation(config: Settings) -> Installation:
    from charter.manifests.installed_checks import Installation
    from charter.server.keys import load_keys
    from charter.server.secret_store import secret_file

    try:
        secrets = frozenset(secret_file(config, load_keys(config.keys_folder)))
    except Misconfigured:
        secrets = None  # no installation yet
    try:
        found = _catalogue().all()[::-1]  # the newest of a name last
        templates = {name: template for template, _ in found for name in (template.name, template.ref)}
    except CharterError:
        templates = None  # another file of the folder is bad, or this one
    manifests = {tool.name: tool for tool in governed(config)}
    return Installation(
        tools=manifests.keys(),
        manifests=manifests,
        roles=config.workflows.roles or None,
        agents=config.workflows.agents or None,
        people=config.workflows.people or None,
        secrets=secrets,
        templates=templates,
        email=config.email.host is not None,
    )


def _checked(path: Path, here: Installation, *, strict: bool) -> tuple[TemplateFile, list[Finding]]:
    from charter.manifests.templates import read_template
    from charter.server.template_folder import bindings_beside
    from charter.workflows.expression_types import check
    from charter.workflows.expressions import problem

    text, bindings = path.read_text(encoding="utf-8"), bindings_beside(path)
    file = read_template(text, path.name, check_expression=problem, bindings=bindings)
    return file, file.findings(installation=here, check_expression=problem, check_types=check, strict=strict)


def _wrong(findings: list[Finding]) -> bool:
    return any(item.level == "error" for item in findings)


def _tell(path: Path, findings: list[Finding]) -> None:
    for item in findings:
        say(f"{path}:{item.line}: {item.level}: {item.text.removesuffix('.')}. {item.mend}")


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
