"""Configuration of headrace's own MQTT listener."""

import ssl
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from headrace.connectors.mqtt.access import Access, Grant, Rights, check_pattern
from headrace.connectors.mqtt.passwords import Passwords
from headrace.engine.errors import ConfigError

#: What every device may do unless configured otherwise.
OWN = Rights(publish=("dt/devices/{device}/#",), subscribe=("cmd/devices/{device}/#",))


class ListenerConfig(BaseModel):
    """Settings of `MqttListener`; docs/configuration.md has them with units and defaults."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    host: str = Field("127.0.0.1", min_length=1, description="address to listen on; `0.0.0.0` or `::` for all")
    port: int | None = Field(None, ge=0, le=65535, description="without TLS; usually 1883; 0: any free one")
    tls_port: int | None = Field(None, ge=0, le=65535, description="with TLS 1.2 or newer; usually 8883")
    certificate: Path | None = Field(None, description="PEM, of the listener, with those between it and its authority")
    key: Path | None = Field(None, description="PEM, of the listener")
    client_ca: Path | None = Field(None, description="PEM, of the authority that signs client certificates")
    require_certificate: bool = Field(False, description="whether a TLS client must have a certificate")
    passwords: Path | None = Field(None, description="users and hashed passwords, as `headrace passwd` writes them")
    anonymous: bool = Field(False, description="let clients in without any proof; the client id is the device")
    publish: tuple[str, ...] = Field(OWN.publish, description="topic filters that a device may publish to")
    subscribe: tuple[str, ...] = Field(OWN.subscribe, description="topic filters that a device may subscribe to")
    grants: tuple[Grant, ...] = Field((), description="more rights for some: `users`, `publish`, `subscribe`")
    commands: str = Field(
        "cmd/devices/{device}/#", description="topics of commands: what is published here goes to subscribers"
    )
    own_level: str | None = Field(
        None,
        pattern=r"^[^/+#\x00]+$",
        description="topic level that stands for whoever publishes: `me` for devices of ThingsBoard",
    )
    max_payload_bytes: int = Field(262_144, ge=1, le=64 << 20, description="larger packets end their connection")
    max_inflight: int = Field(
        1_000, ge=1, le=65535, description="QoS 1 and 2 messages of a client on their way into the log"
    )
    max_connections: int = Field(
        20_000, ge=1, le=1_000_000, description="clients at a time; more are told that it is busy"
    )
    connect_rate: float = Field(2_000.0, gt=0, description="new clients per second; more are told to come later")
    connect_timeout: float = Field(10.0, gt=0, le=300, description="seconds for TLS and CONNECT")
    max_keep_alive: int = Field(1_200, ge=1, le=65535, description="seconds of silence that a client may ask for")
    max_session_expiry: float = Field(3_600.0, ge=0, description="seconds that a session outlives its connection")
    linger: float = Field(
        0.01, ge=0, le=1, description="longest wait for more messages before a batch is appended, seconds"
    )
    max_batch: int = Field(2_000, ge=1, le=50_000, description="messages appended at once")
    max_waiting_bytes: int = Field(
        16 << 20, ge=1 << 16, description="of messages that wait for the log, before clients have to wait"
    )

    @field_validator("commands")
    @classmethod
    def _check_commands(cls, value: str) -> str:
        return check_pattern(value)

    @field_validator("publish", "subscribe")
    @classmethod
    def _check_patterns(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(check_pattern, value))

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        wrong = []
        if self.tls_port is not None and (self.certificate is None or self.key is None):
            wrong.append("tls_port needs certificate and key")
        if self.tls_port is None and (self.client_ca is not None or self.require_certificate):
            wrong.append("client certificates need tls_port")
        if self.require_certificate and self.client_ca is None:
            wrong.append("require_certificate needs client_ca")
        if self.wanted and not self.anonymous and self.passwords is None and self.client_ca is None:
            wrong.append("nobody could come in: set passwords, client_ca, or anonymous = true")
        if wrong:
            raise ValueError("; ".join(wrong))
        return self

    @property
    def wanted(self) -> bool:
        """Whether there is a port to listen on."""
        return self.port is not None or self.tls_port is not None

    @property
    def where(self) -> str:
        """Where it listens, for people."""
        plain = [] if self.port is None else [f"{self.host}:{self.port}"]
        return ", ".join(plain + ([] if self.tls_port is None else [f"{self.host}:{self.tls_port} (TLS)"]))

    def access(self) -> Access:
        """Who may do what.

        Raises:
            ConfigError: the password file is wrong.
        """
        passwords = None if self.passwords is None else Passwords(self.passwords)
        everyone = Rights(publish=self.publish, subscribe=self.subscribe)
        return Access(everyone, self.grants, passwords, anonymous=self.anonymous)

    def tls(self) -> ssl.SSLContext | None:
        """How TLS is spoken; None where it is not.

        Raises:
            ConfigError: a file is missing or is not what it should be.
        """
        if self.tls_port is None:
            return None
        assert self.certificate is not None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        steps: list[tuple[str, Any]] = [
            (
                f"certificate {self.certificate}, key {self.key}",
                lambda: context.load_cert_chain(str(self.certificate), self.key),
            )
        ]
        if self.client_ca is not None:
            context.verify_mode = ssl.CERT_REQUIRED if self.require_certificate else ssl.CERT_OPTIONAL
            steps.append((f"client_ca {self.client_ca}", lambda: context.load_verify_locations(self.client_ca)))
        wrong = []
        for what, load in steps:
            try:
                load()
            except (OSError, ssl.SSLError) as error:
                wrong.append(f"listener.{what}: {error}")
        if wrong:
            raise ConfigError(*wrong)
        return context
