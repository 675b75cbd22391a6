"""Which tools are governed, where they live, and whether each still is what was pinned.

Looking one up costs a dictionary read: the comparison of every pin with what its upstream offers is made once for each
listing. A tool that differs is quarantined, one that is gone is unavailable, one that nobody listed is not governed.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import anyio
from anyio.abc import TaskGroup

from charter.errors import CharterError, NotFound
from charter.manifests.definitions import definition_diff, pinned_definition
from charter.manifests.plain_text import one_line
from charter.manifests.tool_files import UpstreamManifest
from charter.model.tool import Quarantine, ToolManifest
from charter.tools.connecting import Sources
from charter.tools.folder import by_server
from charter.tools.upstream import DEFAULT_PACE, Pace, Upstream

logger = logging.getLogger(__name__)

Load = Callable[[], Iterable[UpstreamManifest]]


@dataclass(frozen=True, slots=True)
class Entry:
    """One governed tool now. ``unavailable`` says why it cannot be called (not connected, gone), or is None."""

    manifest: ToolManifest
    upstream: Upstream
    quarantine: Quarantine | None = None
    unavailable: str | None = None

    @property
    def callable(self) -> bool:
        """Whether a call would be sent now."""
        return self.quarantine is None and self.unavailable is None


@dataclass(frozen=True, slots=True)
class UpstreamStatus:
    """For the operator: how an upstream is. ``ungoverned`` are tools that it offers and no manifest names, ``refused``
    those whose definition cannot be used, with the reason."""

    server: str
    state: str
    era: str | None
    offered: int
    ungoverned: tuple[str, ...]
    last_error: str | None
    stderr: str
    refused: tuple[str, ...] = ()


class Registry:
    """The upstreams of one server process. Enter :meth:`running` in the task that owns the process's life.

    ``load`` gives the manifests; :meth:`reload` calls it again. ``fingerprint``, where given, is asked every
    ``poll_seconds`` and leads to a reload when its answer changes (the command line pins tools in another process).
    """

    def __init__(
        self,
        load: Load,
        sources: Sources,
        *,
        pace: Pace = DEFAULT_PACE,
        fingerprint: Callable[[], object] | None = None,
        poll_seconds: float = 2.0,
    ) -> None:
        self._load, self._sources, self._pace = load, sources, pace
        self._fingerprint, self._poll_seconds = fingerprint, poll_seconds
        self._upstreams: dict[str, Upstream] = {}
        self._scopes: dict[str, anyio.CancelScope] = {}
        self._entries: Mapping[str, Entry] = {}
        self._listeners: dict[int, Callable[[], None]] = {}
        self._tasks: TaskGroup | None = None
        self.reload_error: str | None = None
        """Why the manifests as they are now were not taken; those before stay in force. ``reload_code``: its stable code."""
        self.reload_code: str | None = None
        self._take(by_server(load()))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Registry]:
        """Connect every upstream and keep it so; on leaving, disconnect them all."""
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            for server in list(self._upstreams):
                self._start(server)
            if self._fingerprint is not None:
                tasks.start_soon(self._watch_files, self._fingerprint)
            try:
                yield self
            finally:
                self._tasks = None
                tasks.cancel_scope.cancel()

    async def wait_ready(self, seconds: float = 15.0) -> tuple[str, ...]:
        """Wait until every upstream is connected, at most so long; the names of those that are not."""
        upstreams = list(self._upstreams.values())
        async with anyio.create_task_group() as tasks:
            for upstream in upstreams:
                tasks.start_soon(upstream.wait_ready, seconds)
        return tuple(upstream.manifest.server for upstream in upstreams if upstream.state != "ready")

    def find(self, name: str) -> Entry | None:
        """The governed tool ``server__tool``, or None."""
        return self._entries.get(name)

    def get(self, name: str) -> Entry:
        """As :meth:`find`, but raises ``NotFound`` (``unknown_tool``)."""
        entry = self._entries.get(name)
        if entry is None:
            raise NotFound(
                f"There is no governed tool {name!r}.",
                code="unknown_tool",
                next_step="Call describe_tools for the names; the operator adds tools with `charter upstream add`.",
            )
        return entry

    def entries(self) -> tuple[Entry, ...]:
        """All governed tools, by name."""
        return tuple(self._entries[name] for name in sorted(self._entries))

    def upstreams(self) -> tuple[UpstreamStatus, ...]:
        """How each upstream is, by name."""
        return tuple(_status(self._upstreams[server]) for server in sorted(self._upstreams))

    def subscribe(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call ``listener`` (in the event loop, it must not wait) after every change; the result ends it."""
        key = id(listener)
        self._listeners[key] = listener

        def end() -> None:
            self._listeners.pop(key, None)

        return end

    def reload(self) -> None:
        """Read the manifests again. An upstream whose connection is unchanged keeps it; calls in flight elsewhere go on.

        Raises ``Misconfigured`` and leaves everything as it was when a file cannot be read.
        """
        manifests = by_server(self._load())
        self.reload_error = self.reload_code = None
        self._take(manifests)

    def _take(self, manifests: Mapping[str, UpstreamManifest]) -> None:
        for server in [server for server in self._upstreams if server not in manifests]:
            self._stop(server)
        for server, manifest in manifests.items():
            known = self._upstreams.get(server)
            if known is not None and _same_connection(known.manifest, manifest):
                known.manifest = manifest
                continue
            if known is not None:
                self._stop(server)
            self._upstreams[server] = Upstream(manifest, self._sources, on_listed=self._compare, pace=self._pace)
            self._start(server)
        self._compare()

    def _start(self, server: str) -> None:
        if self._tasks is not None:
            scope = self._scopes[server] = anyio.CancelScope()
            self._tasks.start_soon(_run_in, scope, self._upstreams[server])

    def _stop(self, server: str) -> None:
        self._upstreams.pop(server)
        if scope := self._scopes.pop(server, None):
            scope.cancel()

    def _compare(self) -> None:
        entries: dict[str, Entry] = {}
        for upstream in self._upstreams.values():
            for manifest in upstream.manifest.tools:
                entries[manifest.name] = _entry(manifest, upstream)
        if entries == self._entries:
            return
        self._entries = entries
        for listener in list(self._listeners.values()):
            listener()

    async def _watch_files(self, fingerprint: Callable[[], object]) -> None:
        """Reload on every change. What cannot be taken is told once a change, and what was taken before goes on."""
        seen = await anyio.to_thread.run_sync(_asked, fingerprint)
        while True:
            await anyio.sleep(self._poll_seconds)
            now = await anyio.to_thread.run_sync(_asked, fingerprint)
            if now == seen:
                continue
            seen = now
            try:
                self.reload()
            except CharterError as error:
                self._not_taken(error.message, error.error_code)
            except Exception as error:  # a file that cannot even be refused properly must not end the server
                self._not_taken(f"they cannot be read ({type(error).__name__})", "bad_tool_file")
            else:
                logger.info("the tool files were read anew")

    def _not_taken(self, why: str, code: str) -> None:
        self.reload_error, self.reload_code = why, code
        logger.error("the tool files were not taken, the old ones stay in force: %s", one_line(why, limit=500))


