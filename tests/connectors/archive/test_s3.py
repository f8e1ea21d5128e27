"""The archive in S3 (moto, real HTTP)."""

import re
from collections.abc import AsyncIterator, Iterator

import pytest
from aiobotocore.session import get_session

from headrace.connectors.archive.object_store import open_store
from headrace.connectors.archive.settings import ArchiveSettings
from headrace.engine.errors import RetryLater
from tests.connectors.archive.world import World, air
from tests.connectors.kinesis.aws import REGION, Moto


@pytest.fixture(scope="module")
def s3_url() -> Iterator[str]:
    """Where it listens."""
    with Moto() as url:
        yield url


def settings(url: str, bucket: str = "cold", **more: object) -> ArchiveSettings:
    fields = {"url": f"s3://{bucket}/some/prefix", "region": REGION, "endpoint_url": url}
    return ArchiveSettings.model_validate({**fields, "access_key_id": "test", "secret_access_key": "test", **more})


@pytest.fixture
async def bucket(s3_url: str) -> AsyncIterator[str]:
    """The address of a server with the bucket `cold`, empty."""
    keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
    async with get_session().create_client("s3", region_name=REGION, endpoint_url=s3_url, **keys) as client:
        await client.create_bucket(Bucket="cold", CreateBucketConfiguration={"LocationConstraint": REGION})
        yield s3_url
        for each in (await client.list_objects_v2(Bucket="cold")).get("Contents", []):
            await client.delete_object(Bucket="cold", Key=each["Key"])
        await client.delete_bucket(Bucket="cold")


async def test_rows_move_to_s3(world: World, bucket: str) -> None:
    """The job writes to a bucket, reads back from it, and the reader finds every row there."""
    world.store = open_store(settings(bucket), None)
    rows = air(2, 2, 3, "Acme & Söhne")
    await world.insert(rows)

    report = await world.job().run()

    assert (report.failures, report.rows) == ([], len(rows))
    assert await world.stored() == []
    assert await world.archived() == rows
    assert all(name.startswith("readings/device_type=air/organisation=Acme%20") for name in await world.objects())


async def test_objects(bucket: str) -> None:
    """Objects are put, read, listed below a folder, replaced and deleted; deleting twice is no error."""
    store = open_store(settings(bucket), None)
    await store.put("a/b%20c/x", b"one")
    await store.put("a/b%20c/x", b"three")
    await store.put("d/y", b"")

    assert await store.get("a/b%20c/x") == b"three"
    assert await store.list("a") == [("a/b%20c/x", 5)]
    assert [name for name, _ in await store.list()] == ["a/b%20c/x", "d/y"]
    await store.delete("d/y")
    await store.delete("d/y")
    with pytest.raises(FileNotFoundError):
        await store.get("d/y")


async def test_bucket_that_is_not_there(world: World, s3_url: str) -> None:
    """Nothing is deleted while the bucket is missing, and the failure names what S3 said."""
    await world.insert(air())

    report = await world.job(open_store(settings(s3_url, "nowhere"), None)).run()

    assert re.search("nowhere|NoSuchBucket|bucket does not exist", " ".join(report.failures), re.IGNORECASE)
    assert await world.stored() == air()


async def test_server_that_is_down(unused_tcp_port: int) -> None:
    """A server that does not answer is an error to be tried again later."""
    store = open_store(settings(f"http://127.0.0.1:{unused_tcp_port}", request_timeout=1.0), None)

    with pytest.raises(RetryLater, match="archive"):
        await store.put("x", b"x")
