"""An MCP server as a child process: JSON-RPC, a message a line, over its standard input and output.

The SDK's own transport holds a line of any length and spends the square of it in time; here one bad child costs neither
memory nor the event loop. A line over the limit ends the call that it answers, a line that cannot be read ends its own,
stray output is passed over, standard error is drained and its end kept, and what the child started ends with it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import anyio
import mcp_types as types
from anyio.abc import ByteReceiveStream, Process
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp import StdioServerParameters
from mcp.client.stdio import get_default_environment
from mcp.shared.message import SessionMessage

from charter.tools.failures import NOT_SENT, TOO_LARGE, UNREADABLE, own_error
from charter.tools.lines import KEPT, Endless, Lines, Overlong, answered
from charter.tools.listing import Screen, readable

STDERR_KEPT: Final = 4096
FLUSH_SECONDS: Final = 0.5
EXIT_SECONDS: Final = 2.0
"""How long a child may take to go by itself once its standard input is closed (MCP, lifecycle: shutdown)."""
TERM_SECONDS: Final = 2.0
"""How long after SIGTERM, before SIGKILL."""
_POLL_SECONDS: Final = 0.02
_GONE: Final = (anyio.ClosedResourceError, anyio.BrokenResourceError)

logger = logging.getLogger(__name__)

Received = MemoryObjectSendStream[SessionMessage | Exception]


@asynccontextmanager
async def child(
    parameters: StdioServerParameters, screen: Screen, stderr: bytearray, *, max_line: int
) -> AsyncIterator[tuple[Any, Any]]:
    """The streams of a started server, for the SDK's session. ``stderr`` gets the end of what it writes there.

    On leaving, also when cancelled: its input is closed, it may go by itself, then its process group is ended.
    Raises ``OSError`` when it cannot be started.
    """
    process = await anyio.open_process(
        [parameters.command, *parameters.args],
        env=get_default_environment() | (parameters.env or {}),
        cwd=parameters.cwd,
        start_new_session=sys.platform != "win32",
    )
    # No await from here to the task group: a cancellation between the two would leave the process alone.
    stderr.clear()
    received, for_session = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    from_session, to_send = anyio.create_memory_object_stream[SessionMessage](0)
    link = _Link(process, screen, received, to_send, max_line)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(link.read)
        tasks.start_soon(link.write)
        tasks.start_soon(link.watch)
        tasks.start_soon(_drain, process.stderr, stderr)
        try:
            yield for_session, from_session
        finally:
            with anyio.CancelScope(shield=True):  # every wait inside is bounded
                for_session.close()
                from_session.close()
                await link.flushed()
                await end(process)
            tasks.cancel_scope.cancel()


class _Link:
    """Both directions of one child's pipes."""

    def __init__(
        self,
        process: Process,
        screen: Screen,
        received: Received,
        to_send: MemoryObjectReceiveStream[SessionMessage],
        max_line: int,
    ) -> None:
        self._process, self._screen = process, screen
        self._received, self._to_send = received, to_send
        self._lines, self._limit = Lines(max_line), max_line
        self._read_all, self._written_all = anyio.Event(), anyio.Event()
        self._answered_early = False
        self._strays = 0

    async def read(self) -> None:
        """Pass messages on until the child's output ends. When the session is gone, read on for nobody: a child that
        cannot write does not see either that its input was closed."""
        listening = True
        try:
            while True:
                data = await _chunk(self._process.stdout)
                if data is None:
                    break
                if listening:
                    listening = await self._passed_on(data)
        finally:
            self._received.close()
            self._read_all.set()

    async def watch(self) -> None:
        """End the connection when the child has ended, even where a process that it left behind holds its pipes."""
        await self._process.wait()
        with anyio.move_on_after(EXIT_SECONDS):
            await self._read_all.wait()
        self._received.close()

    async def write(self) -> None:
        """Send messages until the session ends. A child that takes none any more has ended the connection."""
        assert self._process.stdin is not None
        try:
            async for item in self._to_send:
                try:
                    text = item.message.model_dump_json(by_alias=True, exclude_unset=True)
                    line = text.encode() + b"\n"
                except ValueError:  # half of a surrogate pair, or nested too deeply
                    await self._fail(getattr(item.message, "id", None), NOT_SENT, "The call cannot be written as JSON.")
                    continue
                await self._process.stdin.send(line)
        except (*_GONE, OSError, RuntimeError):
            self._received.close()
        finally:
            self._to_send.close()
            self._written_all.set()

    async def flushed(self) -> None:
        """Wait a moment until what the session has sent is written."""
        with anyio.move_on_after(FLUSH_SECONDS):
            await self._written_all.wait()

    async def _passed_on(self, data: bytes) -> bool:
        """Whether anybody still listens."""
        try:
            for line in self._lines.feed(data):
                if isinstance(line, Overlong):
                    await self._overlong(line)
                elif line and not line.isspace():
                    await self._message(line)
        except Endless:
            logger.warning("an upstream's child wrote a line without an end; its connection is ended")
            self._received.close()
            return False
        except _GONE:
            return False
        return True

    async def _message(self, line: bytes) -> None:
        try:
            message = readable(line, self._screen)
        except ValueError:
            id_ = answered(line[:KEPT], line[-KEPT:])
            await self._fail(id_, UNREADABLE, "The upstream's answer cannot be read as JSON-RPC.")
            if id_ is None:
                self._stray()
                await anyio.lowlevel.checkpoint()
            return
        await self._received.send(SessionMessage(message))

    async def _overlong(self, line: Overlong) -> None:
        """Answer the call in the place of the line: as soon as the line's head names it, else at the line's end."""
        id_ = None if self._answered_early else answered(line.head, line.tail)
        await self._fail(id_, TOO_LARGE, f"The upstream's answer is over {self._limit:,} bytes.")
        if line.tail is None:
            self._answered_early = id_ is not None
            return
        if id_ is None and not self._answered_early:
            self._stray()
        self._answered_early = False

    async def _fail(self, id_: types.RequestId | None, code: int, message: str) -> None:
        if id_ is not None:
            error = types.ErrorData(**own_error(code, message))
            await self._received.send(SessionMessage(types.JSONRPCError(jsonrpc="2.0", id=id_, error=error)))

    def _stray(self) -> None:
        """Told once a connection and never quoted: it may hold a secret."""
        self._strays += 1
        if self._strays == 1:
            logger.warning("an upstream's child wrote to its standard output what is no message; it is passed over")


