"""What else a Faust application is made of: timers, tasks, web views, requests and replies, commands, test contexts."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from local_kafka.ports import free_ports

from headrace.engine.app import App
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.log import Log, TopicSpec
from tests.engine.runtime.running import FAST, PATIENCE, NoWait, append, committed, everything, holds, run_until, values

COMMAND = """
import sys
from pathlib import Path

from headrace.engine.app import App
from headrace.engine.embedded.log import EmbeddedLog

app = App("g", EmbeddedLog(Path(sys.argv.pop(1))))


@app.command()
async def greet(self):
    await (await app.send("greetings", value="hello"))
    self.say("sent")


app.main()
"""


async def test_timers_and_tasks_send_what_agents_get(log: Log) -> None:
    """A task runs once, a timer at its interval; what they send is sent without an event to wait for."""
    app = App("g", log, runtime=FAST)
    topic = app.topic("in")
    seen: list[str] = []

    @app.agent(topic)
    async def look(stream: Any) -> None:
        async for value in stream:
            seen.append(value)

    @app.task
    async def once() -> None:
        await topic.send(value="task")

    @app.timer(interval=0.02, on_leader=True)
    async def often() -> None:
        await topic.send(value="timer")

    await run_until(app, holds(lambda: seen.count("timer") >= 3))

    assert seen.count("task") == 1


async def test_crontab_is_a_task_of_the_app(log: Log) -> None:
    """It waits for its minute like Faust's; the app starts and stops with it."""
    app = App("g", log, runtime=FAST)

    @app.crontab("* * * * *")
    async def every_minute() -> None:
        """Not called within the second that this test takes, if it does not meet the minute."""

    await run_until(app, holds(lambda: app.started))

    assert every_minute in app._app_tasks


async def test_send_outside_of_an_event_is_durable_when_its_result_is_awaited(log: Log) -> None:
    """`await topic.send()` hands over, awaiting what it returns waits for the log; many at once are few commits."""
    app = App("g", log, runtime=FAST)
    topic = app.topic("out")
    found: list[Any] = []

    @app.task
    async def send() -> None:
        sent = [await topic.send(value=number) for number in range(100)]
        await sent[-1]
        found.extend(await values(log, "out"))

    await run_until(app, holds(lambda: found))

    assert found == [b"%d" % number for number in range(100)]


async def test_what_waits_to_be_sent_is_sent_at_the_stop(log: Log) -> None:
    """Stopping the app loses nothing that `send` took."""
    app = App("g", log, runtime=FAST)
    topic = app.topic("out")
    sent: list[Any] = []

    @app.task
    async def send() -> None:
        sent.append(await topic.send(value="last"))

    await run_until(app, holds(lambda: sent))

    assert await values(log, "out") == [b'"last"']


async def test_topic_is_made_by_the_first_send(log: Log) -> None:
    """As a broker does, with `topic_partitions` partitions."""
    app = App("g", log, runtime=FAST, topic_partitions=3)

    @app.agent(app.topic("in"))
    async def forward(stream: Any) -> None:
        async for value in stream:
            await app.send("new", key=b"k", value=value, headers={"from": b"in"})

    await append(log, "in", b"1")
    await run_until(app, committed(log, "g", "in"))

    assert log.partitions("new") == 3
    (record,) = await everything(log, "new")
    assert (record.key, record.value, record.headers) == (b"k", b"1", {"from": b"in"})


async def test_web_view_answers_on_the_loopback(log: Log) -> None:
    """Off unless asked for; a view reads a table, and `table_route` finds the key here."""
    (port,) = free_ports(1)
    app = App("g", log, runtime=FAST, web_enabled=True, web_port=port)
    counts = app.Table("counts", default=int)
    answers: list[Any] = []

    @app.agent(app.topic("in", key_type=str))
    async def count(stream: Any) -> None:
        async for key, _ in stream.items():
            counts[key] += 1

    @app.page("/count/{word}/")
    @app.table_route(table=counts, match_info="word")
    async def get_count(web: Any, request: Any, word: str) -> Any:
        return web.json({word: counts[word]})

    async def answered() -> bool:
        if not await committed(log, "g", "in")():
            return False
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/count/k/") as response:
            answers.append(await response.json())
        return True

    await append(log, "in", b"1", b"2")
    await run_until(app, answered)

    assert answers == [{"k": 2}]
    assert app.conf.web_bind == "127.0.0.1"
    assert App("h", log).conf.web_enabled is False


