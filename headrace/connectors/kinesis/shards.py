"""A client of one Kinesis stream, for reading its shards."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, NamedTuple

from headrace.connectors.kinesis.client import StreamClient, open_plain_client
from headrace.connectors.kinesis.position import Position
from headrace.connectors.kinesis.source_settings import KinesisSourceSettings
from headrace.engine.errors import HeadraceError, RetryLater

HOUR_MS = 3_600_000


class Shard(NamedTuple):
    """A shard; its parents are those that it was split from, or merged from."""

    shard_id: str
    parents: Sequence[str] = ()


class Stream(NamedTuple):
    """What a stream says of itself. Times are ms; `created_ms` since 1970 UTC."""

    arn: str
    created_ms: int
    retention_ms: int


class Arrived(NamedTuple):
    """A record as it is in the stream."""

    sequence: str
    key: bytes
    data: bytes
    at_ms: int


class Read(NamedTuple):
    """The answer to one read.

    Args:
        iterator: for the next one; None at the end of a closed shard.
        behind_ms: how far the newest record is ahead of the last of these.
    """

    records: Sequence[Arrived]
    iterator: str | None
    behind_ms: int


class IteratorExpired(HeadraceError):
    """It was not used for five minutes; ask for a new one."""


class PositionGone(HeadraceError):
    """There is no such place in the shard any more, or never was."""


class ShardGone(HeadraceError):
    """The stream has no such shard any more: all that was in it is older than its retention."""


class ShardsClient(StreamClient):
    """Reads a stream."""

    section = "kinesis_source"
    actions = "kinesis:DescribeStreamSummary, ListShards, GetShardIterator and GetRecords"

    async def describe(self) -> Stream:
        """What the stream is.

        Raises:
            RetryLater: not now.
            ConfigError: there is no such stream, or the credentials are not good for it.
            LogError: Kinesis does not understand us.
        """
        said = (await self._call("describe_stream_summary"))["StreamDescriptionSummary"]
        hours = said.get("RetentionPeriodHours", 24)
        return Stream(said["StreamARN"], _ms(said["StreamCreationTimestamp"]), hours * HOUR_MS)

    async def shards(self) -> list[Shard]:
        """Every shard that still has something, closed ones too. Raises as `describe`."""
        answer = await self._call("list_shards")
        found = list(answer["Shards"])
        while token := answer.get("NextToken"):
            answer = await self._send("list_shards", {"NextToken": token})
            found += answer["Shards"]
        return [
            Shard(
                each["ShardId"], [each[name] for name in ("ParentShardId", "AdjacentParentShardId") if each.get(name)]
            )
            for each in found
        ]

    async def iterator(self, shard_id: str, position: Position, since_ms: int | None) -> str:
        """One that begins behind `position`, or at what is not whole; without a sequence number at `since_ms`.

        Raises:
            PositionGone, ShardGone: begin with the oldest record that there is, or with its children.
            RetryLater, ConfigError, LogError: as `describe`.
        """
        if position.sequence:
            kind = "AFTER_SEQUENCE_NUMBER" if position.taken is None else "AT_SEQUENCE_NUMBER"
            place: dict[str, Any] = {"ShardIteratorType": kind, "StartingSequenceNumber": position.sequence}
        elif since_ms is not None:
            place = {"ShardIteratorType": "AT_TIMESTAMP", "Timestamp": since_ms / 1000}
        else:
            place = {"ShardIteratorType": "TRIM_HORIZON"}
        iterator: str = (await self._call("get_shard_iterator", ShardId=shard_id, **place))["ShardIterator"]
        return iterator

    async def read(self, iterator: str, limit: int) -> Read:
        """Up to so many records, and up to 10 MiB.

        Raises:
            IteratorExpired: ask for a new one.
            RetryLater, ConfigError, LogError: as `describe`.
        """
        target = {name: value for name, value in self._target.items() if name == "StreamARN"}
        answer = await self._send("get_records", target | {"ShardIterator": iterator, "Limit": limit})
        records = [
            Arrived(
                each["SequenceNumber"],
                each["PartitionKey"].encode(),
                each["Data"],
                _ms(each["ApproximateArrivalTimestamp"]) if "ApproximateArrivalTimestamp" in each else 0,
            )
            for each in answer["Records"]
        ]
        return Read(records, answer.get("NextShardIterator"), answer.get("MillisBehindLatest") or 0)

    def _judged(self, response: Any) -> Exception:
        code, text = str(response["Error"].get("Code")), str(response["Error"].get("Message"))
        if code == "ExpiredIteratorException":
            return IteratorExpired(text)
        if code == "InvalidArgumentException" and "equenceNumber" in text:
            return PositionGone(text)
        if code == "InvalidArgumentException" and "imestamp" in text:
            return RetryLater(f"the time to begin with is in the future for Kinesis: {text}")
        if code in ("ExpiredNextTokenException", "ResourceInUseException"):
            return RetryLater(f"{code}: {text}")
        if code == "ResourceNotFoundException" and "shardId-" in text:
            return ShardGone(text)
        return super()._judged(response)


@asynccontextmanager
async def open_shards(settings: KinesisSourceSettings) -> AsyncIterator[ShardsClient]:
    """A client for as long as the `async with` lasts.

    Raises:
        ConfigError: aiobotocore is not installed, or no stream or region is named.
    """
    async with open_plain_client(settings, ShardsClient.section, settings.requests + 1) as client:
        assert settings.stream is not None
        yield ShardsClient(client, settings.stream)


def _ms(moment: datetime | float) -> int:
    seconds = moment.timestamp() if isinstance(moment, datetime) else float(moment)
    return round(seconds * 1000)
