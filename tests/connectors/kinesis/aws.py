"""A server that speaks for Kinesis (moto, real HTTP), and a way to it on which things go wrong."""

import asyncio
import base64
import json
import os
import subprocess
import sys
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple
from urllib.request import urlopen

import aiohttp
from aiobotocore.session import get_session
from aiohttp import web
from local_kafka.ports import free_ports

from headrace.connectors.kinesis.settings import KinesisSettings
from tests.loop_time import skip

REGION = "eu-central-1"
START_TIMEOUT = 120.0
_session = get_session()  # keeps what it has read of AWS's interfaces


class Moto:
    """The server, in a child process.

    Args:
        program: what runs it.
    """

    def __init__(self, *program: str) -> None:
        self._program = program or ("-m", "moto.server")

    def __enter__(self) -> str:
        port = free_ports(1)[0]
        command = [sys.executable, *self._program, "-p", str(port)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ)
        url = f"http://127.0.0.1:{port}"
        _wait_answer(f"{url}/moto-api/data.json", self._process)
        return url

    def __exit__(self, *error: object) -> None:
        self._process.kill()  # it has nothing to keep, and may take long to end on a busy machine
        self._process.wait()


def _wait_answer(url: str, process: "subprocess.Popen[bytes]") -> None:
    import time

    deadline = time.monotonic() + START_TIMEOUT
    while True:
        try:
            with urlopen(url, timeout=5):
                return
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def settings(url: str, stream: str | None = "fleet", **more: object) -> KinesisSettings:
    """Those of a stream on this server."""
    return KinesisSettings.model_validate(
        {
            "stream": stream,
            "region": REGION,
            "endpoint_url": url,
            "access_key_id": "test",
            "secret_access_key": "test",
            **more,
        }
    )


@asynccontextmanager
async def client(url: str) -> AsyncIterator[Any]:
    """A plain client of the server."""
    async with _session.create_client(
        "kinesis", region_name=REGION, endpoint_url=url, aws_access_key_id="test", aws_secret_access_key="test"
    ) as made:
        yield made


class Stream:
    """A stream of the server, to make it and to read it back.

    Args:
        kinesis: a plain client.
        name: of the stream.
    """

    def __init__(self, kinesis: Any, name: str) -> None:
        self._kinesis = kinesis
        self.name = name

    async def make(self, shards: int = 2) -> None:
        """Make it, empty."""
        if self.name in (await self._kinesis.list_streams(Limit=1000))["StreamNames"]:
            await self.delete()
        await self._kinesis.create_stream(StreamName=self.name, ShardCount=shards)

    async def delete(self) -> None:
        """As if it had never been there."""
        await self._kinesis.delete_stream(StreamName=self.name)

    async def shards(self) -> list[list[tuple[str, bytes]]]:
        """Partition key and data of every record, shard by shard, in order."""
        found = []
        for shard in (await self._kinesis.list_shards(StreamName=self.name))["Shards"]:
            arguments = {"StreamName": self.name, "ShardId": shard["ShardId"], "ShardIteratorType": "TRIM_HORIZON"}
            iterator = (await self._kinesis.get_shard_iterator(**arguments))["ShardIterator"]
            records: list[tuple[str, bytes]] = []
            while answer := await self._kinesis.get_records(ShardIterator=iterator, Limit=10_000):
                records += [(each["PartitionKey"], each["Data"]) for each in answer["Records"]]
                iterator = answer["NextShardIterator"]
                if not answer["Records"]:
                    break
            found.append(records)
        return found

    async def devices(self) -> dict[str, list[bytes]]:
        """What it has of each device, in order; a device is in one shard."""
        devices: dict[str, list[bytes]] = {}
        for shard in await self.shards():
            own: dict[str, list[bytes]] = {}
            for key, data in shard:
                own.setdefault(key, []).append(data)
            assert not own.keys() & devices.keys()
            devices |= own
        return devices


class Fault(NamedTuple):
    """What becomes of one PutRecords.

    Args:
        kind: `refuse` some records and forward the others; answer an `error`, `reset` the connection or stay `silent`,
            each instead of forwarding, or with `lost_…` after it.
        refused: place of a record is refused where its bit is 1, over and over.
    """

    kind: str
    refused: int = 0


