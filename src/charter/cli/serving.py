"""``charter serve`` and ``charter mcp-config``."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import anyio
import typer

from charter.cli.output import Json, note, print_json, say
from charter.cli.session import chosen_config, settings, verifier
from charter.errors import Misconfigured

if TYPE_CHECKING:
    from charter.server.app import Charter
    from charter.server.mcp import CharterServer
    from charter.server.settings_model import Settings

Client = Literal["claude", "vscode", "cursor", "codex", "gemini"]
ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="The charter.toml. Same as `charter --config FILE serve`.")
]


def serve(
    stdio: Annotated[bool, typer.Option("--stdio", help="Serve one client on standard input and output.")] = False,
    host: Annotated[str | None, typer.Option("--host", help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option("--port", help="Port to listen on; 0 takes a free one.")] = None,
    anonymous: Annotated[
        bool, typer.Option("--anonymous", help="No tokens; the caller is [stdio]'s. Loopback addresses only.")
    ] = False,
    config: ConfigOption = None,
) -> None:
    """Serve MCP over streamable HTTP, or with --stdio over standard input and output, until SIGINT or SIGTERM."""
    from charter.server.http import loop_options
    from charter.server.settings import load_settings

    server: dict[str, Any] = {"host": host, "port": port, "anonymous": anonymous or None}
    chosen = {name: value for name, value in server.items() if value is not None}
    loaded = load_settings(config or chosen_config.get(), overrides={"server": chosen} if chosen else None)
    _log_to_stderr(loaded.server.log_level)
    if stdio:
        anyio.run(_serve_stdio, loaded)
    else:
        anyio.run(_serve_http, loaded, backend_options=loop_options())


def _log_to_stderr(level: str) -> None:
    """Below INFO only Charter's own loggers are heard: what libraries say there are whole requests and answers."""
    logging.basicConfig(
        stream=sys.stderr,
        level=max(logging.INFO, logging.getLevelNamesMapping()[level.upper()]),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        force=True,
    )
    logging.getLogger("charter").setLevel(level.upper())


def _door(charter: Charter, *, stdio: bool) -> CharterServer:
    """The MCP server in front of this Charter."""
    from charter import __version__
    from charter.server.auth import current_principal
    from charter.server.http import fallback_principal
    from charter.server.mcp import DoorSettings, build_mcp_server

    fallback = fallback_principal(charter.settings, stdio=stdio)
    server = build_mcp_server(
        charter.gate,
        charter.queries,
        principal_of=lambda _request: current_principal(fallback),
        settings=DoorSettings(
            version=__version__,
            list_governed_tools=charter.settings.server.list_governed_tools,
            request_state_keys=charter.keys.request_state,
            templates=_startable(charter),
            default_template=charter.settings.workflows.default_template,
        ),
    )
    if charter.registry is not None:
        charter.registry.subscribe(server.notices.tools_changed)
    charter.engine.relay_when(server.notices.wanted)
    return server


def _startable(charter: Charter) -> tuple[tuple[str, str], ...]:
    """Name and description of each template, in its newest version."""
    from charter.server.templates import read_templates

    published = read_templates(charter.settings.workflows.templates).all()
    newest = {template.name: template for template, _ in reversed(published)}
    return tuple((name, newest[name].description or newest[name].title or "") for name in sorted(newest))


async def _serve_http(config: Settings) -> None:
    from charter.server.app import running
    from charter.server.callbacks import CallbackKeys, callback_route
    from charter.server.http import bind, build_http_app, serve_http
    from charter.server.signals_http import ingestion_route
    from charter.server.signals_stream import stream_route

    listening = bind(config)  # first: a port that is taken should be said at once
    bound = config.listening_on(listening.getsockname()[1])
    try:
        async with running(bound) as charter:
            tokens = None if bound.server.anonymous else verifier(bound, charter.keys)
            keys = CallbackKeys(charter.keys.sealing, charter.keys.sealing_current)
            routes = [
                ingestion_route(charter.gate, bound),
                stream_route(charter.outlet, bound),
                callback_route(charter.gate, keys),
            ]
            app = build_http_app(
                _door(charter, stdio=False),
                settings=bound,
                verifier=tokens,
                extra_routes=routes,
                degraded=partial(_trouble, charter),
            )
            await serve_http(
                app, bound, listening=listening, on_ready=lambda url: _ready(bound, url), drain=partial(_drain, charter)
            )
    finally:
        listening.close()
    note("Charter has stopped; everything acknowledged is on disk.")