def _asked(fingerprint: Callable[[], object]) -> object:
    """The fingerprint; a folder that cannot be looked at has one of its own, and reloading then says what is wrong."""
    try:
        return fingerprint()
    except OSError as error:
        return type(error).__name__


async def _run_in(scope: anyio.CancelScope, upstream: Upstream) -> None:
    with scope:
        await upstream.run()


def _same_connection(old: UpstreamManifest, new: UpstreamManifest) -> bool:
    return old.model_copy(update={"tools": ()}) == new.model_copy(update={"tools": ()})


def _entry(manifest: ToolManifest, upstream: Upstream) -> Entry:
    """Where the tool stands. What was last listed counts, also while the upstream is away."""
    away = None if upstream.state == "ready" else f"the upstream {manifest.server} is not connected"
    if not upstream.listed:
        return Entry(manifest, upstream, None, away)
    offered = upstream.offered.get(manifest.upstream_name)
    if offered is None and (why := upstream.refused.get(manifest.upstream_name)):
        why = f"what {manifest.server} offers as {manifest.upstream_name} cannot be used: {why.rstrip('.')}"
        return Entry(manifest, upstream, None, why)
    if offered is None:
        return Entry(
            manifest, upstream, None, f"the upstream {manifest.server} no longer offers {manifest.upstream_name}"
        )
    if offered.hash == manifest.definition_hash:
        return Entry(manifest, upstream, None, away)
    diff = definition_diff(pinned_definition(manifest), offered.tool)
    quarantine = Quarantine(
        tool=manifest.name, pinned_hash=manifest.definition_hash, offered_hash=offered.hash, diff=diff
    )
    return Entry(manifest, upstream, quarantine, away)


def _status(upstream: Upstream) -> UpstreamStatus:
    governed = {tool.upstream_name for tool in upstream.manifest.tools}
    return UpstreamStatus(
        server=upstream.manifest.server,
        state=upstream.state,
        era=upstream.era,
        offered=len(upstream.offered),
        ungoverned=tuple(sorted(upstream.offered.keys() - governed)),
        last_error=upstream.last_error,
        stderr=upstream.stderr.text(),
        refused=tuple(f"{name}: {why}" for name, why in sorted(upstream.refused.items())),
    )
