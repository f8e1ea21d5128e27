"""The listener: who gets in, what is too much, and what happens to those who send nonsense."""

import asyncio
import random
import resource
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from headrace.connectors.mqtt.codec.packets import (
    V3,
    V5,
    Ack,
    Auth,
    Connack,
    Connect,
    Disconnect,
    Filter,
    Kind,
    Packet,
    Ping,
    Publish,
    Subscribe,
    Will,
)
from headrace.connectors.mqtt.codec.reasons import Reason
from headrace.connectors.mqtt.codec.write import write
from headrace.connectors.mqtt.passwords import password_line
from headrace.engine.errors import ConfigError
from tests.connectors.mqtt.listening import HandClock, Listening, until
from tests.connectors.mqtt.raw_client import RawClient, connected, telemetry

BOTH = pytest.mark.parametrize("version", [V3, V5])


@BOTH
async def test_passwords(version: int, tmp_path: Path) -> None:
    """User and password decide who a client is; a file that changes is read again."""
    path = tmp_path / "users"
    path.write_text("# devices\n" + password_line("sensor-1", b"secret") + "\n")
    async with Listening(anonymous=False, passwords=path) as listening:

        async def attempt(username: str | None, password: bytes | None) -> int:
            async with connected(listening.port, "any id", version, username=username, password=password) as client:
                return client.connack.reason

        assert await attempt("sensor-1", b"secret") == Reason.SUCCESS
        assert await attempt("sensor-1", b"wrong") == Reason.BAD_USER_NAME_OR_PASSWORD
        assert await attempt("sensor-2", b"secret") == Reason.BAD_USER_NAME_OR_PASSWORD
        assert await attempt("sensor-1", None) == Reason.BAD_USER_NAME_OR_PASSWORD
        assert await attempt(None, None) == Reason.NOT_AUTHORIZED
        path.write_text(password_line("sensor-2", b"secret") + "\n")
        assert await attempt("sensor-2", b"secret") == Reason.SUCCESS
        assert await attempt("sensor-1", b"secret") == Reason.BAD_USER_NAME_OR_PASSWORD
        async with connected(listening.port, "any id", version, username="sensor-2", password=b"secret") as client:
            own = telemetry(b"x", 1, 1, device="sensor-2")
            assert await client.ask(own) == Ack(Kind.PUBACK, 1)


@pytest.mark.parametrize(
    ("settings", "mistake"),
    [
        ({"anonymous": False}, "nobody could come in"),
        ({"tls_port": 0}, "tls_port needs certificate and key"),
        ({"client_ca": "x"}, "client certificates need tls_port"),
        ({"publish": ["dt/#/x"]}, "topic filter"),
        ({"publish": ["dt/x{device}"]}, "level of its own"),
        ({"max_inflight": 0}, "greater than or equal to 1"),
        ({"grants": [{"users": ["gateways/+"]}]}, "nobody can be called"),
    ],
)
def test_mistakes(settings: dict[str, Any], mistake: str) -> None:
    """A configuration that cannot work is refused."""
    with pytest.raises(ValueError, match=mistake):
        Listening(**settings)


async def test_files_that_are_not_there(tmp_path: Path) -> None:
    """Every file that is missing is named."""
    paths: dict[str, Any] = {name: tmp_path / name for name in ("certificate", "key", "client_ca")}
    with pytest.raises(ConfigError) as caught:
        async with Listening(tls_port=0, **paths):
            pass
    assert len(caught.value.mistakes) == 2


async def test_a_port_that_is_taken() -> None:
    """Says which."""
    async with Listening() as listening:
        with pytest.raises(ConfigError, match=f"{listening.port} is taken"):
            async with Listening(port=listening.port):
                pass


