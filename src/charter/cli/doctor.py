"""``charter doctor``: everything that an installation needs, looked at once, with the next step for what is wrong."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from json import JSONDecodeError
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import anyio
import typer

from charter.cli.failing import REFUSED, the_one
from charter.cli.output import Json, print_json, safe, say
from charter.cli.session import settings
from charter.errors import CharterError

if TYPE_CHECKING:
    from charter.model.tool import ToolManifest
    from charter.server.app import Charter
    from charter.server.settings_model import Settings
    from charter.store.port import Store

State = Literal["ok", "warning", "problem", "skipped"]
_SIGNS = {"ok": "✓", "warning": "!", "problem": "✗", "skipped": "-"}
LOW_DISK_BYTES = 512 * 1024 * 1024
NET_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at. A ``warning`` works, and should be known; a ``problem`` does not."""

    name: str
    state: State
    text: str
    next_step: str | None = None


def doctor(
    offline: Annotated[
        bool, typer.Option("--offline", help="Start and call nothing: no upstreams, no network addresses.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Look at configuration, keys, database, policies, templates, tools, upstreams and telemetry; 1 when one has a problem.

    It changes nothing. Upstreams are started and asked for their tools, as by `charter upstream check`.
    """
    checks = list(_checks(offline))
    if as_json:
        keys = ("name", "state", "text", "next_step")
        print_json(
            {
                "ok": all(check.state != "problem" for check in checks),
                "checks": [{key: getattr(check, key) for key in keys} for check in checks],
            }
        )
    else:
        _tell(checks)
    if any(check.state == "problem" for check in checks):
        raise typer.Exit(REFUSED)


def _tell(checks: list[Check]) -> None:
    width = max(len(check.name) for check in checks)
    for check in checks:
        say(f"{_SIGNS[check.state]} {check.name:<{width}}  {safe(check.text)}")
        if check.next_step and check.state != "ok":
            say(f"  {'':<{width}}  Next: {safe(check.next_step)}")
    bad = sum(check.state == "problem" for check in checks)
    say(f"{bad} problem{'' if bad == 1 else 's'}." if bad else "No problems.")


def _checks(offline: bool) -> Iterator[Check]:
    try:
        config = settings()
    except CharterError as error:
        yield _failed("configuration", error)
        return
    yield _configuration(config)
    tools = _tried("tools", lambda: _tools(config))
    found = [
        _tried("keys", lambda: _keys(config)),
        _tried("database", lambda: _database(config)),
        tools,
        _tried("templates", lambda: _templates(config)),
    ]
    if tools.state == "problem":  # policies speak of their arguments
        found.append(Check("policies", "skipped", "not read: first mend the tools"))
    else:
        found.append(_tried("policies", lambda: _policies(config)))
    yield from found
    yield from _ledger(config)
    broken = any(check.state == "problem" for check in found)
    if offline or broken:
        why = "not asked (--offline)" if offline else "not asked: first mend what is above"
        yield Check("upstreams", "skipped", why)
    else:
        yield from _tried_all("upstreams", lambda: _upstreams(config))
    if not offline:
        yield _tried("identity provider", lambda: _provider(config))
        yield _tried("telemetry", lambda: _telemetry(config))


def _tried(name: str, look: Callable[[], Check]) -> Check:
    return next(iter(_tried_all(name, lambda: [look()])))


def _tried_all(name: str, look: Callable[[], list[Check]]) -> list[Check]:
    try:
        return look()
    except (CharterError, BaseExceptionGroup, OSError) as error:
        return [_failed(name, the_one(error))]


def _failed(name: str, error: BaseException) -> Check:
    if isinstance(error, CharterError):
        return Check(name, "problem", error.message, error.next_step)
    if isinstance(error, OSError):
        text = f"{error.filename or 'A file'}: {error.strerror or type(error).__name__}."
        return Check(name, "problem", text, "Check the path and its rights.")
    return Check(name, "problem", f"It could not be looked at ({type(error).__name__}).", "Please report it.")


# -- files


def _configuration(config: Settings) -> Check:
    if config.source is None:
        text = "no charter.toml: the defaults are in force"
        return Check("configuration", "warning", text, "Run `charter init`, or name the file by --config.")
    if config.server.host not in ("127.0.0.1", "::1", "localhost") and config.server.public_url is None:
        text = f"{config.source}: listens on {config.server.host} without a public_url, which tokens must name"
        return Check("configuration", "warning", text, "Set [server] public_url to the https address that clients use.")
    return Check("configuration", "ok", f"{config.source}, tenant {config.tenant}")


def _keys(config: Settings) -> Check:
    from charter.server.keys import load_keys

    keys = load_keys(config.keys_folder)
    old = f", {len(keys.retired)} retired" if keys.retired else ""
    return Check("keys", "ok", f"{config.keys_folder}: private and whole{old}")


def _database(config: Settings) -> Check:
    path = _database_path(config)
    folder = next((part for part in path.parents if part.is_dir()), Path())
    free = shutil.disk_usage(folder).free
    if free < LOW_DISK_BYTES:
        text = f"only {free // (1024 * 1024)} MiB are free beside {path}"
        return Check("database", "problem", text, "Free space: Charter refuses work that it cannot put on record.")
    if not os.access(folder, os.W_OK):
        return Check("database", "problem", f"{folder} may not be written", "Give the folder to the user who serves.")
    if not path.exists():
        return Check("database", "ok", f"{path}: made at the first start")
    if os.name == "posix" and stat.S_IMODE(path.stat().st_mode) & 0o077:
        mode = f"{stat.S_IMODE(path.stat().st_mode):o}"
        return Check("database", "problem", f"{path}: others may read it (mode {mode})", f"Run: chmod 600 '{path}'")
    return Check("database", "ok", f"{path}: {anyio.run(_events, config)} events")


def _database_path(config: Settings) -> Path:
    return Path("/".join(("", *Path(config.database_url.removeprefix("sqlite:")).parts[1:])))


@asynccontextmanager
async def _opened(config: Settings) -> AsyncIterator[Store]:
    from charter.store.opening import open_store

    store = open_store(config.database_url)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


async def _events(config: Settings) -> int:
    async with _opened(config) as store:
        return (await store.head(config.tenant)).size


async def _published(config: Settings) -> tuple[str, ...]:
    from charter.gate.publishing import published

    async with _opened(config) as store:
        return await published(store, config.tenant)


def _policies(config: Settings) -> Check:
    from charter.server.evaluator import PolicySets

    folder = config.policies.folder
    sets = PolicySets(folder, config.policies.shadow, _manifests(config))
    shadow = ", and a shadow set" if config.policies.shadow else ""
    return Check("policies", "ok", f"{folder or 'the shipped set'}: {str(sets.active.hash)[:19]}…{shadow}")


def _templates(config: Settings) -> Check:
    from charter.server.templates import SHARE, missing, read_templates

    catalogue = read_templates(config.workflows.templates)
    default = config.workflows.default_template
    catalogue.latest(default)
    lost = (
        missing(config.workflows.templates, anyio.run(_published, config)) if _database_path(config).exists() else None
    )
    if lost is not None:
        return Check("templates", "warning", lost, SHARE)
    return Check("templates", "ok", f"{len(catalogue.all())} templates; by default {default}")


def _manifests(config: Settings) -> list[ToolManifest]:
    from charter.tools.folder import load_folder

    folder = config.tools.manifests
    if folder is None or not folder.is_dir():
        return []
    return [tool for upstream in load_folder(folder) for tool in upstream.tools]


def _tools(config: Settings) -> Check:
    count = len(_manifests(config))
    if not count:
        text = "no tool is governed: agents can start workflows and do nothing in them"
        return Check("tools", "warning", text, "Run `charter upstream add NAME -- COMMAND`.")
    return Check("tools", "ok", f"{count} tools in {config.tools.manifests}")


def _ledger(config: Settings) -> Iterator[Check]:
    published = config.audit.publish_file
    if published is None:
        text = "checkpoints are kept on this machine only: whoever holds keys and database could rewrite both"
        yield Check("checkpoints", "warning", text, "Set [audit] publish_file to a place that others keep.")
    elif not os.access(published if published.exists() else published.parent, os.W_OK):
        yield Check("checkpoints", "problem", f"{published} may not be written", "Make it, or correct its rights.")
    else:
        yield Check("checkpoints", "ok", f"published to {published}")


# -- what answers, or does not


def _upstreams(config: Settings) -> list[Check]:
    from charter.cli.session import run
    from charter.server.settings_model import TelemetrySection

    async def look(charter: Charter) -> list[Check]:
        assert charter.registry is not None  # it connects
        found = []
        for status in charter.registry.upstreams():
            name = f"upstream {status.server}"
            if status.state != "ready":
                text = f"{status.state}: {status.last_error or 'it does not answer'}"
                found.append(Check(name, "problem", text, f"See `charter upstream check {status.server}`."))
            else:
                found.append(Check(name, "ok", f"ready, offers {status.offered} tools"))
        for entry in charter.registry.entries():
            if entry.quarantine is not None:
                tool = entry.manifest.name
                text = f"{tool} is not what was pinned: calls are denied"
                found.append(Check("pins", "problem", text, f"Read `charter tools diff {tool}`, then pin it."))
        return found

    quiet = config.model_copy(update={"telemetry": TelemetrySection()})
    return run(look, connect=True, using=quiet) or [Check("upstreams", "ok", "none configured")]


def _provider(config: Settings) -> Check:
    url = config.auth.jwks_url
    if url is None:
        return Check("identity provider", "ok", "none: Charter's own tokens")
    import httpx2

    from charter.server.jwks import JwksKeys

    mend = "Check [auth] jwks_url; tokens of the provider cannot be verified."
    try:
        count = anyio.run(JwksKeys(str(url)).look)  # as the server fetches them
    except (httpx2.HTTPError, httpx2.InvalidURL, TimeoutError) as error:
        return Check("identity provider", "problem", f"{url} does not answer ({type(error).__name__})", mend)
    except ValueError as error:
        reason = "not JSON" if isinstance(error, UnicodeDecodeError | JSONDecodeError) else str(error)
        return Check("identity provider", "problem", f"{url} gives no JWK set that can be used ({reason})", mend)
    return Check("identity provider", "ok", f"{url} has {count} key{'' if count == 1 else 's'}")


def _telemetry(config: Settings) -> Check:
    url = config.telemetry.otlp_endpoint
    if url is None:
        return Check("telemetry", "ok", "off")
    return _answers("telemetry", str(url), "Start the collector, or correct [telemetry] otlp_endpoint.")


def _answers(name: str, url: str, next_step: str) -> Check:
    """Any answer is one: a collector takes no GET. Its body is not read: it may have no end."""
    import httpx2

    try:
        with httpx2.stream("GET", url, timeout=NET_SECONDS):
            pass
    except httpx2.HTTPError as error:
        return Check(name, "problem", f"{url} does not answer ({type(error).__name__})", next_step)
    return Check(name, "ok", f"{url} answers")
