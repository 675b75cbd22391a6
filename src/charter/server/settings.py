"""Configuration, read once at the edge. Nothing else in Charter reads the environment.

Sources, later ones win: the defaults here, ``charter.toml``, ``CHARTER_*`` variables. The file is the first
that is there of ``--config``, ``$CHARTER_CONFIG``, ``./charter.toml``, ``./.charter/charter.toml``. A key
``[section] name`` is overridden by ``CHARTER_SECTION_NAME`` (lists by commas, tables as JSON). Unknown keys
are errors that name the nearest known one.

Relative paths count from the *project folder*: the folder of the file, or the one above when the file lies in
``.charter``.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, get_args, get_origin

import orjson
from pydantic import ValidationError

from charter.errors import Misconfigured
from charter.model.base import Model
from charter.server.settings_model import MCP_PATH, Settings, is_loopback

__all__ = ["MCP_PATH", "Settings", "find_config", "is_loopback", "load_settings"]

CONFIG_VARIABLE = "CHARTER_CONFIG"


def load_settings(
    config: Path | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
) -> Settings:
    """Read the configuration. ``overrides`` (section -> key -> value) are the command line's; they win over
    everything.

    Raises ``Misconfigured`` naming file or variable, key and mend.
    """
    environ = os.environ if environ is None else environ
    cwd = (cwd or Path.cwd()).resolve()
    source = find_config(config, environ=environ, cwd=cwd)
    project = _project_folder(source) if source else cwd
    table = _read_toml(source) if source else {}
    _refuse_unknown(table, Settings, str(source))
    from_environment = _from_environment(environ)
    for extra in (from_environment, overrides or {}):
        _merge(table, extra)
    where = _where(source, from_environment)
    try:
        settings = Settings.model_validate({**table, "project": project, "source": source})
    except ValidationError as error:
        raise _explained(error, where) from None
    return _with_absolute_paths(settings)


def find_config(config: Path | None, *, environ: Mapping[str, str], cwd: Path) -> Path | None:
    """The configuration file, or None when there is none and none was asked for."""
    named = config or (Path(environ[CONFIG_VARIABLE]) if environ.get(CONFIG_VARIABLE) else None)
    if named is not None:
        path = cwd / named
        if not path.is_file():
            asked = "--config" if config else CONFIG_VARIABLE
            raise Misconfigured(
                f"{path}: there is no such file ({asked} names it).",
                code="config_missing",
                next_step="Correct the path, or run `charter init` to write a charter.toml.",
            )
        return path.resolve()
    candidates = (cwd / "charter.toml", cwd / ".charter" / "charter.toml")
    return next((path for path in candidates if path.is_file()), None)


def _project_folder(source: Path) -> Path:
    return source.parent.parent if source.parent.name == ".charter" else source.parent


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Misconfigured(
            f"{path}: not valid TOML: {error}",
            code="config_syntax",
            next_step="Correct the line named above.",
        ) from None
    except OSError as error:
        raise Misconfigured(f"{path}: cannot be read: {error.strerror}.", code="config_unreadable") from None


def _merge(table: dict[str, Any], extra: Mapping[str, Any]) -> None:
    for key, value in extra.items():
        if isinstance(value, Mapping) and isinstance(table.get(key), dict):
            _merge(table[key], value)
        else:
            table[key] = dict(value) if isinstance(value, Mapping) else value


_NOT_IN_FILES = ("project", "source")


def _fields(model: type[Model]) -> dict[str, Any]:
    return {name: field.annotation for name, field in model.model_fields.items() if name not in _NOT_IN_FILES}


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Model)


def _refuse_unknown(table: Mapping[str, Any], model: type[Model], source: str, prefix: str = "") -> None:
    known = _fields(model)
    for key, value in table.items():
        if key not in known:
            raise Misconfigured(
                f"{source}: unknown key {prefix + key!r}.{_nearest(key, known, prefix)}",
                code="config_unknown_key",
                next_step=f"Known keys here: {', '.join(sorted(prefix + name for name in known))}.",
            )
        if _is_section(known[key]) and isinstance(value, dict):
            _refuse_unknown(value, known[key], source, f"{prefix}{key}.")


def _nearest(key: str, known: Iterable[str], prefix: str = "") -> str:
    close = difflib.get_close_matches(key, list(known), n=1, cutoff=0.5)
    return f" Did you mean {prefix + close[0]!r}?" if close else ""


def _variables(model: type[Model] = Settings, path: tuple[str, ...] = ()) -> dict[str, tuple[tuple[str, ...], Any]]:
    """Every variable that overrides a key: its name, and the key's path and type."""
    out: dict[str, tuple[tuple[str, ...], Any]] = {}
    for name, annotation in _fields(model).items():
        here = (*path, name)
        if _is_section(annotation):
            out |= _variables(annotation, here)
        else:
            out["CHARTER_" + "_".join(here).upper()] = (here, annotation)
    return out


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    known = _variables()
    sections = tuple(f"CHARTER_{name.upper()}_" for name, kind in _fields(Settings).items() if _is_section(kind))
    table: dict[str, Any] = {}
    for name, text in environ.items():
        if name in known:
            path, annotation = known[name]
            target = table
            for part in path[:-1]:
                target = target.setdefault(part, {})
            target[path[-1]] = _parsed(name, text, annotation)
        elif name.startswith(sections):
            raise Misconfigured(
                f"Environment: unknown variable {name}.{_nearest(name, known)}",
                code="config_unknown_key",
                next_step="Unset it or correct its name: CHARTER_SECTION_KEY, as in charter.toml.",
            )
    if environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
        table.setdefault("telemetry", {}).setdefault("otlp_endpoint", environ["OTEL_EXPORTER_OTLP_ENDPOINT"])
    return table


