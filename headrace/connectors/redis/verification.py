"""One verification of the cache: compares all of it with the database, and repairs what differs."""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from headrace.connectors.redis.client import translated
from headrace.connectors.redis.database import CacheTruth, Stored
from headrace.connectors.redis.entries import Keys
from headrace.connectors.redis.judge import Cached, Finding, judge
from headrace.connectors.redis.scripts import REPAIR
from headrace.engine.clock import Clock

if TYPE_CHECKING:
    from redis.asyncio import Redis

#: Entries looked at together.
BATCH = 500
#: What is repaired.
REPAIRED: Sequence[Finding] = ("missing", "stale", "wrong")


@dataclass(slots=True)
class Report:
    """What a verification found and did; counts of entries.

    Args:
        checked: entries looked at.
        findings: how many of them were `equal`, `missing` (the database has it, the cache not), `stale`, `wrong` and
            `ahead`; see `judge`.
        added: missing ones put in.
        changed: others that got the database's content.
        removed: others that are in the cache no more.
        complete: whether it went through to the end in its time.
        seconds: it took.
        examples: keys by finding, a few.
    """

    checked: int = 0
    findings: Counter[str] = field(default_factory=Counter)
    added: int = 0
    changed: int = 0
    removed: int = 0
    complete: bool = False
    seconds: float = 0.0
    examples: dict[str, list[str]] = field(default_factory=dict)

    def note(self, finding: Finding, key: bytes) -> None:
        """Count one."""
        self.checked += 1
        self.findings[finding] += 1
        keys = self.examples.setdefault(finding, [])
        if finding in REPAIRED and len(keys) < 3:
            keys.append(key.decode(errors="replace"))

    def as_json(self) -> dict[str, Any]:
        """For `--json` and the log line."""
        counts = {finding: self.findings[finding] for finding in ("equal", "missing", "stale", "wrong", "ahead")}
        done = {"added": self.added, "changed": self.changed, "removed": self.removed}
        end = {"complete": self.complete, "seconds": round(self.seconds, 3)}
        examples = {finding: keys for finding, keys in self.examples.items() if keys}
        return {"checked": self.checked, **counts, **done, **end, "examples": examples}


class Verification:
    """One run. Its memory is bounded by a batch; repairs replace only what was judged, see `scripts.REPAIR`.

    Args:
        redis: client of the cache.
        truth: an open connection to the database.
        keys: names of entries.
        clock: says how old data is, and how long it takes.
        dry_run: repair nothing.
    """

    def __init__(self, redis: "Redis", truth: CacheTruth, keys: Keys, clock: Clock, *, dry_run: bool) -> None:
        self._redis = redis
        self._truth = truth
        self._keys = keys
        self._clock = clock
        self._dry_run = dry_run
        self._repair = redis.register_script(REPAIR)
        self._report = Report()
        self._ends: Callable[[], bool] = lambda: False

    async def run(self, timeout: float, stop: asyncio.Event) -> Report:
        """Compare, repair, report; once.

        Args:
            timeout: seconds after which it ends unfinished.
            stop: ends it likewise when set.
        Raises:
            Disconnected, RetryLater: Redis or the database does not answer now. What was repaired stays.
        """
        began = self._clock.monotonic()
        self._ends = lambda: stop.is_set() or self._clock.monotonic() - began > timeout
        self._report.complete = await self._cached() and await self._missing()
        self._report.seconds = self._clock.monotonic() - began
        return self._report

    async def _cached(self) -> bool:
        """Look at all that is in the cache."""
        for kind in ("status", "rollup"):
            cursor = 0
            while True:
                if self._ends():
                    return False
                with translated():
                    cursor, found = await self._redis.scan(cursor, match=_pattern(self._keys.prefix, kind), count=BATCH)
                # SCAN may bring a key twice, and more at once than it was asked for.
                names = list(dict.fromkeys(cast(list[bytes], found)))
                for start in range(0, len(names), BATCH):
                    await self._compare(names[start : start + BATCH])
                if not cursor:
                    break
        return True

    async def _compare(self, names: Sequence[bytes]) -> None:
        with translated():
            values = cast(list[bytes | None], await self._redis.mget(names))
        entries = [Cached.read(self._keys, key, value) for key, value in zip(names, values, strict=True) if value]
        positions = await self._truth.positions()
        truth = await self._truth_of(entries)
        repairs: list[tuple[Cached, Stored | None]] = []
        for cached in entries:
            stored = truth.get(cached.key)
            left = 0 if cached.document is None else self._keys.left_ms(cached.key, cached.document["asOf"])
            finding = judge(cached, stored, positions, left)
            self._report.note(finding, cached.key)
            if finding in REPAIRED:
                repairs.append((cached, stored))
        await self._replace(repairs)

    async def _truth_of(self, entries: Sequence[Cached]) -> Mapping[bytes, Stored]:
        """What the database says of them. A name with NUL is in no database."""
        known = [cached for cached in entries if cached.document is not None and b"\0" not in cached.key]
        documents = [cached.document for cached in known if cached.document is not None]
        documents = [document for document in documents if "\0" not in document["deviceType"]]
        rollups = [(each["deviceType"], each["deviceId"], each["window"]) for each in documents if "window" in each]
        statuses = [each["deviceId"] for each in documents if "window" not in each]
        found: dict[bytes, Stored] = {}
        if statuses:
            found |= await self._truth.statuses(statuses)
        if rollups:
            found |= await self._truth.rollups(rollups)
        return found

    async def _missing(self) -> bool:
        """Look for all that should be in the cache."""
        async with aclosing(self._truth.everything(BATCH)) as batches:
            async for batch in batches:
                if self._ends():
                    return False
                fresh = [stored for stored in batch if self._keys.left_ms(stored.entry.key, stored.entry.as_of) > 0]
                if not fresh:
                    continue
                with translated():
                    values = await self._redis.mget([stored.entry.key for stored in fresh])
                missing = [stored for stored, value in zip(fresh, values, strict=True) if value is None]
                for stored in missing:
                    self._report.note("missing", stored.entry.key)
                await self._replace([(Cached(stored.entry.key, b"", None), stored) for stored in missing])
        return True

    async def _replace(self, repairs: Sequence[tuple[Cached, Stored | None]]) -> None:
        if not repairs or self._dry_run:
            return
        arguments: list[bytes] = []
        for cached, stored in repairs:
            left = 0 if stored is None else self._keys.left_ms(cached.key, stored.entry.as_of)
            right = stored.entry.value() if stored is not None and left > 0 else b""
            arguments += [cached.value, right, b"%d" % left]
        with translated():
            done = await self._repair([cached.key for cached, _ in repairs], arguments)
        for place, ((cached, _), replaced) in enumerate(zip(repairs, done, strict=True)):
            if replaced:
                right = arguments[3 * place + 1]
                self._report.added += not cached.value
                self._report.changed += bool(cached.value and right)
                self._report.removed += bool(cached.value and not right)


def _pattern(prefix: str, kind: str) -> str:
    """Of keys; a prefix has no character that patterns know."""
    return f"{prefix}:{kind}:*"
