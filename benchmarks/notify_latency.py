"""Milliseconds from when a reading is due to the message about its alert at a receiver: the whole path in one process.

Telemetry comes at a fixed rate, and readings that each trigger an alert of another device among it; open loop: a
message's time counts from when its reading was due, so that a stall counts for all that were due meanwhile. Agents
decide, delivery sends to a real server on loopback, in a process of its own: an HTTP server as an integration, or
aiosmtpd for a user per device. Prints {"value": p99 in ms, …}.
"""

import argparse
import asyncio
import json
import multiprocessing
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import orjson
from aiohttp import web
from aiosmtpd.smtp import SMTP, Envelope, Session
from load import messages
from priority_lane import PATIENCE, RULE, TICK, WARM_UP

from headrace.cli.agents import GROUP, build_agents
from headrace.cli.logs import topic_specs
from headrace.cli.notify_service import NotifyService
from headrace.cli.settings import Settings
from headrace.engine import logging
from headrace.engine.app import App
from headrace.engine.clock import SystemClock
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.intake import Intake
from headrace.engine.monitoring import Monitoring
from headrace.schemas.user import Preferences, User
from headrace.tables.device_types import load_device_types
from headrace.tables.users import UserRegistry

clock = SystemClock()
#: Of an alarm's device, in whatever is sent of it.
_DEVICE = re.compile(rb"alarm-\d+")


def receive(channel: str, pipe: Connection) -> None:
    """A server of the channel; tells its port, then when asked, by device, when the first message about it came."""
    asyncio.run(_serve(channel, pipe))


async def _serve(channel: str, pipe: Connection) -> None:
    loop = asyncio.get_running_loop()
    # Kept here: a pipe that nobody reads is full after some hundred messages, and would hold up the server.
    arrived: dict[bytes, float] = {}

    def came(body: bytes) -> None:
        found = _DEVICE.search(body)
        if found is not None:
            arrived.setdefault(found[0], time.time())

    def tell() -> None:
        pipe.recv()
        pipe.send(arrived)

    if channel == "webhook":

        async def answer(request: web.Request) -> web.Response:
            came(await request.read())
            return web.Response(status=204)

        application = web.Application()
        application.router.add_post("/", answer)
        runner = web.AppRunner(application)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        pipe.send(runner.addresses[0][1])
    else:

        class Keep:
            async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
                came(envelope.original_content or b"")
                return "250 OK"

        server = await loop.create_server(lambda: SMTP(Keep(), hostname="receiver.example"), "127.0.0.1", 0)
        pipe.send(server.sockets[0].getsockname()[1])
    loop.add_reader(pipe.fileno(), tell)
    await asyncio.Event().wait()


@contextmanager
def receiver(channel: str) -> Iterator[Connection]:
    """The server in a process of its own."""
    mine, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=receive, args=(channel, theirs), daemon=True)
    process.start()
    try:
        yield mine
    finally:
        process.kill()
        process.join()


def settings(channel: str, port: int) -> Settings:
    """One channel, to that port."""
    if channel == "webhook":
        integration = {"kind": "webhook", "url": f"http://127.0.0.1:{port}/", "tell": ["alert"]}
        web_hooks = {"private_networks": ["127.0.0.0/8"]}
        return Settings.model_validate({"channels": {"integrations": {"bench": integration}, "webhook": web_hooks}})
    mail = {"host": "127.0.0.1", "port": port, "security": "none", "sender": "alerts@example.com", "connections": 8}
    return Settings.model_validate({"channels": {"email": mail}})


async def flood(intake: Intake, rate: int, seconds: float) -> None:
    """`rate` messages a second."""
    source = list(messages(int(rate * seconds)))
    began, number = time.perf_counter(), 0
    while number < len(source):
        await asyncio.sleep(max(TICK, began + number / rate - time.perf_counter()))
        due = int((time.perf_counter() - began) * rate)
        keys, _, payloads = (list(each) for each in zip(*source[number:due], strict=True))
        await intake.append(keys, payloads, device_type="environmental", profile="bench", sources=b"bench")
        number = due


async def alarms(intake: Intake, rate: int, seconds: float, due: dict[bytes, float]) -> None:
    """A reading of another device, of which an alert comes, `rate` times a second."""
    began = time.perf_counter() + WARM_UP
    offset = time.time() - time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number in range(int(rate * seconds)):
            at = began + number / rate
            await asyncio.sleep(max(0.0, at - time.perf_counter()))
            key = b"alarm-%d" % number
            due[key] = at + offset
            payload = orjson.dumps({"timestamp": clock.now_ms(), "temp": 84.0, "humidity": 50.0})
            group.create_task(
                intake.append([key], [payload], device_type="environmental", profile="bench", sources=b"bench")
            )


async def measure(arguments: argparse.Namespace) -> dict[str, float]:
    """Run everything, and the percentiles."""
    due: dict[bytes, float] = {}
    taken: dict[bytes, float] = {}
    with receiver(arguments.channel) as pipe:
        found = settings(arguments.channel, pipe.recv())

        def arrivals() -> None:
            pipe.send("when?")
            taken.update({key: at - due[key] for key, at in pipe.recv().items() if key in due})

        with tempfile.TemporaryDirectory() as folder:
            log = EmbeddedLog(Path(folder))
            app = App(GROUP, log, clock=clock, runtime=found.runtime)
            app.add(build_agents(found, load_device_types(), [RULE]))
            await app.create_topics(topic_specs(found), partitions=found.log.partitions)
            if arguments.channel == "email":
                names = [f"alarm-{number}" for number in range(int(arguments.rate * arguments.seconds))]
                users = [
                    User(
                        user_id=f"u-{name}",
                        email=f"{name}@example.org",
                        role="super_admin",
                        preferences=Preferences(subscribed_devices=(name,)),
                    )
                    for name in names
                ]
                await UserRegistry(log, clock).change({user.user_id: user for user in users})
            service = NotifyService(found, Path(folder), log, clock, Monitoring(found.monitor))
            stop = asyncio.Event()
            running = [asyncio.create_task(app.run(stop)), asyncio.create_task(service.run(stop))]
            while not app.assigned or app.rebalancing:
                await asyncio.sleep(0.05)
            intake = Intake(log, clock)
            async with asyncio.TaskGroup() as group:
                group.create_task(flood(intake, arguments.flood, WARM_UP + arguments.seconds))
                group.create_task(alarms(intake, arguments.rate, arguments.seconds, due))
            until = time.perf_counter() + PATIENCE
            while len(taken) < len(due) and time.perf_counter() < until:
                await asyncio.sleep(0.1)
                arrivals()
            sent = service.statistics()
            stop.set()
            await asyncio.gather(*running)
            await log.close()
    if len(taken) < len(due):
        raise SystemExit(f"{len(taken)} of {len(due)} alarms were told of; {sent}")
    seconds = np.array(list(taken.values())) * 1000
    return {
        "value": float(np.percentile(seconds, 99)),
        "p50_ms": float(np.percentile(seconds, 50)),
        "longest_ms": float(seconds.max()),
        "messages": len(taken),
        "failed": sent["failed"],
    }


def main() -> None:
    """Parse arguments, run, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--channel", choices=["webhook", "email"], default="webhook")
    parser.add_argument("--flood", type=int, default=2_000, help="messages per second")
    parser.add_argument("--rate", type=int, default=50, help="alarms per second")
    parser.add_argument("--seconds", type=float, default=10)
    arguments = parser.parse_args()
    logging.configure("error")
    print(json.dumps(asyncio.run(measure(arguments))))


if __name__ == "__main__":
    main()
