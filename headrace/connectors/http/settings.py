"""Configuration of HTTP ingest."""

import ipaddress
import ssl
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationInfo, field_validator

from headrace.engine.config import resolve_secret
from headrace.engine.tls import server_context

#: Characters of a key: what `openssl rand -hex 16` makes has 32.
SHORTEST_KEY = 16


class ApiKey(BaseModel):
    """A client that may post.

    Args:
        name: of the client, for logs and to keep the idempotency keys of clients apart.
        key: what it sends; `env:NAME` or `file:PATH` names where it is written.
        devices: patterns of the devices that it may post for; `*` stands for any characters.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, max_length=64)
    key: SecretStr = Field(repr=False)
    devices: tuple[str, ...] = Field(("*",), min_length=1)

    @field_validator("key")
    @classmethod
    def _follow_reference(cls, value: SecretStr) -> SecretStr:
        key = resolve_secret(value.get_secret_value())
        if len(key) < SHORTEST_KEY or not (key.isascii() and key.isprintable() and " " not in key):
            raise ValueError(
                f"must have {SHORTEST_KEY} or more ASCII characters without spaces, as in 32 random digits"
            )
        return SecretStr(key)


class HttpSettings(BaseModel):
    """Settings of `HttpSource`; docs/configuration.md has them with units and defaults."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)

    host: str = Field("127.0.0.1", min_length=1, description="address to listen on; others than loopback need api_keys")
    port: int | None = Field(None, ge=0, le=65535, description="to listen on; 0: any free one; nobody if left out")
    certificate: Path | None = Field(None, description="PEM, ours, with those between it and its authority; then TLS")
    key: Path | None = Field(None, description="PEM, ours")
    api_keys: tuple[ApiKey, ...] = Field((), description="clients that may post: `name`, `key`, `devices`")
    topic: str = Field(
        "dt/devices/{device}/telemetry", description="MQTT topic that `/devices/{device_id}/telemetry` stands for"
    )
    device_type: str = Field("environmental", min_length=1, description="of `/batch` where the request names none")
    max_body_bytes: int = Field(4 << 20, ge=1024, le=64 << 20, description="larger bodies are refused unread")
    max_unpacked_bytes: int = Field(8 << 20, ge=1024, le=256 << 20, description="that gzip may unpack to")
    max_message_bytes: int = Field(262_144, ge=1, le=64 << 20, description="of one message")
    max_items: int = Field(10_000, ge=1, le=100_000, description="messages in a batch")
    max_connections: int = Field(1_000, ge=1, le=1_000_000, description="at a time; more are refused")
    max_requests: int = Field(256, ge=1, description="that wait for the log at a time; more are told to come later")
    max_waiting_bytes: int = Field(16 << 20, ge=1 << 16, description="of bodies in hand; behind that likewise")
    head_timeout: float = Field(10.0, gt=0, le=300, description="seconds for TLS, and for the head of a request")
    body_timeout: float = Field(30.0, gt=0, le=3600, description="seconds for the body of a request")
    answer_timeout: float = Field(30.0, gt=0, le=3600, description="seconds that a client may take to read an answer")
    keep_alive: float = Field(75.0, gt=0, le=3600, description="seconds that a connection may be idle")
    append_timeout: float = Field(30.0, gt=0, le=3600, description="seconds for the log to take a request")
    verdict_timeout: float = Field(2.0, ge=0, le=60, description="seconds to wait for what ingest says of a message")
    max_wait: float = Field(30.0, ge=0, le=600, description="seconds that `Prefer: wait` may ask for")
    idempotency: float = Field(86_400.0, gt=0, le=30 * 86_400, description="seconds that an answer is kept")
    max_keys: int = Field(100_000, ge=1, le=10_000_000, description="answers kept; the oldest go first")

    # What must fit together is looked at field by field: one mistake must not hide another.
    @field_validator("key")
    @classmethod
    def _with_certificate(cls, key: Path | None, info: ValidationInfo) -> Path | None:
        if "certificate" in info.data and (info.data["certificate"] is None) != (key is None):
            raise ValueError("certificate and key come together: name both, or none")
        return key

    @field_validator("api_keys")
    @classmethod
    def _keys_that_fit(cls, keys: tuple[ApiKey, ...], info: ValidationInfo) -> tuple[ApiKey, ...]:
        wrong, host = [], info.data.get("host", "localhost")
        names = [each.name for each in keys]
        if len(set(names)) < len(names):
            wrong.append("two api_keys have the same name")
        if len({each.key.get_secret_value() for each in keys}) < len(names):
            wrong.append("two api_keys are the same")
        if info.data.get("port") is not None and not keys and not _is_loopback(host):
            wrong.append(f"host {host} is open to others: name [[http.api_keys]], or listen on 127.0.0.1")
        if wrong:
            raise ValueError("; ".join(wrong))
        return keys

    @field_validator("max_waiting_bytes")
    @classmethod
    def _room_for_one(cls, most: int, info: ValidationInfo) -> int:
        if any(info.data.get(name, 0) > most for name in ("max_body_bytes", "max_unpacked_bytes")):
            raise ValueError("must be at least max_body_bytes and max_unpacked_bytes")
        return most

    @property
    def wanted(self) -> bool:
        """Whether there is a port to listen on."""
        return self.port is not None

    @property
    def where(self) -> str:
        """Where it listens, for people."""
        return f"{'http' if self.certificate is None else 'https'}://{self.host}:{self.port}"

    def tls(self) -> ssl.SSLContext | None:
        """How TLS is spoken; None where it is not.

        Raises:
            ConfigError: a file is missing or is not what it should be.
        """
        if self.certificate is None or self.key is None:
            return None
        return server_context("http", certificate=self.certificate, key=self.key)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
