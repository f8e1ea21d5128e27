"""A way to a server that is as slow as one likes."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

Dial = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]
#: Bytes that pass at a time.
PIECE = 4096


class Throttle:
    """Passes bytes between clients on a port of the loopback interface and one server.

    Args:
        dial: connects to the server.

    Attributes:
        pause: seconds that every piece of `PIECE` bytes from a client waits.
    """

    def __init__(self, dial: Dial) -> None:
        self._dial = dial
        self._tasks: set[asyncio.Task[None]] = set()
        self.pause = 0.0
        self.host, self.port = "127.0.0.1", 0

    async def __aenter__(self) -> "Throttle":
        self._server = await asyncio.start_server(self._client, self.host, 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *error: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        with suppress(OSError, asyncio.CancelledError):
            server_reader, server_writer = await self._dial()
            answers = asyncio.create_task(self._pass(server_reader, writer, throttled=False))
            try:
                await self._pass(reader, server_writer, throttled=True)
            finally:
                answers.cancel()
                await asyncio.wait([answers])
                for each in (server_writer, writer):
                    each.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, throttled: bool) -> None:
        with suppress(OSError):
            while piece := await reader.read(PIECE):
                if throttled and self.pause:
                    await asyncio.sleep(self.pause)
                writer.write(piece)
                await writer.drain()