async def _chunk(stream: ByteReceiveStream | None) -> bytes | None:
    """The next bytes; None at the end, however it came."""
    assert stream is not None
    try:
        return await stream.receive()
    except (anyio.EndOfStream, *_GONE, OSError):
        return None


async def _drain(stream: ByteReceiveStream | None, tail: bytearray) -> None:
    while (data := await _chunk(stream)) is not None:
        tail += data
        del tail[:-STDERR_KEPT]


async def end(process: Process) -> None:
    """Close its input, wait, then end its whole process group: SIGTERM, wait, SIGKILL. Returns when all is released."""
    assert process.stdin is not None
    with contextlib.suppress(OSError, RuntimeError, *_GONE):
        await process.stdin.aclose()
    await _exited(process, EXIT_SECONDS)
    await _end_group(process)
    if not await _exited(process, EXIT_SECONDS):
        logger.warning("process %d of an upstream cannot be ended; it is left alone", process.pid)
        return
    with contextlib.suppress(OSError, RuntimeError, *_GONE):
        await process.aclose()


async def _exited(process: Process, seconds: float) -> bool:
    with anyio.move_on_after(seconds):
        await process.wait()
    return process.returncode is not None


async def _end_group(process: Process) -> None:
    """What is left of the group that the child leads, also when the leader itself has gone."""
    if sys.platform == "win32":
        if process.returncode is None:
            process.kill()
        return
    if not _signalled(process.pid, signal.SIGTERM):
        return
    with anyio.move_on_after(TERM_SECONDS):
        while _signalled(process.pid, 0):  # noqa: ASYNC110 - nobody tells of the end of a grandchild
            await anyio.sleep(_POLL_SECONDS)
        return
    _signalled(process.pid, signal.SIGKILL)


def _signalled(group: int, number: int) -> bool:
    """Whether the group still exists; ``number`` 0 only asks."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # somebody of the group may not be signalled, or is dead and not reaped yet
    return True
