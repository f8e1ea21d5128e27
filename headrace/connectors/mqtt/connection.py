"""One connection to an MQTT 3.1.1 broker, for receiving: it acknowledges when told to, and can stop reading."""

import asyncio
import ssl
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Self

from headrace.connectors.mqtt import packets
from headrace.connectors.mqtt.packets import Frame, Frames, Publish
from headrace.engine.errors import ConfigError, Disconnected

#: Seconds for the connection to open and the broker to let us in.
OPEN_TIMEOUT = 10.0
#: Seconds for the broker to close after we said goodbye.
CLOSE_TIMEOUT = 0.5
#: CONNACK codes that another try cannot change (3.2.2.3).
REFUSALS = {
    1: "it does not speak MQTT 3.1.1",
    2: "it does not accept the client id",
    4: "bad user name or password",
    5: "not authorised",
}


#: What OpenSSL says when another try cannot help.
TLS_REFUSALS = {
    "CERTIFICATE_VERIFY_FAILED": "check [mqtt] host, tls_ca and tls_check_hostname",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "it asks for a client certificate: set [mqtt] tls_certificate and tls_key",
    "SSLV3_ALERT_HANDSHAKE_FAILURE": "it may ask for a client certificate: set [mqtt] tls_certificate and tls_key",
    "SSLV3_ALERT_BAD_CERTIFICATE": "it does not take our certificate: check [mqtt] tls_certificate",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "our certificate has expired: renew [mqtt] tls_certificate",
    "TLSV1_ALERT_UNKNOWN_CA": "it does not know who signed our certificate: check [mqtt] tls_certificate",
    "WRONG_VERSION_NUMBER": "it does not speak TLS on this port: check [mqtt] port and tls",
}


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    """Where a broker is and who we are there. The password stays out of `repr`."""

    host: str
    port: int = 1883
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: ssl.SSLContext | None = field(default=None, repr=False)


