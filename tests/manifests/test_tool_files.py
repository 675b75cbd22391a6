"""One file an upstream: it comes back as written, names its mistakes, and holds no secret."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from charter.errors import Misconfigured
from charter.manifests.definitions import definition_hash, propose_manifest
from charter.manifests.tool_files import (
    HttpConnection,
    Reference,
    StdioConnection,
    UpstreamManifest,
    parse,
    render,
)

TOOL: dict[str, Any] = {
    "name": "send",
    "title": "Send",
    "description": "Send it.\n\nTwice is twice: yes.\n",
    "inputSchema": {
        "type": "object",
        "properties": {"to": {"type": "string"}, "on": {"default": 1.5e30}, "no": {"const": "no"}},
        "required": ["to"],
    },
    "annotations": {"destructiveHint": True},
}
PREVIEW = {"name": "preview_send", "inputSchema": {"type": "object"}, "annotations": {"readOnlyHint": True}}


def upstream(**more: Any) -> UpstreamManifest:
    connection = HttpConnection(
        url="https://mail.example.org/mcp", headers={"Authorization": Reference(env="MAIL_TOKEN", prefix="Bearer ")}
    )
    tools = (propose_manifest("mail", TOOL), propose_manifest("mail", PREVIEW))
    return UpstreamManifest.model_validate({"server": "mail", "connection": connection, "tools": tools, **more})


def problem(text: str) -> Misconfigured:
    with pytest.raises(Misconfigured) as caught:
        parse(text, "mail.tools.yaml")
    assert caught.value.error_code == "bad_tool_file"
    assert caught.value.detail["file"] == "mail.tools.yaml"
    return caught.value


def test_no_upstream_takes_the_name_of_charters_own_tools() -> None:
    text = render(upstream()).replace("server: mail", "server: charter", 1)
    assert "Charter's own tools" in problem(text).message


def test_what_is_written_is_what_is_read() -> None:
    assert parse(render(upstream()), "mail.tools.yaml") == upstream()
    other = upstream(
        connection=StdioConnection(command="x", args=("--a", "b"), env={"T": Reference(secret="s")}, cwd="/tmp"),
        concurrency=3,
        max_result_bytes=2048,
    )
    assert parse(render(other), "mail.tools.yaml") == other
    assert parse(render(upstream(tools=())), "mail.tools.yaml").tools == ()


texts = st.text(max_size=40)
schemas = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


@example("0E0", "1e3")
@example("012", "-.5")
@settings(max_examples=60, deadline=None)
@given(texts, schemas)
def test_any_definition_survives_the_file(description: str, default: Any) -> None:
    tool = {"name": "t", "description": description, "inputSchema": {"type": "object", "default": default}}
    manifest = upstream(tools=(propose_manifest("mail", tool),))
    read = parse(render(manifest), "f.tools.yaml")
    assert read.tools[0].definition_hash == definition_hash(tool)
    assert read == manifest


def test_the_file_explains_itself() -> None:
    text = render(upstream())
    assert "Secrets never stand here" in text
    assert "risk: high" in text


@pytest.mark.parametrize(
    ("text", "says", "line"),
    [
        ("", "must be a map", 1),
        ("server: mail\nconnection: [", "node", 3),
        ("server: mail", "either a command or a url", 1),
        ("server: a__b\nconnection: {command: x}", "match", 1),
        ("server: mail\nconnection:\n  command: x\n  port: 1", "Extra inputs", 4),
        ("server: mail\nserver: other\nconnection: {command: x}", "given twice", 2),
        ("server: mail\nconnection: &a {command: x}\ntools: [*a]", "aliases", 3),
        ("server: mail\nconnection: {command: x}\ntools:\n  - risk: low", "needs its name", 4),
        ("server: mail\nconnection: {command: x}\ntools:\n  - tool: t", "pinned definition", 4),
        ("server: mail\nconnection: {command: x, env: {A: {env: B, value: c}}}", "exactly one", 2),
    ],
)
def test_a_mistake_is_named_with_file_and_line(text: str, says: str, line: int) -> None:
    error = problem(text)
    assert says in error.message
    assert error.detail["line"] == line
    assert error.next_step


@pytest.mark.parametrize(
    "connection",
    [
        "{command: x, env: {API_KEY: {value: s3cr3t}}}",
        "{command: x, args: [--token=s3cr3t]}",
        "{url: 'https://user:s3cr3t@example.org/mcp'}",
        "{url: 'https://example.org/mcp?api_key=s3cr3t'}",
        "{url: 'https://example.org/mcp', headers: {Authorization: {value: s3cr3t}}}",
    ],
)
def test_a_secret_in_clear_is_refused_and_not_repeated(connection: str) -> None:
    error = problem(f"server: mail\nconnection: {connection}")
    assert "s3cr3t" not in str(error.as_json())


def test_an_edited_definition_is_found_out() -> None:
    error = problem(render(upstream()).replace("Send it.", "Send it to me."))
    assert "hash" in error.message
    assert "charter tools pin" in error.next_step


def test_a_preview_must_have_no_side_effects() -> None:
    good = render(upstream()).replace("- tool: send\n", "- tool: send\n    dry_run: {tool: preview_send}\n")
    assert parse(good, "f").tools[0].dry_run is not None
    assert "cannot preview" in problem(good.replace("{tool: preview_send}", "{tool: send}")).message
    assert "cannot preview" in problem(good.replace("{tool: preview_send}", "{tool: other}")).message


def test_a_field_that_comes_from_the_definition_is_not_written_twice() -> None:
    text = render(upstream()).replace("- tool: send\n", "- tool: send\n    description: other\n")
    assert "description is not written here" in problem(text).message


def test_pointers_are_checked() -> None:
    text = render(upstream()).replace("- tool: send\n", "- tool: send\n    sensitive_results: [token]\n")
    assert "JSON pointer" in problem(text).message


def test_yaml_1_1_surprises_are_text() -> None:
    text = "server: mail\nconnection:\n  command: x\n  args: [no, on, 2026-01-01, '1', 12:30]"
    connection = parse(text, "f").connection
    assert isinstance(connection, StdioConnection)
    assert connection.args == ("no", "on", "2026-01-01", "1", "12:30")
