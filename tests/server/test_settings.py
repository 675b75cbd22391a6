"""Configuration: where it is found, what wins, and that every mistake is named with its mend."""

from __future__ import annotations

from pathlib import Path

import pytest

from charter.errors import Misconfigured
from charter.server.settings import Settings, load_settings


def write(folder: Path, text: str, name: str = "charter.toml") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def load(folder: Path, text: str | None = None, **environ: str) -> Settings:
    if text is not None:
        write(folder, text)
    return load_settings(environ=environ, cwd=folder)


def mistake(folder: Path, text: str | None = None, **environ: str) -> Misconfigured:
    with pytest.raises(Misconfigured) as caught:
        load(folder, text, **environ)
    return caught.value


def test_without_a_file_the_defaults_hold_and_paths_count_from_the_working_folder(tmp_path: Path) -> None:
    settings = load(tmp_path)
    assert settings.source is None
    assert settings.resource == "http://127.0.0.1:8420/mcp" == settings.audience
    assert settings.local_issuer == "http://127.0.0.1:8420"
    assert settings.keys_folder == tmp_path.resolve() / ".charter" / "keys"
    assert settings.database_url == f"sqlite:///{tmp_path.resolve()}/.charter/charter.sqlite"
    assert settings.server.list_governed_tools is True


def test_the_search_order_is_option_then_variable_then_here_then_dot_charter(tmp_path: Path) -> None:
    hidden = write(tmp_path, "tenant = 'hidden'", ".charter/charter.toml")
    assert load(tmp_path).source == hidden.resolve()
    write(tmp_path, "tenant = 'here'")
    assert load(tmp_path).tenant == "here"
    write(tmp_path, "tenant = 'variable'", "v.toml")
    assert load(tmp_path, CHARTER_CONFIG="v.toml").tenant == "variable"
    option = write(tmp_path, "tenant = 'option'", "o.toml")
    told = load_settings(option, environ={"CHARTER_CONFIG": "v.toml"}, cwd=tmp_path)
    assert told.tenant == "option"


def test_paths_count_from_the_project_folder_wherever_the_file_lies(tmp_path: Path) -> None:
    write(tmp_path, "[policies]\nfolder = 'policies'", ".charter/charter.toml")
    settings = load(tmp_path)
    assert settings.policies.folder == tmp_path.resolve() / "policies"
    assert settings.store.data == tmp_path.resolve() / ".charter"


def test_variables_win_over_the_file_and_the_command_line_over_both(tmp_path: Path) -> None:
    write(tmp_path, "[server]\nport = 1\nlist_governed_tools = true")
    environ = {
        "CHARTER_SERVER_PORT": "2",
        "CHARTER_SERVER_LIST_GOVERNED_TOOLS": "false",
        "CHARTER_AUTH_HUMAN_CLIENTS": "console, cli",
        "CHARTER_AUTH_CLAIMS_ROLE_MAP": '{"g-1": "editor"}',
        "CHARTER_POLICIES_SHADOW": "candidate",
        "CHARTER_TOKEN": "not a setting",
    }
    settings = load_settings(environ=environ, cwd=tmp_path)
    assert settings.server.port == 2
    assert settings.server.list_governed_tools is False
    assert settings.auth.human_clients == ("console", "cli")
    assert settings.auth.claims.role_map == {"g-1": "editor"}
    assert settings.policies.shadow == tmp_path.resolve() / "candidate"
    told = load_settings(environ=environ, cwd=tmp_path, overrides={"server": {"port": 3}})
    assert (told.server.port, told.server.list_governed_tools) == (3, False)


def test_the_standard_variable_of_opentelemetry_counts_where_ours_is_not_set(tmp_path: Path) -> None:
    standard = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}
    assert load(tmp_path, None, **standard).telemetry.otlp_endpoint == "http://collector:4318"
    ours = {**standard, "CHARTER_TELEMETRY_OTLP_ENDPOINT": "http://ours:4318"}
    assert load(tmp_path, None, **ours).telemetry.otlp_endpoint == "http://ours:4318"