async def _drain(charter: Charter) -> None:
    """Say why the process does not end at once, where it does not."""
    if running := charter.gate.under_way.count:
        seconds = charter.settings.server.drain_seconds
        note(f"Charter is stopping: up to {seconds} s for {running} running call(s); a second signal ends it at once.")
    await charter.drain()


def _trouble(charter: Charter) -> str | None:
    """What is wrong with a server that goes on all the same: the code."""
    return charter.store.trouble() or (charter.registry.reload_code if charter.registry is not None else None)


def _keep_what_is_loaded() -> None:
    """What is there when it begins to serve stays to the end, so no collection of garbage looks at it again.

    Each would take a tenth of a second, in which no call goes on and no timer fires.
    """
    gc.freeze()


def _ready(config: Settings, url: str) -> None:
    _keep_what_is_loaded()
    note(f"Charter serves MCP at {url}")
    if config.server.anonymous:
        note(f"  no token needed: the caller is {config.stdio.agent} (loopback only)")
    else:
        moved = f" --audience {url}" if url != _configured_url(config) else ""
        note(f"  a token:  export CHARTER_TOKEN=$(charter token issue --agent NAME --acts-for YOU{moved})")
    note("  a client: charter mcp-config --http --client claude   (vscode, cursor, codex, gemini)")
    note("  people:   charter approvals list")


def _configured_url(config: Settings) -> str:
    """What other commands take for this server's URL: the file's, without this command's options."""
    from charter.server.settings import load_settings

    return load_settings(config.source).resource


async def _serve_stdio(config: Settings) -> None:
    """Until the client closes its end or a signal comes, and running calls have ended; the second of them ends at once.

    Nothing but MCP goes to standard output.
    """
    from charter.cli.stdin_relay import endable_stdin
    from charter.server.app import running
    from charter.server.stdio import serve_stdio

    stops: asyncio.Queue[None] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def client_left() -> None:
        loop.call_soon_threadsafe(stops.put_nowait, None)

    async with running(config) as charter:
        door, acting = _door(charter, stdio=True), f" for {config.stdio.acts_for}" if config.stdio.acts_for else ""
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals, endable_stdin(client_left) as end:
            _keep_what_is_loaded()
            note(f"Charter serves MCP on standard input and output; the caller is {config.stdio.agent}{acting}.")
            async with anyio.create_task_group() as tasks:

                async def on_signal() -> None:
                    async for _ in signals:
                        stops.put_nowait(None)

                async def drained() -> None:
                    await _drain(charter)
                    end()

                async def until_asked_twice() -> None:
                    await stops.get()
                    tasks.start_soon(drained)
                    await stops.get()
                    end()

                tasks.start_soon(on_signal)
                tasks.start_soon(until_asked_twice)
                await serve_stdio(door)
                tasks.cancel_scope.cancel()
    note("Charter has stopped; everything acknowledged is on disk.")


def mcp_config(
    client: Annotated[Client, typer.Option("--client", help="Whose configuration.", case_sensitive=False)],
    http: Annotated[bool, typer.Option("--http", help="The client connects to a running `charter serve`.")] = False,
    stdio: Annotated[bool, typer.Option("--stdio", help="The client starts Charter itself (the default).")] = False,
    url: Annotated[str | None, typer.Option("--url", help="The server's URL, where it is not the configured.")] = None,
    as_json: Json = False,
) -> None:
    """Print the entry for a client's own configuration file."""
    from charter.server import client_config

    if http and stdio:
        raise typer.BadParameter("give either --http or --stdio")
    loaded = settings()
    if not loaded.keys_folder.is_dir():
        raise Misconfigured("There is no Charter here yet.", code="keys_missing", next_step="Run `charter init`.")
    given: dict[str, Any] = {"mode": "http", "url": url or loaded.resource}
    if not (http or url):
        given = {"mode": "stdio", "command": _start_command(loaded)}
    if as_json:
        entry = client_config.mcp_entry(client, **given)
        print_json({"where": entry.where, "body": entry.body, "notes": entry.notes})
        return
    say(client_config.mcp_config(client, **given).rstrip())


def _start_command(loaded: Settings) -> list[str]:
    """Absolute paths: clients start it in folders of theirs."""
    config = ["--config", str(loaded.source)] if loaded.source else []
    return [sys.executable, "-m", "charter.cli", "serve", "--stdio", *config]