@pytest.mark.parametrize(
    ("packets", "reason"),
    [
        ([telemetry(b"x" * 2_000)], Reason.PACKET_TOO_LARGE),
        ([telemetry(b"x" * 300_000)], Reason.PACKET_TOO_LARGE),
        ([telemetry(b"x", place, 1) for place in range(1, 12)], Reason.RECEIVE_MAXIMUM_EXCEEDED),
        ([telemetry(b"x")._replace(retain=True)], Reason.RETAIN_NOT_SUPPORTED),
        ([Publish(b"", b"", properties={"topic_alias": 100})], Reason.TOPIC_ALIAS_INVALID),
        ([Subscribe(1, (Filter("cmd/devices/a/#"),), {"subscription_identifier": 1})], 0xA1),
        ([Connect("a")], Reason.PROTOCOL_ERROR),
        ([Connack(False)], Reason.PROTOCOL_ERROR),
        ([Auth(0x18, {"authentication_method": "x"})], Reason.PROTOCOL_ERROR),
        ([Ping(Kind.PINGRESP)], Reason.PROTOCOL_ERROR),
        ([Disconnect(0, {"session_expiry_interval": 9})], Reason.PROTOCOL_ERROR),
    ],
)
async def test_what_ends_a_connection(packets: Sequence[Packet], reason: int) -> None:
    """A client of MQTT 5 is told why; another one goes on."""
    async with (
        Listening(max_payload_bytes=1_000, max_inflight=10) as listening,
        connected(listening.port, "other") as other,
        connected(listening.port, "a") as client,
    ):
        listening.intake.gate.clear()
        client.send(*packets)
        words = await client.last_words()
        assert isinstance(words, Disconnect)
        assert words.reason == reason
        assert await other.ask(Ping()) == Ping(Kind.PINGRESP)


async def test_too_many_in_flight_in_the_old_version() -> None:
    """3.1.1 has no word for it: the client is not read until others of its messages are through."""
    async with Listening(max_inflight=10) as listening, connected(listening.port, "a", V3) as client:
        listening.intake.gate.clear()
        for packet_id in range(1, 101):
            client.send(telemetry(b"x", packet_id, 1))
            await client.flush()
            await asyncio.sleep(0)
        listening.intake.gate.set()

        assert [await client.receive() for _ in range(100)] == [Ack(Kind.PUBACK, each) for each in range(1, 101)]


@BOTH
async def test_too_many_clients(version: int) -> None:
    """Who is too much is told that it is busy."""
    busy = Reason.SERVER_BUSY if version == V5 else Reason.SERVER_UNAVAILABLE
    slower = Reason.CONNECTION_RATE_EXCEEDED if version == V5 else Reason.SERVER_UNAVAILABLE
    for limit, reason in (("max_connections", busy), ("connect_rate", slower)):
        async with (
            Listening(HandClock(), **{limit: 1}) as listening,
            connected(listening.port, "a", version),
            connected(listening.port, "b", version) as second,
        ):
            assert second.connack.reason == reason
            assert await second.last_words() is None


@pytest.mark.parametrize(
    ("connect", "reason"),
    [
        (Connect("a", properties={"authentication_method": "SCRAM"}), Reason.BAD_AUTHENTICATION_METHOD),
        (Connect("a" * 300), Reason.CLIENT_IDENTIFIER_NOT_VALID),
        (Connect("a/b"), Reason.NOT_AUTHORIZED),
        (Connect("+"), Reason.NOT_AUTHORIZED),
        (Connect("a", will=Will(b"dt/devices/b/telemetry", b"")), Reason.NOT_AUTHORIZED),
        (Connect("a", will=Will(b"dt/devices/a/x", b"", retain=True)), Reason.RETAIN_NOT_SUPPORTED),
    ],
)
async def test_who_is_not_let_in(connect: Connect, reason: int) -> None:
    """The CONNACK says why, and the connection ends."""
    async with Listening() as listening:
        client = await RawClient.open(listening.port)
        answer = await client.ask(connect)
        assert isinstance(answer, Connack)
        assert answer.reason == reason
        assert await client.last_words() is None
        await client.close()


@pytest.mark.parametrize(
    ("data", "answer"),
    [
        ("10 10 0006 4d5149736470 03 02 000a 0002 6162", "20 02 00 01"),  # MQTT 3.1
        ("10 0e 0004 4d515454 07 02 000a 0002 6162", "20"),  # a version of the future
        ("30 06 0003 612f62 78", ""),  # not CONNECT
        ("c0 00", ""),
        ("00 00", ""),
        ("ff ff ff ff ff ff", ""),
        ("16 03 01 02 00 01 00 01 fc", ""),  # TLS on a port without
        ("474554202f20485454502f312e310d0a0d0a", ""),  # GET / HTTP/1.1
    ],
)
async def test_strangers(data: str, answer: str) -> None:
    """Whoever does not speak MQTT is hung up on; who speaks another version of it is told so."""
    async with Listening(connect_timeout=300) as listening:
        reader, writer = await asyncio.open_connection("127.0.0.1", listening.port)
        writer.write(bytes.fromhex(data))
        async with asyncio.timeout(60):
            got = await reader.read()
        assert got.hex().startswith(answer.replace(" ", ""))
        assert answer or not got
        writer.close()


