"""A way to a server that can be cut, at every request of a client in turn."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

Dial = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]
#: Seconds that a server has for an answer to the last request before the cut; some requests have none.
LAST_ANSWER = 0.1


class CutProxy:
    """Passes bytes between clients on a port of the loopback interface and one server.

    Args:
        dial: connects to the server.
    """

    def __init__(self, dial: Dial) -> None:
        self._dial = dial
        self._allowed: int | None = None
        self._tasks: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self.host, self.port = "127.0.0.1", 0

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._connected, self.host, 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Cut, and listen no more."""
        self._server.close()
        await self._server.wait_closed()
        await self._hang_up()

    async def cut(self, after: int) -> None:
        """Pass `after` more pieces of what clients send, none of the answers to the last one, and then nothing."""
        self._allowed = after
        if not after:
            await self._hang_up()

    @property
    def is_cut(self) -> bool:
        """Whether nothing passes any more."""
        return self._allowed == 0

    def mend(self) -> None:
        """Pass everything to clients that connect from now on."""
        self._allowed = None

    async def _hang_up(self) -> None:
        tasks = dict(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for writer in tasks.values():
            await _closed(writer)  # of a task that had not begun, too

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._client(reader, writer))
        self._tasks[task] = writer
        task.add_done_callback(self._tasks.pop)

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if self._allowed != 0:
                await self._pass(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            await _closed(writer)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await self._dial()
        answers = asyncio.create_task(self._answers(server_reader, writer))
        try:
            while piece := await reader.read(1 << 16):
                if self._allowed is not None:
                    self._allowed -= 1
                server_writer.write(piece)
                await server_writer.drain()
                if self._allowed == 0:
                    await asyncio.wait([answers], timeout=LAST_ANSWER)
                    return
        finally:
            answers.cancel()
            await asyncio.wait([answers])
            await _closed(server_writer)

    async def _answers(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass answers; the first one after the last request ends it instead."""
        with suppress(OSError):
            while piece := await reader.read(1 << 16):
                if self._allowed == 0:
                    return
                writer.write(piece)
                await writer.drain()


async def _closed(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(OSError, asyncio.CancelledError):
        await writer.wait_closed()
