"""The listener over TLS, with and without client certificates."""

import asyncio
import shutil
import ssl
from pathlib import Path
from typing import Any

import pytest
from local_kafka.security import Security

from headrace.connectors.mqtt.codec.packets import V5, Ack, Kind
from headrace.connectors.mqtt.codec.reasons import Reason
from tests.conftest import Require
from tests.connectors.mqtt.listening import Listening
from tests.connectors.mqtt.raw_client import RawClient, connected, telemetry

#: The subject of the certificates that `Security` makes, as a name for a device.
COMMON_NAME = "headrace-test"


@pytest.fixture
def security(tmp_path: Path, require: Require) -> Security:
    """An authority with certificates for server and client."""
    require(shutil.which("openssl"), "openssl", "install the package `openssl`")
    made = Security(tmp_path / "certificates", common_name=COMMON_NAME)
    made.make_certificates()
    return made


def settings(security: Security, **more: object) -> dict[str, Any]:
    """A listener with TLS."""
    return {
        "tls_port": 0,
        "certificate": security.folder / "server.pem",
        "key": security.folder / "server.key",
        "anonymous": False,
        "client_ca": security.ca,
        **more,
    }


def trusting(security: Security, *, certificate: bool) -> ssl.SSLContext:
    """How a client connects."""
    context = ssl.create_default_context(cafile=str(security.ca))
    if certificate:
        context.load_cert_chain(security.client_certificate, security.client_key)
    return context


async def test_a_certificate_says_who_it_is(security: Security) -> None:
    """The common name is the device: it publishes below its own prefix only, whatever client id it gives."""
    async with (
        Listening(**settings(security)) as listening,
        connected(listening.tls_port, "any", tls=trusting(security, certificate=True)) as client,
    ):
        own = telemetry(b"x", 1, 1, device=COMMON_NAME)
        assert await client.ask(own) == Ack(Kind.PUBACK, 1)
        other = telemetry(b"x", 2, 1, device="any")
        assert await client.ask(other) == Ack(Kind.PUBACK, 2, Reason.NOT_AUTHORIZED)
        large = [telemetry(b"%06d" % number + b"x" * 50_000, number, 1, device=COMMON_NAME) for number in range(3, 60)]
        client.send(*large)
        assert [await client.receive() for _ in large] == [Ack(Kind.PUBACK, each.packet_id) for each in large]
        assert listening.intake.payloads[1:] == [each.payload for each in large]


async def test_another_name_beside_the_certificate(security: Security) -> None:
    """A user name must be that of the certificate."""
    async with (
        Listening(**settings(security)) as listening,
        connected(listening.tls_port, "any", username="x", tls=trusting(security, certificate=True)) as client,
    ):
        assert client.connack.reason == Reason.NOT_AUTHORIZED


async def test_without_a_certificate(security: Security) -> None:
    """Where it is not required, something else has to say who it is; where it is, TLS fails."""
    without = trusting(security, certificate=False)
    async with (
        Listening(**settings(security)) as listening,
        connected(listening.tls_port, "any", tls=without) as client,
    ):
        assert client.connack.reason == Reason.NOT_AUTHORIZED
    async with Listening(**settings(security, require_certificate=True)) as listening:
        client = await RawClient.open(listening.tls_port, V5, without)
        with pytest.raises((EOFError, ssl.SSLError)):
            await client.ask(telemetry(b"x"))
        await client.close()


async def test_old_tls_and_no_tls(security: Security) -> None:
    """TLS 1.1 is refused, and so is MQTT in clear on the TLS port."""
    async with Listening(**settings(security, connect_timeout=300)) as listening:
        old = trusting(security, certificate=True)
        old.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            old.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await RawClient.open(listening.tls_port, V5, old)
        reader, writer = await asyncio.open_connection("127.0.0.1", listening.tls_port)
        writer.write(bytes.fromhex("10 0e 0004 4d515454 04 02 000a 0002 6162"))
        async with asyncio.timeout(60):
            answer = await reader.read()
        assert answer[:1] in (b"", b"\x15")  # nothing, or a TLS alert
        writer.close()
