"""Reads alerts from outside: events as they come, and alerts as they are now."""

import os
import re
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from math import inf
from pathlib import Path
from typing import Generic, NamedTuple, Self, TypeVar

import structlog
from pydantic import BaseModel, ValidationError

from headrace.connectors.topic_consumer import MOST_READ, POLL, TopicConsumer
from headrace.engine.clock import SystemClock
from headrace.engine.embedded.log import EmbeddedLog
from headrace.engine.errors import ConfigError, LogInUse
from headrace.engine.file_lock import LockHeld, lock_file
from headrace.engine.kafka.log import KafkaLog
from headrace.engine.kafka.settings import SCHEME, KafkaSettings
from headrace.engine.log import Log
from headrace.engine.log_range import read_range, reading
from headrace.engine.records import Record
from headrace.schemas import topics
from headrace.schemas.alert import Alert, AlertEvent

EMBEDDED = "embedded://"
#: Groups of headrace itself: who joined one would take its partitions.
OWN_GROUPS = re.compile(r"headrace([.-].*)?|timescale|redis|archive")
_GROUP = re.compile(r"[A-Za-z0-9._-]{1,200}")
#: Bytes that no embedded log has: whoever reads must not drop what the worker's own settings keep.
_UNLIMITED = 1 << 62

logger = structlog.get_logger(__name__)
Model = TypeVar("Model", bound=BaseModel)
Item = TypeVar("Item")


class StateChange(NamedTuple):
    """An alert as it is now; None: it is over, and a newer one has taken its place, or 30 days have passed."""

    alert_id: str
    alert: Alert | None


class Stream(Generic[Item]):
    """What a loop reads: `async for item in stream`, once.

    After a loop that ends early its log is closed by the event loop, soon. `async with stream:` around the loop closes
    it right there.
    """

    def __init__(self, items: AsyncGenerator[Item, None]) -> None:
        self._items = items

    def __aiter__(self) -> AsyncGenerator[Item, None]:
        return self._items

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._items.aclose()


def read_alerts(url: str, *, group: str, kafka: KafkaSettings | None = None) -> Stream[AlertEvent]:
    """The events of `alerts.v1`, for ever; a new group begins with the oldest.

    At least once: an event's position is committed after the body of the loop, at the latest a second after it, when
    nothing more is there, or when the loop is left. One whose body was left by `break`, an error, or a kill comes
    again, with the same `id`. Events of one device are in order. On Kafka several processes may share a group, and each
    gets some of the devices; on the embedded log, which keeps what a group has not read, there is one.

    Fields that a newer headrace has added are left out. A record that is no event is logged and passed over.

    Args:
        url: `kafka://host:port,host:port`, or `embedded://FOLDER`, the data folder of a worker, which may be running.
        group: a name of your own; positions are kept under it.
        kafka: security and timeouts, as in `[kafka]`.
    Raises:
        ConfigError: there is no such log, or it has no alerts; the group's name cannot be used.
        LogInUse: another process reads an embedded log for this group.
        LogError: the log failed.
    """
    return Stream(_events(url, group, kafka))


def read_states(url: str, *, follow: bool = True, kafka: KafkaSettings | None = None) -> Stream[StateChange]:
    """Every alert in `alerts.state.v1` as it is now, then every change, for ever.

    Whoever reads gets all: there is no group, and nothing is committed. The last change of an alert is its newest
    state; of others that came before anybody asked some may be left out. Memory: what is there at first.

    Args:
        follow: False to end after what is there now.
        url, kafka: as for `read_alerts`.
    Raises:
        ConfigError: there is no such log, or it has no alerts.
        LogError: the log failed.
    """
    return Stream(_states(url, follow, kafka))


async def _events(url: str, group: str, kafka: KafkaSettings | None) -> AsyncGenerator[AlertEvent, None]:
    if not _GROUP.fullmatch(group):
        raise ConfigError(f"group {group!r}: must be 1 to 200 letters, digits, dots, dashes and underscores")
    if OWN_GROUPS.fullmatch(group):
        raise ConfigError(f"group {group!r} is headrace's own; take another name")
    with _sole_reader(url, group):
        async with (
            _opened(url, topics.ALERTS, kafka) as log,
            TopicConsumer(log, topics.ALERTS, group, SystemClock()) as consumer,
            aclosing(consumer.records()) as records,
        ):
            async for record in records:
                event = _read(AlertEvent, record)
                if event is not None:
                    yield event


async def _states(url: str, follow: bool, kafka: KafkaSettings | None) -> AsyncGenerator[StateChange, None]:
    async with _opened(url, topics.ALERT_STATES, kafka) as log, reading(log) as reader:
        ends = await log.end_offsets(topics.ALERT_STATES)
        newest: dict[bytes | None, Record] = {}
        for target, end in ends.items():
            async for fetched in read_range(reader, target, 0, end):
                newest |= {record.key: record for record in fetched.records}
        for record in newest.values():
            if record.value is not None and (change := _change(record)) is not None:
                yield change
        del newest
        positions = dict(ends)
        while follow:
            await reader.wait(positions, POLL)
            for target, position in positions.items():
                news = await reader.read(target, position, MOST_READ)
                if news is None:
                    continue
                for record in news.records:
                    if (change := _change(record)) is not None:
                        yield change
                positions[target] = news.next_offset


@asynccontextmanager
async def _opened(url: str, topic: str, kafka: KafkaSettings | None) -> AsyncIterator[Log]:
    """The log, in which the topic is."""
    log: EmbeddedLog | KafkaLog
    if url.startswith(SCHEME):
        log = KafkaLog(url, kafka or KafkaSettings(), role="consumer")
    else:
        log = EmbeddedLog(_folder(url), retention=inf, retention_bytes=_UNLIMITED)
    try:
        if isinstance(log, KafkaLog):
            await log.start()
        if topic not in {spec.name for spec in await log.topics()}:
            raise ConfigError(f"{url} has no topic {topic}: a headrace worker makes it when it starts")
        yield log
    finally:
        await log.close()


def _folder(url: str) -> Path:
    folder = Path(url.removeprefix(EMBEDDED))
    if not url.startswith(EMBEDDED) or not url.removeprefix(EMBEDDED):
        raise ConfigError(f"{url!r}: must be kafka://host:port,host:port, or embedded://FOLDER")
    if not (folder / "log.sqlite").is_file():
        raise ConfigError(f"{folder} holds no log (log.sqlite); name the data folder of a worker or demo")
    return folder


@contextmanager
def _sole_reader(url: str, group: str) -> Iterator[None]:
    """Of an embedded log one process reads for a group; Kafka gives each of several its share."""
    if url.startswith(SCHEME):
        yield
        return
    folder = _folder(url)
    try:
        file = lock_file(folder / f"consumer-{group}.lock")
    except LockHeld as held:
        who = "this process" if held.owner == str(os.getpid()) else f"process {held.owner}"
        raise LogInUse(f"{who} reads {folder} for group {group!r} already; stop that, or take another name") from held
    except OSError as error:
        raise ConfigError(f"data folder {folder} cannot be written: {error.strerror}") from error
    with file:
        yield


def _change(record: Record) -> StateChange | None:
    alert_id = (record.key or b"").decode(errors="replace")
    if record.value is None:
        return StateChange(alert_id, None)
    alert = _read(Alert, record)
    return None if alert is None else StateChange(alert_id, alert)


def _read(model: type[Model], record: Record) -> Model | None:
    try:
        return model.model_validate_json(record.value or b"", extra="ignore")
    except ValidationError as error:
        logger.warning("alert_unreadable", key=repr(record.key), error=str(error))
        return None