async def test_ask_waits_for_the_reply(log: Log) -> None:
    """From a task, and from an agent that has an event in hand: the request does not wait for that event."""
    app = App("g", log, runtime=FAST, clock=NoWait(), topic_partitions=1)
    replies: list[Any] = []

    @app.agent(app.topic("numbers"))
    async def double(stream: Any) -> Any:
        async for number in stream:
            yield number * 2

    @app.agent(app.topic("in"))
    async def asking(stream: Any) -> None:
        async for number in stream:
            replies.append(await double.ask(number))

    @app.task
    async def task() -> None:
        replies.append(await double.ask(21))
        replies.append([reply async for reply in double.map([1])])
        replies.append(await double.join([1, 2, 3]))

    await append(log, "in", b"4")
    await run_until(app, holds(lambda: len(replies) == 4))

    assert sorted(replies, key=str) == [42, 8, [2, 4, 6], [2]]


async def test_client_asks_a_worker(tmp_path: Path) -> None:
    """An app that was not started as a worker asks one that was, and takes no partition from it."""
    log = EmbeddedLog(tmp_path)
    await log.create_topics([TopicSpec("numbers", 1)])
    worker, client = (App("g", log, runtime=FAST, topic_partitions=1) for _ in range(2))
    replies: list[Any] = []
    agents = []
    for app in (worker, client):

        @app.agent(app.topic("numbers"), name="double")
        async def double(stream: Any) -> Any:
            async for number in stream:
                yield number * 2

        agents.append(double)

    async def asked() -> bool:
        if worker.started and not replies:
            replies.append(await agents[1].ask(21))
        return bool(replies)

    await run_until(worker, asked)
    await client.stop()
    await log.close()

    assert replies == [42]


async def test_agent_in_fausts_test_context(log: Log) -> None:
    """Unit tests of agents as Faust documents them: no log, no worker, tables in memory."""
    app = App("g", log)
    counts = app.Table("counts", default=int)

    @app.agent(app.topic("in"))
    async def count(stream: Any) -> Any:
        async for value in stream:
            counts["n"] += value
            yield counts["n"]

    async with count.test_context() as agent:
        first = await agent.put(1)
        second = await agent.put(2)

    assert (agent.results[first.message.offset], agent.results[second.message.offset]) == (1, 3)


def test_command_of_an_app(tmp_path: Path) -> None:
    """`app.main()` runs a command of the user's, which may send."""
    script = tmp_path / "example.py"
    script.write_text(COMMAND)

    command = [sys.executable, str(script), str(tmp_path / "data"), "greet"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=2 * PATIENCE, check=False)

    assert done.returncode == 0, done.stderr
    assert "sent" in done.stdout
    assert asyncio.run(_read(tmp_path / "data")) == ["hello"]


async def _read(folder: Path) -> list[Any]:
    log = EmbeddedLog(folder)
    await log.create_topics([])
    found = [json.loads(value or b"") for value in await values(log, "greetings")]
    await log.close()
    return found


@pytest.mark.parametrize("name", ["reader", "writer"])
async def test_two_workers_agree_who_leads(log: Log, name: str) -> None:
    """Whoever has partition 0 of the first topic; in a group of one that is always so."""
    app = App(name, log, runtime=FAST)

    @app.agent(app.topic("in"))
    async def look(stream: Any) -> None:
        async for _ in stream:
            pass

    leads: list[bool] = []

    @app.task
    async def ask() -> None:
        leads.append(app.is_leader())

    await run_until(app, holds(lambda: leads))

    assert leads == [True]