async def test_silent_strangers() -> None:
    """Who connects and says nothing has `connect_timeout`."""
    async with Listening(connect_timeout=0.3) as listening:
        reader, writer = await asyncio.open_connection("127.0.0.1", listening.port)
        async with asyncio.timeout(60):
            assert await reader.read() == b""
        writer.close()


async def test_noise_closes_its_own_connection_only() -> None:
    """Hundreds of connections with damaged packets: a good client goes on, and what it sent is all there."""
    rng = random.Random(11)
    sound = [
        write(Connect("noise", V5, True, 5, "u", b"p", Will(b"dt/devices/noise/x", b"w")), V5),
        write(telemetry(b"payload", 3, 1, device="noise"), V5),
        write(Subscribe(1, (Filter("cmd/devices/noise/#", 1),)), V5),
        write(Ack(Kind.PUBREL, 4), V5),
        write(Disconnect(), V5),
    ]

    async def disturb(port: int) -> None:
        data = bytearray(b"".join(sound[: rng.randint(1, 5)]))
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        for start in range(0, len(data), 7):
            writer.write(data[start : start + 7])
            await asyncio.sleep(0)
        writer.transport.abort()

    async with Listening(publish=["dt/devices/{device}/#"]) as listening, connected(listening.port, "a") as client:
        for packet_id in range(1, 301):
            await disturb(listening.port)
            assert await client.ask(telemetry(b"%d" % packet_id, packet_id, 1)) == Ack(Kind.PUBACK, packet_id)
        await until(lambda: listening.listener.statistics().connections == 1)
        assert [p for t, p in listening.intake.messages if b"/a/" in t] == [b"%d" % each for each in range(1, 301)]


async def test_a_slow_log_holds_clients_back() -> None:
    """While the log does not take more, what waits is bounded, pings are answered, and nothing is lost."""
    size, count = 10_000, 1_500
    async with (
        Listening(max_waiting_bytes=1 << 20, max_inflight=1_000) as listening,
        connected(listening.port, "idle") as idle,
    ):
        listening.intake.gate.clear()

        async def flood(name: str) -> None:
            async with connected(listening.port, name, V3) as client:
                for number in range(count // 5):
                    client.send(telemetry(b"%06d" % number + b"x" * size, device=name))
                    await client.flush()
                client.send(Disconnect())
                assert await client.last_words() is None

        floods = [asyncio.create_task(flood(f"d{number}")) for number in range(5)]
        await until(lambda: listening.listener.inflow.full)
        for _ in range(20):
            assert await idle.ask(Ping()) == Ping(Kind.PINGRESP)
            assert listening.listener.statistics().waiting_bytes < (1 << 20) + 6 * 65_536
            await asyncio.sleep(0.01)
        assert not any(flood.done() for flood in floods)

        listening.intake.gate.set()
        async with asyncio.timeout(60):
            await asyncio.gather(*floods)
        await until(lambda: len(listening.intake.messages) == count)
        for number in range(5):
            own = [p[:6] for t, p in listening.intake.messages if t == b"dt/devices/d%d/telemetry" % number]
            assert own == [b"%06d" % place for place in range(count // 5)]


async def test_a_client_that_does_not_read_its_answers() -> None:
    """It is not read either, so that what is to be said to it stays bounded."""
    async with Listening() as listening, connected(listening.port, "a") as client:
        pings = write(Ping(), V5) * 50_000
        for _ in range(200):
            client.send_bytes(pings)
            await asyncio.sleep(0)
        connection = next(iter(listening.listener._connections))
        await until(lambda: connection.paused)
        assert connection._transport.get_write_buffer_size() < 4 << 20
        assert sum(map(len, connection._out)) + connection._frames.waiting < 128 << 10


async def test_as_many_clients_as_there_are_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who comes when the process may have no more is told so or hung up on; those who are in go on undisturbed."""
    monkeypatch.setattr(resource, "getrlimit", lambda which: (300, 300))
    listening = Listening()
    async with listening, connected(listening.port, "a") as client:
        others = [await RawClient.open(listening.port) for _ in range(300)]
        for number, other in enumerate(others):
            other.send(Connect(f"c{number}"))
        await until(lambda: listening.listener.statistics().refused >= 50)
        assert await client.ask(telemetry(b"x", 1, 1)) == Ack(Kind.PUBACK, 1)
        assert listening.listener.statistics().connections < 236
        for other in others:
            await other.close()
