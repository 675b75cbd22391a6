"""`charter template publish`: checked, on record, for good, and followed by a server that runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anyio
import pytest
import yaml

from charter.server.app import running
from charter.server.keys import load_keys
from charter.server.secret_store import secret_file
from charter.server.settings import load_settings
from charter.server.templates import PublishedTemplates, published_names, write_published
from tests.cli.support import Project
from tests.cli.test_first_minutes import call
from tests.manifests.foreign import INDEXED


def template(version: str = "1", **more: Any) -> dict[str, Any]:
    step = {"id": "look", "type": "agent", "instructions": "Look.", "allowed_tools": ["casebook__read_note"]}
    return {"name": "look", "version": version, "steps": [step], **more}


def written(project: Project, document: dict[str, Any], name: str = "look.yaml") -> str:
    (project.folder / name).write_text(yaml.safe_dump(document, sort_keys=False))
    return name


def on_record(project: Project) -> list[dict[str, Any]]:
    events = project.ok("audit", "log", "--type", "TEMPLATE_PUBLISHED", "--json").json["items"]
    return [event["data"] for event in events]


def test_it_is_on_record_once_and_a_version_never_changes(project: Project) -> None:
    file = written(project, template(title="First"))
    done = project.ok("template", "publish", str(project.folder / file), "--as", "oscar")
    assert "look@1 is published: sha256:" in done.out
    assert "`look` starts look@1 from now on; runs under way keep the version" in done.out
    [first] = on_record(project)
    assert (first["template"], first["published_by"]) == ("look@1", "oscar")
    assert project.ok("template", "show", "look", "--json").json["hash"] == first["template_hash"]

    kept = project.folder / "templates" / "published" / "look@1.json"
    kept.unlink()  # as after a crash between the record and the file
    again = project.ok("template", "publish", str(project.folder / file), "--as", "ann")
    assert kept.exists()
    assert "look@1 was published before" in again.out
    assert on_record(project) == [first], "the same again changes nothing"

    written(project, template(title="Another"))
    refused = project.here("template", "publish", str(project.folder / file))
    assert refused.code == 1, refused.both
    assert "a version never changes" in refused.err
    assert "new version" in refused.err
    assert project.ok("template", "show", "look", "--json").json["template"]["title"] == "First"

    written(project, template("2", title="Another"))
    raised = project.ok("template", "publish", str(project.folder / file), "--json").json
    assert (raised["template"], raised["anew"], raised["newest"]) == ("look@2", True, "look@2")
    written(project, template("1.5"))
    older = project.ok("template", "publish", str(project.folder / file))
    assert "`look` starts look@2 from now on" in older.out, "an older version that comes late is not the newest"
    assert "Everything verifies" in project.ok("audit", "verify").out


def test_what_runs_began_with_cannot_be_published_otherwise(project: Project) -> None:
    """A file of the templates folder that runs were started from is as fixed as a published one."""
    written(project, template(title="First"), "templates/look.yaml")
    project.ok("template", "publish", str(project.folder / "templates/look.yaml"))
    (project.folder / "templates" / "published" / "look@1.json").unlink()
    written(project, template(title="Another"), "templates/look.yaml")
    refused = project.here("template", "publish", str(project.folder / "templates/look.yaml"))
    assert (refused.code, "a version never changes" in refused.err) == (1, True), refused.both
    assert len(on_record(project)) == 1


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"allowed_tools": ["bank__pay"]}, "'bank__pay' matches no governed tool here"),
        ({"agent": "role:wizard"}, "nobody here has the role 'wizard'"),
        ({"agent": "merlin"}, "there is no agent 'merlin' here"),
        ({"gate": {"approval": {"requirements": [{"people": ["alice"]}]}}}, "there is nobody called 'alice' here"),
    ],
)
def test_names_of_this_installation_are_warnings_and_stop_a_publication(
    project: Project, changes: dict[str, Any], says: str
) -> None:
    config = project.folder / "charter.toml"
    lists = '[workflows]\nroles = ["approver", "agent"]\nagents = ["local-agent"]\npeople = ["ann"]'
    config.write_text(config.read_text().replace("[workflows]", lists))
    document = template()
    document["steps"][0] |= changes
    file = str(project.folder / written(project, document))
    warned = project.ok("template", "validate", file)
    assert (f"{says}" in warned.out, " warning: " in warned.out) == (True, True)
    for command in (("template", "validate", "--strict", file), ("template", "publish", file)):
        stopped = project.here(*command)
        assert (stopped.code, f": error: {says}" in stopped.out) == (2, True), stopped.both
    assert on_record(project) == []
    assert published_names(project.folder / "templates") == ()


def test_secrets_mail_and_other_templates_are_names_too(project: Project) -> None:
    steps = [
        {"id": "ask", "type": "external", "url": "https://a.example/", "headers": {"x": "{{ secrets.CRM }}"}},
        {"id": "tell", "type": "notification", "email": {"to": ["a@example.com"], "subject": "s", "text": "t"}},
        {"id": "hook", "type": "notification", "webhook": {"url": "https://a.example/", "secret": "SIGN"}},
        {"id": "more", "type": "workflow", "template": "background-check"},
    ]
    file = str(project.folder / written(project, template(steps=steps)))
    stopped = project.here("template", "publish", file)
    assert stopped.code == 2
    for says in ("no secret 'CRM'", "no e-mail is sent", "no secret 'SIGN'", "no template 'background-check'"):
        assert says in stopped.out
    config = load_settings(project.folder / "charter.toml")
    for name in ("CRM", "SIGN"):
        secret_file(config, load_keys(config.keys_folder)).set(name, "value")
    found = project.here("template", "publish", file).out
    assert "no secret" not in found


def test_an_agent_or_somebody_without_the_role_publishes_nothing(project: Project) -> None:
    file = str(project.folder / written(project, template()))
    denied = project.here("template", "publish", file, "--as", "eve", "--role", "approver")
    assert denied.code == 1
    assert "template.publish" in project.ok("audit", "log", "--type", "POLICY_DECISION", "--json").out
    assert (on_record(project), published_names(project.folder / "templates")) == ([], ())


def test_a_document_in_another_form_is_published_as_what_will_run(project: Project) -> None:
    file = project.folder / "claim.json"
    file.write_text(json.dumps(INDEXED))
    unbound = project.here("template", "publish", str(file))
    assert (unbound.code, "no governed tool is bound" in unbound.out) == (2, True)
    bindings = file.with_name("claim.bindings.yaml")
    bindings.write_text("actions: {pay_claim: casebook__read_note}\nsignals: {on_claim: claim.made}\n")
    project.ok("template", "publish", str(file))
    [published] = on_record(project)
    bindings.write_text("actions: {pay_claim: casebook__delete_note}\nsignals: {on_claim: claim.made}\n")
    changed = project.here("template", "publish", str(file))
    assert (changed.code, "a version never changes" in changed.err) == (1, True), "other bindings are another template"
    bindings.unlink()
    assert project.ok("template", "show", "expense-claim", "--json").json["hash"] == published["template_hash"]


def test_a_changed_file_in_the_folder_does_not_replace_what_was_published(
    project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    file = project.folder / written(project, template(title="First"), "templates/look.yaml")
    project.ok("template", "publish", str(file))
    written(project, template(title="Another"), "templates/look.yaml")
    shown = project.ok("template", "show", "look", "--json").json["template"]
    assert shown["title"] == "First"
    assert "look.yaml is not used" in caplog.text


def test_a_server_that_lacks_what_was_published_in_its_database_says_so(
    project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    """As one does whose templates folder is not that of the server beside it."""

    def started() -> str:
        async def body() -> None:
            async with running(load_settings(project.folder / "charter.toml", environ={}), connect=False):
                pass

        caplog.clear()
        anyio.run(body)
        return caplog.text

    def looked_at() -> dict[str, Any]:
        checks = project.here("doctor", "--offline", "--json").json["checks"]
        return next(check for check in checks if check["name"] == "templates")

    for version in ("1", "2"):
        project.ok("template", "publish", str(project.folder / written(project, template(version))))
    assert "look@" not in started()
    assert looked_at()["state"] == "ok"
    (project.folder / "templates" / "published" / "look@2.json").unlink()
    told, check = started(), looked_at()
    assert "look@2: published in this database, and not in" in told
    assert "look@1" not in told
    assert (check["state"], "look@2" in check["text"]) == ("warning", True)
    assert "share one templates folder" in told + check["next_step"]


def test_what_is_published_meanwhile_is_followed_and_what_is_broken_is_not(tmp_path: Path) -> None:
    from charter.model.template import Template

    known = PublishedTemplates(tmp_path)
    assert "look" not in {item.name for item, _ in known.all()}
    write_published(tmp_path, Template.model_validate(template()))
    assert known.latest("look")[0].ref == "look@1"
    path = write_published(tmp_path, Template.model_validate(template("2")))
    assert known.latest("look")[0].ref == "look@2"
    path.rename(path.with_name("look@3.json"))
    assert known.latest("look")[0].ref == "look@2", "a renamed file changes nothing in a server that runs"
    path.with_name("look@3.json").unlink()
    assert known.latest("look")[0].ref == "look@1"


def test_a_published_file_that_was_changed_and_put_back_is_good_again(tmp_path: Path) -> None:
    from charter.model.template import Template

    path = write_published(tmp_path, Template.model_validate(template()))
    good = path.read_text("utf-8")
    path.write_text(good.replace("Look.", "Look away."), "utf-8")
    known = PublishedTemplates(tmp_path)  # a server that started meanwhile
    _, changed = known.latest("look")
    path.write_text(good, "utf-8")
    _, right = known.latest("look")
    assert right != changed
    assert right == PublishedTemplates(tmp_path).latest("look")[1]


@pytest.mark.anyio
async def test_a_running_server_starts_the_new_version_and_runs_keep_theirs(project: Project) -> None:
    from mcp import Client

    file = str(project.folder / written(project, template()))
    with project.serving("--anonymous"):
        async with Client(project.url) as client:
            project.ok("template", "publish", file)
            first = await call(client, "start_workflow", template="look", purpose="Look")
            written(project, template("2", title="Another"))
            project.ok("template", "publish", file)
            second = await call(client, "start_workflow", template="look", purpose="Look")
    runs = project.ok("workflows", "list", "--json").json["items"]
    assert {run["workflow_id"]: run["template"] for run in runs} == {
        first["workflow_id"]: "look@1",
        second["workflow_id"]: "look@2",
    }
    assert "Everything verifies" in project.ok("audit", "verify").out
