"""`charter doctor`: a whole installation has no problems; each thing that is broken is named with its next step, and 1."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.support import Project
from tests.ports import free_port
from tests.web import Says, site


def checks(project: Project, *options: str) -> tuple[int, dict[str, dict[str, Any]]]:
    done = project.here("doctor", "--json", *options)
    assert (done.code == 0) == done.json["ok"], done.both
    return done.code, {check["name"]: check for check in done.json["checks"]}


def test_a_new_installation_has_no_problems_and_nothing_is_changed(project: Project) -> None:
    code, found = checks(project)
    assert code == 0
    assert found["upstream casebook"]["state"] == "ok"
    assert {name for name, check in found.items() if check["state"] != "ok"} == {"checkpoints"}
    said = project.here("doctor", "--offline")
    assert said.code == 0
    assert "No problems." in said.out
    assert "publish_file" in said.out, "a warning says what to do"
    assert checks(project, "--offline")[1]["upstreams"]["state"] == "skipped"


def edit(name: str, pattern: str, text: str) -> Callable[[Project], None]:
    def change(project: Project) -> None:
        path = project.folder / name
        changed, count = re.subn(pattern, lambda _: text, path.read_text("utf-8"), count=1)
        assert count, pattern
        path.write_text(changed, "utf-8")

    return change


def opened(name: str) -> Callable[[Project], None]:
    return lambda project: (project.folder / name).chmod(0o644)


TOML, TOOLS = "charter.toml", "tools/casebook.tools.yaml"
BROKEN: dict[str, tuple[Callable[[Project], None], str, str, bool]] = {
    "a setting's name": (edit(TOML, r"\A", "tenent = 'x'\n"), "configuration", "Known keys", True),
    "rights of a key": (opened(".charter/keys/tokens.json"), "keys", "chmod 600", True),
    "rights of the database": (opened(".charter/charter.sqlite"), "database", "chmod 600", True),
    "a policy": (edit("policies/authorise.cedar", r"permit \(", "permt ("), "policies", "", True),
    "a tool file": (edit(TOOLS, r"\A", "server: [\n"), "tools", "", True),
    "an upstream's command": (
        edit(TOOLS, r"command: \S+", "command: /nowhere"),
        "upstream casebook",
        "upstream check",
        False,
    ),
    "a pin changed by hand": (edit(TOOLS, r"sha256:[0-9a-f]{64}", "sha256:" + "0" * 64), "tools", "", True),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_named_with_its_next_step(
    project: Project, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("charter.server.app.CHECKING_SECONDS", 0.5)  # for the upstream that never comes
    change, check, mend, offline = BROKEN[name]
    change(project)
    code, found = checks(project, *(["--offline"] if offline else []))
    assert code == 1
    assert [each["name"] for each in found.values() if each["state"] == "problem"] == [check]
    assert mend in found[check]["next_step"]


def test_addresses_that_do_not_answer_are_named(
    project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    monkeypatch.setenv("CHARTER_TELEMETRY_OTLP_ENDPOINT", url)
    monkeypatch.setenv("CHARTER_AUDIT_PUBLISH_FILE", str(tmp_path / "nowhere" / "points.txt"))
    code, found = checks(project)
    assert code == 1
    assert {name for name, check in found.items() if check["state"] == "problem"} == {"telemetry", "checkpoints"}
    assert url in found["telemetry"]["text"]


KEY = {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", "kid": "one"}
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1000000000\r\n\r\n"


@pytest.mark.parametrize(
    ("says", "state", "text"),
    [
        (Says(200, {"keys": [KEY]}), "ok", "has 1 key"),
        (Says(200, {"keys": []}), "problem", "no usable key"),
        (Says(200, b"<html>"), "problem", "not JSON"),
        (Says(500), "problem", "status 500"),
        (Says(raw=HEAD + b" " * 300_000), "problem", "too big"),
    ],
)
def test_the_identity_provider_is_asked_for_its_keys_as_the_server_asks(
    project: Project, monkeypatch: pytest.MonkeyPatch, says: Says, state: str, text: str
) -> None:
    with site(lambda _: says) as provider:
        monkeypatch.setenv("CHARTER_AUTH_JWKS_URL", provider.url)
        monkeypatch.setenv("CHARTER_AUTH_ISSUER", provider.url)
        found = checks(project)[1]["identity provider"]
    assert (found["state"], text in found["text"]) == (state, True), found


def test_a_collector_whose_answer_has_no_end_is_not_waited_for(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    with site(lambda _: Says(raw=HEAD + b" " * 1000)) as collector:
        monkeypatch.setenv("CHARTER_TELEMETRY_OTLP_ENDPOINT", collector.url)
        assert checks(project)[1]["telemetry"]["state"] == "ok"