class FaultyWay:
    """An HTTP proxy to Kinesis. Each PutRecords takes the next fault; without one it passes.

    It also watches for what may not happen: a request past the limits, or two records of a device at a time.

    Args:
        url: of Kinesis.
        faults: the first ones.
        patience: seconds after which a silent one is given up; they pass at once.
    """

    def __init__(self, url: str, faults: Iterable[Fault] = (), patience: float = 0.0) -> None:
        self._target = url
        self._patience = patience
        self.faults = deque(faults)
        self.gate = asyncio.Event()
        self.gate.set()
        self.requests: list[int] = []
        self.wrong: list[str] = []
        self.waiting = 0
        self._under_way: Counter[str] = Counter()
        self._turn = asyncio.Lock()

    async def __aenter__(self) -> "FaultyWay":
        self._session = aiohttp.ClientSession()
        application = web.Application(client_max_size=32 << 20)
        application.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        assert self._runner.addresses
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._runner.cleanup()
        await self._session.close()

    async def wait_requests(self, count: int) -> None:
        """Wait until so many PutRecords have come."""
        while len(self.requests) < count:
            await asyncio.sleep(0.002)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        if not request.headers.get("X-Amz-Target", "").endswith(".PutRecords"):
            return await self._forward(request, body)
        records = json.loads(body)["Records"]
        keys = [record["PartitionKey"] for record in records]
        self._watch(records)
        self._under_way.update(keys)
        try:
            self.waiting += 1
            await self.gate.wait()
            return await self._put(request, body)
        finally:
            self.waiting -= 1
            self._under_way.subtract(keys)

    async def _put(self, request: web.Request, body: bytes) -> web.StreamResponse:
        fault = self.faults.popleft() if self.faults else Fault("refuse")
        if fault.kind == "refuse":
            return await self._refuse(request, json.loads(body), fault.refused)
        if fault.kind.startswith("lost_"):
            await self._forward(request, body)
        if fault.kind.endswith("reset"):
            assert request.transport is not None
            request.transport.abort()
        elif fault.kind.endswith("silent"):
            skip(self._patience)
            await asyncio.Event().wait()  # until the client hangs up
        error = {"__type": "InternalFailure", "message": "out of order"}
        return web.json_response(error, status=500, content_type="application/x-amz-json-1.1")

    async def _refuse(self, request: web.Request, sent: Any, refused: int) -> web.Response:
        records = sent["Records"]
        passing = [not refused >> place % 16 & 1 for place in range(len(records))]
        taken = [record for record, passes in zip(records, passing, strict=True) if passes]
        results = iter(())
        if taken:
            answer = await self._forward(request, json.dumps({**sent, "Records": taken}).encode())
            assert isinstance(answer.body, bytes)
            if answer.status != 200:
                return answer
            results = iter(json.loads(answer.body)["Records"])
        throttled = {"ErrorCode": "ProvisionedThroughputExceededException", "ErrorMessage": "Rate exceeded"}
        whole = [next(results) if passes else throttled for passes in passing]
        return web.json_response({"FailedRecordCount": passing.count(False), "Records": whole})

    async def _forward(self, request: web.Request, body: bytes) -> web.Response:
        own = ("host", "content-length")
        headers = {name: value for name, value in request.headers.items() if name.lower() not in own}
        url = f"{self._target}{request.path}"
        # One at a time: moto gives the same sequence number to records that come together, and keeps one of them.
        async with self._turn, self._session.request(request.method, url, data=body, headers=headers) as got:
            content = await got.read()
            return web.Response(body=content, status=got.status, headers={"Content-Type": got.headers["Content-Type"]})

    def _watch(self, records: list[Any]) -> None:
        self.requests.append(len(records))
        size = sum(len(base64.b64decode(each["Data"])) + len(each["PartitionKey"].encode()) for each in records)
        again = [each["PartitionKey"] for each in records if self._under_way[each["PartitionKey"]] > 0]
        if len(records) > 500 or size > 5 << 20:
            self.wrong.append(f"{len(records)} records, {size} bytes")
        if again or len({each["PartitionKey"] for each in records}) < len(records):
            self.wrong.append(f"two of a device at a time: {again}")