class MqttConnection(asyncio.Protocol):
    """A connection that is logged in. Make it with `open`.

    `deliver` is called for every message, from the event loop, and must not block; nothing is acknowledged by itself.
    """

    def __init__(self, keepalive: int, deliver: "Callable[[MqttConnection, Publish], None]") -> None:
        self._keepalive = keepalive
        self._deliver = deliver
        loop = asyncio.get_running_loop()
        self._closed: asyncio.Future[None] = loop.create_future()
        self._answer: asyncio.Future[Frame] = loop.create_future()
        self._frames = Frames()
        self._reason: Exception | None = None
        self._ponged = True
        self._pinger: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport
        self._leaving = False
        self.paused = False
        self.session_present = False

    @classmethod
    async def open(
        cls,
        address: BrokerAddress,
        *,
        client_id: str,
        clean: bool = False,
        keepalive: int = 30,
        qos: int = 1,
        filters: Sequence[str] = (),
        deliver: "Callable[[MqttConnection, Publish], None]" = lambda connection, publish: None,
    ) -> Self:
        """Connect, log in and subscribe. Messages of a kept session may be delivered before this returns.

        Args:
            address: the broker.
            client_id: names the session.
            clean: start without what the broker kept for the client id, and have it keep nothing.
            keepalive: seconds; a broker closes after one and a half times this without a packet.
            qos: quality of service to subscribe with.
            filters: topic filters to subscribe to.
            deliver: takes each message together with its connection.
        Raises:
            Disconnected: no broker there, or it went away.
            ConfigError: the broker refuses us or a subscription, and would again.
        """
        loop = asyncio.get_running_loop()
        where = f"the MQTT broker at {address.host}:{address.port}"
        try:
            async with asyncio.timeout(OPEN_TIMEOUT):
                _, self = await loop.create_connection(
                    lambda: cls(keepalive, deliver), address.host, address.port, ssl=address.tls
                )
        except ssl.SSLError as error:
            raise tls_error(where, error) from error
        except (OSError, TimeoutError) as error:
            raise Disconnected(f"{where} cannot be reached: {error}") from error
        try:
            login = packets.connect(client_id, address.username, address.password, keepalive=keepalive, clean=clean)
            async with asyncio.timeout(OPEN_TIMEOUT):
                flags, code = (await self._ask(login, packets.CONNACK)).body
            if code in REFUSALS:
                raise ConfigError(f"{where} refuses us: {REFUSALS[code]}")
            if code:
                raise Disconnected(f"{where} is not available now (CONNACK {code})")
            self.session_present = bool(flags & 1)
            self._keep_alive()
            if filters:
                granted = (await self._ask(packets.subscribe(1, filters, qos), packets.SUBACK)).body[2:]
                refused = [name for name, code in zip(filters, granted, strict=True) if code == packets.REFUSED]
                if refused:
                    raise ConfigError(f"{where} refuses to let us subscribe to {', '.join(refused)}")
        except TimeoutError as error:
            self.abort()
            raise Disconnected(f"{where} does not answer") from error
        except Disconnected as error:
            self.abort()
            if isinstance(self._reason, ssl.SSLError):
                raise tls_error(where, self._reason) from error
            raise
        except (Exception, asyncio.CancelledError):
            self.abort()
            raise
        return self

    @property
    def closed(self) -> bool:
        """Whether nothing can be sent any more."""
        return self._closed.done() or self._transport.is_closing()

    async def wait_closed(self) -> None:
        """Wait until the connection has gone.

        Raises:
            Disconnected: it broke; returns normally after `disconnect`.
        """
        await asyncio.shield(self._closed)
        if self._reason is not None:
            raise Disconnected(f"lost the connection to the MQTT broker: {self._reason}") from self._reason

    def acknowledge(self, packet_ids: Iterable[int]) -> None:
        """Send PUBACKs, in this order; nothing on a closed connection."""
        if not self.closed:
            self._transport.write(packets.pubacks(packet_ids))

    def pause(self) -> None:
        """Read nothing more for now; the broker notices by TCP's own flow control."""
        if not self.paused and not self.closed:
            self.paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if self.paused and not self.closed:
            self.paused = False
            self._ponged = True
            self._transport.resume_reading()

    async def disconnect(self) -> None:
        """Say goodbye and wait until the broker has closed; a session that is not clean is kept there.

        Whatever still comes is neither delivered nor acknowledged. To close from this side, with something unread,
        would reset the connection and the PUBACKs under way; see test_stopping_finishes_what_came_and_is_quick.
        """
        if not self.closed:
            self._leaving = True
            self.resume()
            self._transport.write(packets.DISCONNECT)
            try:
                async with asyncio.timeout(CLOSE_TIMEOUT):
                    await asyncio.shield(self._closed)
            except TimeoutError:
                self.abort()

    def abort(self) -> None:
        """Close at once, without goodbye."""
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        try:
            for frame in self._frames.feed(data):
                self._take(frame)
        except Disconnected as error:
            self._reason = error
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._pinger is not None:
            self._pinger.cancel()
        self._reason = self._reason or exc
        if not self._answer.done():
            self._answer.set_exception(Disconnected("the MQTT broker closed the connection"))
            self._answer.exception()  # whoever asked may be gone
        if not self._closed.done():
            self._closed.set_result(None)

    def eof_received(self) -> None:
        if not self._leaving:
            self._reason = ConnectionResetError("closed by the broker")

    async def _ask(self, packet: bytes, answer: int) -> Frame:
        """Send `packet` and wait for the broker's answer to it."""
        if not self.closed:
            self._answer = asyncio.get_running_loop().create_future()
            self._transport.write(packet)
        frame = await self._answer
        if frame.head != answer:
            raise Disconnected(f"the MQTT broker answered with packet {frame.head:#x} instead of {answer:#x}")
        return frame

    def _take(self, frame: Frame) -> None:
        kind = frame.head & 0xF0
        if self._leaving:
            return
        if kind == packets.PUBLISH:
            self._deliver(self, packets.read_publish(frame))
        elif kind == packets.PINGRESP:
            self._ponged = True
        elif not self._answer.done():
            self._answer.set_result(frame)

    def _keep_alive(self) -> None:
        if not self._ponged and not self.paused:
            self._reason = TimeoutError(f"no answer to a ping for {self._keepalive / 2:g} s")
            self.abort()
            return
        self._ponged = False
        self._transport.write(packets.PINGREQ)
        self._pinger = asyncio.get_running_loop().call_later(self._keepalive / 2, self._keep_alive)


def tls_error(where: str, error: ssl.SSLError) -> ConfigError | Disconnected:
    """What to raise when TLS fails: only what another try cannot change is a mistake in the configuration."""
    detail = getattr(error, "verify_message", "") or error.reason or str(error)
    advice = TLS_REFUSALS.get(error.reason)
    if advice is None:
        return Disconnected(f"TLS with {where} failed: {detail}")
    return ConfigError(f"TLS with {where} failed: {detail}; {advice}")