def _parsed(name: str, text: str, annotation: Any) -> Any:
    """Text to what pydantic takes: lists by commas, tables as JSON, an empty text for "not set" where that is
    allowed.
    """
    if get_origin(annotation) is tuple:
        return tuple(part.strip() for part in text.split(",") if part.strip())
    if get_origin(annotation) is dict:
        try:
            return orjson.loads(text)
        except orjson.JSONDecodeError:
            raise Misconfigured(f"Environment: {name} must be a JSON object.", code="config_invalid") from None
    if not text and type(None) in get_args(annotation):
        return None
    return text


def _where(source: Path | None, from_environment: Mapping[str, Any]) -> Any:
    def named(path: tuple[Any, ...]) -> str:
        node: Any = from_environment
        for part in path:
            if not isinstance(node, Mapping) or part not in node:
                return str(source) if source else "defaults"
            node = node[part]
        return (
            "environment CHARTER_" + "_".join(str(part) for part in path).upper() if path else str(source or "settings")
        )

    return named


def _explained(error: ValidationError, where: Any) -> Misconfigured:
    """The first problem in words; values are left out, since a header or a URL may be a secret."""
    lines = []
    for problem in error.errors(include_url=False, include_input=False, include_context=False):
        path = tuple(problem["loc"])
        key = ".".join(str(part) for part in path)
        lines.append(f"{where(path)}: {key + ': ' if key else ''}{problem['msg'].removeprefix('Value error, ')}")
    return Misconfigured(
        "; ".join(lines[:5]) + ".", code="config_invalid", next_step="Correct the named key and start again."
    )


def _with_absolute_paths(settings: Settings) -> Settings:
    def absolute(section: Model) -> Model:
        paths = {name: value for name, value in section if isinstance(value, Path)}
        return section.model_copy(update={name: settings.project / path for name, path in paths.items()})

    sections = {name: absolute(value) for name, value in settings if isinstance(value, Model)}
    return settings.model_copy(update=sections)


def process_environment() -> Mapping[str, str]:
    """A copy of the environment, for what tool manifests refer to by name; upstreams get only what they refer
    to.
    """
    return dict(os.environ)
