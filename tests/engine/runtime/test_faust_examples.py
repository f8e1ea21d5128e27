"""Faust's documented examples run unchanged but for the line that makes the application; on every log."""

import re
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from headrace.engine.app import App
from headrace.engine.embedded.database import MEMORY
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.kafka.log import KafkaLog
from headrace.engine.kafka.settings import KafkaSettings
from headrace.engine.log import Log
from headrace.engine.partitioner import Partitioner
from tests.engine.runtime.examples import example, run
from tests.engine.runtime.running import FAST, PATIENCE, append, committed, holds, run_until, table


@pytest.fixture(params=["embedded", pytest.param("kafka", marks=pytest.mark.integration)])
async def log(request: pytest.FixtureRequest) -> AsyncIterator[Log]:
    """A log of each kind; nobody else has topics of the names that the examples use."""
    log: Log
    if request.param == "kafka":
        log = KafkaLog(f"kafka://{request.getfixturevalue('kafka').bootstrap}", KafkaSettings())
        await log.start()
    else:
        log = EmbeddedLog(MEMORY)
    yield log
    await log.close()


async def test_orders(log: Log, capsys: pytest.CaptureFixture[str]) -> None:
    """The first example of Faust's README: an agent on a topic of its own, of a model."""
    names = run(example("async def order(orders)"), log)

    @names["app"].task
    async def send() -> None:
        for amount in range(3):
            await names["order"].send(value=names["Order"](account_id="a1", amount=amount))

    printed: list[str] = []

    def three_are_printed() -> bool:
        printed.extend(capsys.readouterr().out.splitlines())
        return len([line for line in printed if line.startswith("Order")]) == 3

    await run_until(names["app"], holds(three_are_printed))

    assert [line for line in printed if line.startswith("Order")] == [f"Order for a1: {n}" for n in range(3)]


async def test_page_views(log: Log) -> None:
    """The second: clicks counted by URL in a table. Its counts survive a restart."""
    clicks = [f"http://example.com/{n % 7}" for n in range(100)]
    text = example("async def count_click(clicks)")
    for part in (clicks[:60], clicks[60:]):
        app = App("page-views", log, runtime=FAST, topic_partitions=4)
        names = run(text, log, app)
        await app.topic("clicks").maybe_declare()
        partitioner = Partitioner(log.partitions("clicks"))
        for url in part:
            await append(log, "clicks", b"1", key=url.encode(), partition=partitioner.partition(url.encode()))
        await run_until(app, committed(log, "page-views", "clicks"))

    by_hand = Counter(clicks)
    assert dict(names["counts"].items()) == by_hand
    assert await table(log, "page-views-click_counts") == by_hand


async def test_processing_of_orders(log: Log) -> None:
    """The third: a model with a default, and a call of the user's own for each."""
    app = App("orders", log, runtime=FAST, topic_partitions=1)
    names = run(example("async def process_order(orders)"), log, app)
    mails: list[tuple[str, float]] = []

    async def send_order_received_email(account_id: str, order: Any) -> None:
        mails.append((account_id, order.price * order.quantity))

    names["send_order_received_email"] = send_order_received_email
    await app.topic("orders").maybe_declare()
    await append(log, "orders", b'{"account_id": "a", "product_id": "p", "price": 2.5}')
    await append(log, "orders", b'{"account_id": "b", "product_id": "p", "price": 2, "quantity": 3}')
    await run_until(app, committed(log, "orders", "orders"))

    assert mails == [("a", 2.5), ("b", 6)]


async def test_greetings(log: Log, capsys: pytest.CaptureFixture[str]) -> None:
    """The fourth, a whole application: a timer sends what its agent prints."""
    names = run(example("async def hello(greetings)"), log)
    printed: list[str] = []

    def greeted() -> bool:
        printed.extend(capsys.readouterr().out.splitlines())
        return "Hello from Faust to you" in printed

    await run_until(names["app"], holds(greeted))

    assert "Hello from Faust to you" in printed


def test_program_of_the_guide_prints_what_it_says(tmp_path: Path) -> None:
    """docs/guides/faust-agents.md, run twice in the same folder as somebody would try it."""
    page = (Path(__file__).parents[3] / "docs" / "guides" / "faust-agents.md").read_text()
    (program,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (said,) = re.findall(r"prints `(.*)`, and the second time `(.*)`", page)

    printed = [
        subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE, check=True, cwd=tmp_path
        ).stdout.strip()
        for _ in said
    ]

    assert tuple(printed) == said
