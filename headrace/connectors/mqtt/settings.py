"""How to reach an MQTT broker that exists already, and how to take messages from it."""

import ssl
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from headrace.connectors.mqtt.connection import BrokerAddress
from headrace.connectors.mqtt.schedule import interval_ms
from headrace.engine.config import resolve_secret
from headrace.engine.errors import ConfigError
from headrace.engine.tls import client_context

PORT, TLS_PORT = 1883, 8883
#: Session expiry of MQTT 5 that stands for ever.
NEVER = 0xFFFF_FFFF


class MqttSettings(BaseModel):
    """One broker, one session there. Durations are seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    host: str | None = Field(None, min_length=1, description="the broker; without it nothing is taken from one")
    port: int | None = Field(None, ge=1, le=65_535, description="1883 if left out, with TLS 8883")
    username: str | None = Field(None, description="who we are there")
    password: SecretStr | None = Field(
        None, description="password; `env:NAME` or `file:PATH` names where it is", repr=False
    )
    client_id: str = Field(
        "headrace", min_length=1, max_length=128, description="names the session that the broker keeps for us"
    )
    version: Literal["5", "3.1.1"] | None = Field(
        None, description="of MQTT; 5 if left out, and 3.1.1 where the broker does not speak that"
    )
    qos: int = Field(1, ge=0, le=2, description="quality of service that is subscribed with")
    receive_maximum: int = Field(
        8000, ge=1, le=65_535, description="messages that the broker may send before we acknowledge one, MQTT 5"
    )
    session_expiry: int = Field(
        7 * 86_400, ge=0, le=NEVER, description="seconds that the broker keeps the session while we are away, MQTT 5"
    )
    share: str | None = Field(
        None,
        pattern=r"^[^/+#]+$",
        description="group of a shared subscription: each message goes to one of its clients; `client_id` if left out "
        "and there are several processes",
    )
    schedule: str | None = Field(
        None,
        description="`rate(5 minutes)`: connect as often and take what the broker has kept; connected all the time if "
        "left out",
    )
    schedule_timeout: float = Field(
        60.0, ge=1, le=86_400, description="seconds that a run of the schedule may take, before it counts as failed"
    )
    keepalive: int = Field(30, ge=2, le=65_535, description="seconds of silence after which the other side is gone")
    probe: str = Field(
        "headrace/probe",
        pattern=r"^[^+#$]*$",
        description="topic, with `/` and the client id behind it, of messages to ourselves; none if empty",
    )
    tls: bool = Field(False, description="whether connections are encrypted")
    tls_ca: Path | None = Field(None, description="PEM file of the authority; the system's own if left out")
    tls_certificate: Path | None = Field(None, description="PEM file of our certificate, for mutual TLS")
    tls_key: Path | None = Field(None, description="PEM file of our key, for mutual TLS")
    tls_check_hostname: bool = Field(True, description="whether the broker's certificate must name its host")
    linger: float = Field(0.005, ge=0, le=1, description="longest wait for more messages before a batch is appended")
    max_batch: int = Field(2000, ge=1, le=50_000, description="messages appended at once")
    max_waiting_bytes: int = Field(
        32 << 20, ge=1 << 16, description="payload bytes that may wait for the log before reading pauses"
    )

    @field_validator("password")
    @classmethod
    def _follow_reference(cls, value: SecretStr | None) -> SecretStr | None:
        return None if value is None else SecretStr(resolve_secret(value.get_secret_value()))

    @field_validator("schedule")
    @classmethod
    def _check_schedule(cls, value: str | None) -> str | None:
        if value is not None:
            interval_ms(value)
        return value

    @model_validator(mode="after")
    def _whole(self) -> Self:
        wrong = self._wrong_schedule()
        if wrong:
            raise ValueError("; ".join(wrong))
        if self.password is not None and self.username is None:
            raise ValueError("password needs a username")
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key come together")
        given = {"ca": self.tls_ca, "certificate": self.tls_certificate, "key": self.tls_key}
        for name, path in given.items():
            if path is not None and not self.tls:
                raise ValueError(f"tls_{name} needs tls = true")
            if path is not None and not path.is_file():
                raise ValueError(f"tls_{name}: there is no file {path}")
        return self

    def _wrong_schedule(self) -> list[str]:
        """What does not go together with a schedule: the broker must keep everything while we are away."""
        if self.schedule is None:
            return []
        wrong, seconds = [], interval_ms(self.schedule) // 1000
        if self.qos == 0:
            wrong.append("schedule needs qos 1 or 2: at QoS 0 a broker keeps nothing for who is not connected")
        if self.session_expiry < 2 * seconds:
            wrong.append(
                f"schedule {seconds} s, session_expiry {self.session_expiry} s: make it {2 * seconds} or more; "
                "else the broker forgets the session, and what it kept, when one run fails"
            )
        if self.schedule_timeout > seconds:
            wrong.append(f"schedule_timeout is above the schedule's {seconds} s: a run would pass the next tick")
        if self.share is not None:
            wrong.append(
                "schedule and share: a broker keeps nothing for a group of which nobody is connected; drop one"
            )
        return wrong

    @property
    def address(self) -> BrokerAddress:
        """Where to connect.

        Raises:
            ConfigError: no host is given, or a certificate file cannot be used.
        """
        if self.host is None:
            raise ConfigError("[mqtt] host is missing: name the broker to take messages from")
        password = None if self.password is None else self.password.get_secret_value()
        port = self.port or (TLS_PORT if self.tls else PORT)
        return BrokerAddress(self.host, port, self.username, password, self._context() if self.tls else None)

    def _context(self) -> ssl.SSLContext:
        return client_context(
            "mqtt",
            ca=self.tls_ca,
            certificate=self.tls_certificate,
            key=self.tls_key,
            check_hostname=self.tls_check_hostname,
        )