def test_an_unknown_key_is_an_error_that_names_file_key_and_the_nearest(tmp_path: Path) -> None:
    error = mistake(tmp_path, "[server]\nprot = 1")
    assert error.error_code == "config_unknown_key"
    assert str(tmp_path / "charter.toml") in error.message
    assert "'server.prot'" in error.message
    assert "Did you mean 'server.port'?" in error.message


def test_an_unknown_section_and_an_unknown_variable_are_errors_too(tmp_path: Path) -> None:
    assert "Did you mean 'server'?" in mistake(tmp_path, "[servr]\nport = 1").message
    (tmp_path / "charter.toml").unlink()
    error = mistake(tmp_path, CHARTER_SERVER_PROT="1")
    assert "CHARTER_SERVER_PROT" in error.message
    assert "CHARTER_SERVER_PORT" in error.message


@pytest.mark.parametrize("key", ["project", "source"])
def test_what_charter_finds_out_itself_cannot_be_set(tmp_path: Path, key: str) -> None:
    assert mistake(tmp_path, f"{key} = '/elsewhere'").error_code == "config_unknown_key"


def test_a_wrong_value_is_named_without_being_repeated(tmp_path: Path) -> None:
    error = mistake(tmp_path, "[telemetry]\notlp_endpoint = 'http://user:hunter2@collector'")
    assert "telemetry.otlp_endpoint" in error.message
    assert "hunter2" not in error.message
    error = mistake(tmp_path, "", CHARTER_SERVER_PORT="many")
    assert "CHARTER_SERVER_PORT" in error.message


def test_broken_toml_names_the_file_and_the_line(tmp_path: Path) -> None:
    error = mistake(tmp_path, "[server\nport = 1")
    assert error.error_code == "config_syntax"
    assert "line 1" in error.message


def test_a_file_that_was_asked_for_must_be_there(tmp_path: Path) -> None:
    assert mistake(tmp_path, CHARTER_CONFIG="gone.toml").error_code == "config_missing"


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "charter.example.org", "::"])
def test_there_is_no_anonymous_mode_off_loopback(tmp_path: Path, host: str) -> None:
    text = f"[server]\nhost = '{host}'\nanonymous = true\npublic_url = 'http://localhost:8420/mcp'"
    assert "loopback" in mistake(tmp_path, text).message


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "localhost", "::1"])
def test_anonymous_mode_is_allowed_on_loopback(tmp_path: Path, host: str) -> None:
    assert load(tmp_path, f"[server]\nhost = '{host}'\nanonymous = true").server.anonymous


def test_anonymous_mode_behind_a_public_url_is_refused(tmp_path: Path) -> None:
    text = "[server]\nanonymous = true\npublic_url = 'https://charter.example.org/mcp'"
    assert "public_url" in mistake(tmp_path, text).message


def test_listening_everywhere_needs_the_url_that_clients_use(tmp_path: Path) -> None:
    assert "public_url" in mistake(tmp_path, "[server]\nhost = '0.0.0.0'").message


@pytest.mark.parametrize(
    ("auth", "says"),
    [
        ("jwks_url = 'https://idp.example/keys'", "issuer"),
        ("issuer = 'x'\njwks_url = 'http://idp.example/keys'", "https"),
        ("algorithms = ['HS256']", "algorithms"),
        ("algorithms = ['none']", "algorithms"),
        ("issuer = 'http://127.0.0.1:8420'", "local_issuer"),
        ("human_clients = ['a']\nservice_clients = ['a']", "not both"),
    ],
)
def test_auth_settings_that_would_be_unsafe_are_refused(tmp_path: Path, auth: str, says: str) -> None:
    assert says in mistake(tmp_path, f"[auth]\n{auth}").message


def test_settings_cannot_be_changed(tmp_path: Path) -> None:
    settings = load(tmp_path)
    with pytest.raises(ValueError, match="frozen"):
        settings.tenant = "other"  # type: ignore[misc]
    assert settings.listening_on(9).resource == "http://127.0.0.1:9/mcp"
