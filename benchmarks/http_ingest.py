"""Batches of readings over HTTP into the embedded log: by HTTP ingest, or into a file by a bare aiohttp handler.

Prints {"value": …} and more: readings per second, from the first request until the last answer. The bare handler reads
the body, parses it with orjson, writes it to a file of its own, syncs that and answers; it judges nothing. The clients
are threads of a process of their own, on the same cores, each with one connection and one request under way.
"""

import argparse
import asyncio
import itertools
import json
import multiprocessing
import os
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http.client import HTTPConnection
from multiprocessing.connection import Connection
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import orjson
import psutil
from aiohttp import web

from headrace.agents.ingest import IngestConfig
from headrace.agents.payload_judge import PayloadJudge
from headrace.cli.agents import GROUP
from headrace.connectors.http.settings import HttpSettings
from headrace.connectors.http.source import HttpSource
from headrace.connectors.topic_profile import SHIPPED
from headrace.connectors.topic_routes import TopicRoutes
from headrace.engine.clock import SystemClock
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.intake import Intake
from headrace.engine.log import TopicSpec
from headrace.schemas import topics
from headrace.tables.device_types import load_device_types

PARTITIONS = 4
DEVICES = 1_000
START_MS = 1_750_000_000_000
READING = '{"device_id":"sensor-%04d","timestamp":%d,"temp":21.37,"humidity":55.1,"co2":450,"pm25":12.3}'


def bodies(count: int, size: int) -> list[bytes]:
    """`count` batches of `size` readings, all different, as JSON arrays."""
    numbers = range(count * size)
    texts = [READING % (number % DEVICES, START_MS + number) for number in numbers]
    return [f"[{','.join(texts[at : at + size])}]".encode() for at in range(0, len(texts), size)]


def post(port: int, mine: list[bytes], wrong: list[str]) -> None:
    """Post these, one after the other."""
    connection = HTTPConnection("127.0.0.1", port)
    for body in mine:
        connection.request("POST", "/batch", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        said = answer.read()
        if answer.status not in (200, 202) or b'"refused":0' not in said:
            wrong.append(f"{answer.status} {said[:200]!r}")


def clients(port: int, batches: int, size: int, count: int, pipe: Connection) -> None:
    """The process of the clients: says when it is ready, waits, posts, and says how long that took."""
    made = bodies(batches, size)
    wrong: list[str] = []
    threads = [threading.Thread(target=post, args=(port, made[at::count], wrong)) for at in range(count)]
    pipe.send("ready")
    pipe.recv()
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    pipe.send((time.perf_counter() - began, wrong[:1]))


class BareHandler:
    """Parses a body and keeps it, durably, as it came."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names = itertools.count()

    async def __call__(self, request: web.BaseRequest) -> web.Response:
        """Answer when the body is on the disk."""
        body = await request.read()
        accepted = len(orjson.loads(body))
        await asyncio.to_thread(self._keep, self._folder / str(next(self._names)), body)
        return web.Response(body=b'{"refused":0,"accepted":%d}' % accepted, content_type="application/json")

    def _keep(self, path: Path, body: bytes) -> None:
        with path.open("wb") as file:
            file.write(body)
            file.flush()
            os.fdatasync(file.fileno())


@asynccontextmanager
async def serving(variant: str, folder: Path) -> AsyncIterator[int]:
    """A server; its port."""
    if variant == "bare":
        server = await asyncio.get_running_loop().create_server(
            web.Server(BareHandler(folder), access_log=None), "127.0.0.1", 0
        )
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()
        return
    log, clock, stop, types = EmbeddedLog(folder / "data"), SystemClock(), asyncio.Event(), load_device_types()
    outputs = [TopicSpec(name, PARTITIONS) for name in topics.OUTPUTS]
    await log.create_topics([*Intake.topic_specs(PARTITIONS), *HttpSource.topic_specs(), *outputs])
    judge, settings = PayloadJudge(types, IngestConfig(), clock), HttpSettings(port=0, max_waiting_bytes=64 << 20)
    source = HttpSource(settings, Intake(log, clock), log, judge, TopicRoutes(SHIPPED), types, GROUP, clock)
    running = asyncio.create_task(source.run(stop))
    try:
        yield await source.wait_listening()
        stop.set()
        await running
    finally:
        running.cancel()
        await log.close()


async def run(given: argparse.Namespace, folder: Path) -> dict[str, float]:
    """The figures of one run."""
    process, loop = psutil.Process(os.getpid()), asyncio.get_running_loop()
    ours, theirs = multiprocessing.Pipe()
    batches = given.readings // given.batch
    async with serving(given.variant, folder) as port:
        arguments = (port, batches, given.batch, given.clients, theirs)
        child = multiprocessing.get_context("spawn").Process(target=clients, args=arguments)
        child.start()
        await loop.run_in_executor(None, ours.recv)
        cpu = sum(process.cpu_times()[:2])
        ours.send("go")
        seconds, wrong = await loop.run_in_executor(None, ours.recv)
        cpu = sum(process.cpu_times()[:2]) - cpu
        child.join()
    if wrong:
        sys.exit(wrong[0])
    total = batches * given.batch
    return {
        "value": total / seconds,
        "cpu_us_per_reading": cpu / total * 1e6,
        "resident_mb": process.memory_info().rss / 1e6,
    }


def main() -> None:
    """Run one variant."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--variant", choices=["bare", "ingest"], required=True)
    parser.add_argument("--readings", type=int, default=400_000)
    parser.add_argument("--batch", type=int, default=1_000)
    parser.add_argument("--clients", type=int, default=4)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(asyncio.run(run(options, Path(folder)))))


if __name__ == "__main__":
    main()
