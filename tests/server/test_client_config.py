"""What `charter init` and `charter mcp-config` write: complete, parseable, never with a token in it, never over a file."""

from __future__ import annotations

import json
import re
import stat
import tomllib
from pathlib import Path
from typing import Any, get_args

import pytest

from charter.errors import CharterError, InvalidInput, Misconfigured
from charter.model.base import Model
from charter.policies.shipped import shipped_files
from charter.server.client_config import Client, mcp_config, mcp_entry
from charter.server.settings import Settings, load_settings
from charter.server.settings_model import WebhookSection
from charter.server.starter import config_text, write_starter

COMMAND = ["/opt/charter/bin/charter", "serve", "--stdio", "--config", "/srv/my project/charter.toml"]
URL = "http://127.0.0.1:8420/mcp"
CLIENTS: tuple[Client, ...] = get_args(Client)


def parsed(client: Client, body: str) -> dict[str, Any]:
    return tomllib.loads(body) if client == "codex" else json.loads(body)


@pytest.mark.parametrize(
    ("client", "path", "extra"),
    [
        ("claude", "mcpServers", {"type": "stdio"}),
        ("vscode", "servers", {"type": "stdio"}),
        ("cursor", "mcpServers", {"type": "stdio"}),
        ("codex", "mcp_servers", {}),
        ("gemini", "mcpServers", {}),
    ],
)
def test_the_stdio_entry_starts_the_server(client: Client, path: str, extra: dict[str, str]) -> None:
    entry = mcp_entry(client, mode="stdio", command=COMMAND)
    assert parsed(client, entry.body) == {path: {"charter": {**extra, "command": COMMAND[0], "args": COMMAND[1:]}}}


@pytest.mark.parametrize(
    ("client", "server"),
    [
        ("claude", {"type": "http", "url": URL, "headers": {"Authorization": "Bearer ${MY_TOKEN}"}}),
        ("vscode", {"type": "http", "url": URL, "headers": {"Authorization": "Bearer ${input:charter-token}"}}),
        ("cursor", {"url": URL, "headers": {"Authorization": "Bearer ${env:MY_TOKEN}"}}),
        ("codex", {"url": URL, "bearer_token_env_var": "MY_TOKEN"}),
        ("gemini", {"httpUrl": URL, "headers": {"Authorization": "Bearer ${MY_TOKEN}"}}),
    ],
)
def test_the_http_entry_names_the_variable_that_holds_the_token(client: Client, server: dict[str, Any]) -> None:
    table = parsed(client, mcp_entry(client, mode="http", url=URL, token_env="MY_TOKEN").body)
    assert table[{"vscode": "servers", "codex": "mcp_servers"}.get(client, "mcpServers")] == {"charter": server}
    if client == "vscode":
        assert [(asked["id"], asked["password"]) for asked in table["inputs"]] == [("charter-token", True)]


@pytest.mark.parametrize("client", CLIENTS)
def test_the_text_says_where_it_goes_and_what_to_do_then(client: Client) -> None:
    text = mcp_config(client, mode="http", url=URL)
    entry = mcp_entry(client, mode="http", url=URL)
    assert entry.where in text
    assert entry.body.rstrip() in text
    assert "charter token issue" in text


@pytest.mark.parametrize(
    ("client", "wanted"),
    [
        ("emacs", {"mode": "stdio", "command": COMMAND}),
        ("claude", {"mode": "stdio"}),
        ("claude", {"mode": "http"}),
        ("claude", {"mode": "http", "url": URL, "token_env": "a}; rm"}),
    ],
)
def test_what_makes_no_entry_is_an_error_with_the_mend(client: Any, wanted: Any) -> None:
    with pytest.raises(InvalidInput) as caught:
        mcp_entry(client, **wanted)
    assert caught.value.next_step


def test_a_new_folder_gets_everything_and_the_result_is_a_working_configuration(tmp_path: Path) -> None:
    done = write_starter(tmp_path / "new", person='Ann "A" Öz', extra={"tools/casebook.tools.yaml": "x: 1\n"})
    assert {written.action for written in done} == {"written"}
    names = {str(written.path.relative_to(tmp_path / "new")) for written in done}
    assert {"charter.toml", ".charter/.gitignore", ".charter/keys/tokens.json", "tools/casebook.tools.yaml"} <= names
    assert {f"policies/{name}" for name in shipped_files()} <= names
    settings = load_settings(environ={}, cwd=tmp_path / "new")
    assert settings.stdio.acts_for == 'Ann "A" Öz'
    for folder in (
        settings.policies.folder,
        settings.tools.manifests,
        settings.workflows.templates,
        settings.keys_folder,
    ):
        assert folder is not None
        assert folder.is_dir()
    assert stat.S_IMODE((tmp_path / "new" / ".charter").stat().st_mode) == 0o700


def test_doing_it_again_changes_nothing_and_says_so(tmp_path: Path) -> None:
    write_starter(tmp_path, person="ann")
    (tmp_path / "policies" / "authorise.cedar").write_text("// mine")
    (tmp_path / "charter.toml").unlink()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    again = write_starter(tmp_path, person="bob")
    assert [written.path.name for written in again if written.action == "written"] == ["charter.toml"]
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize("name", ["../outside", "/etc/outside"])
def test_nothing_is_written_outside_the_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(Misconfigured):
        write_starter(tmp_path / "in", person="ann", extra={name: "x"})


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CharterError) as caught:
        write_starter(tmp_path / "file", person="ann")
    assert caught.value.error_code == "starter_unwritable"


def keys_of(model: type[Model], prefix: str = "") -> set[str]:
    found: set[str] = set()
    for name, field in model.model_fields.items():
        if name in ("project", "source"):
            continue
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Model):
            found |= keys_of(kind, f"{prefix}{name}.")
        else:
            found.add(prefix + name)
    return found


def test_the_commented_file_shows_every_key_there_is_and_no_other(tmp_path: Path) -> None:
    shown = re.sub(r"(?m)^#(?=[a-z_]+ = |\[)", "", config_text(person="ann"))
    path = tmp_path / "charter.toml"
    path.write_text(shown)
    load_settings(path, environ={})
    table = tomllib.loads(shown)
    leaves: set[str] = set()
    for section, values in table.items():
        if not isinstance(values, dict):
            leaves.add(section)
            continue
        if section == "webhooks":  # one table a receiver, of any name; docs/signals.md has the other keys
            leaves.add(section)
            assert values["NAME"].keys() <= keys_of(WebhookSection)
            continue
        for key, value in values.items():
            nested = section == "auth" and key == "claims"
            leaves |= {f"auth.claims.{name}" for name in value} if nested else {f"{section}.{key}"}
    assert leaves == keys_of(Settings)
