"""How to reach a Kafka cluster, and how to treat it."""

import ssl
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from headrace.engine.config import resolve_secret
from headrace.engine.tls import client_context

SCHEME = "kafka://"


class KafkaSettings(BaseModel):
    """One cluster, one worker. Durations are seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    security: Literal["plaintext", "tls", "sasl_plaintext", "sasl_tls"] = Field(
        "plaintext", description="how connections are made; `sasl_plaintext` sends passwords in clear unless SCRAM"
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        "SCRAM-SHA-512", description="how the user proves who it is, with `security` of `sasl_…`"
    )
    sasl_username: str | None = Field(None, description="user name, with `security` of `sasl_…`")
    sasl_password: SecretStr | None = Field(
        None, description="password; `env:NAME` or `file:PATH` names where it is", repr=False
    )
    tls_ca: Path | None = Field(None, description="PEM file of the authority; the system's own if left out")
    tls_certificate: Path | None = Field(None, description="PEM file of the client's certificate, for mutual TLS")
    tls_key: Path | None = Field(None, description="PEM file of the client's key, for mutual TLS")
    tls_check_hostname: bool = Field(True, description="whether the broker's certificate must name its host")
    instance: str | None = Field(
        None,
        min_length=1,
        max_length=200,
        description="stable name of this worker in its group; host name and worker index if left out",
    )
    replication_factor: int | None = Field(
        None, ge=1, le=32, description="copies of the topics that headrace makes; 3, or fewer on a smaller cluster"
    )
    compression: Literal["none", "gzip", "lz4", "zstd", "snappy"] = Field(
        "zstd", description="of what is written to the log"
    )
    retention_bytes: int = Field(
        1 << 30,
        ge=1 << 20,
        description="bytes kept per partition of the topics that headrace makes. By size alone: Kafka's limit by time "
        "goes by the records' own, and would delete a replay of old data before it is read",
    )
    max_message_bytes: int = Field(
        4 << 20, ge=1 << 20, le=64 << 20, description="largest record batch that the topics take, bytes"
    )
    session_timeout: float = Field(10.0, ge=1, le=300, description="a worker silent for this long loses its partitions")
    heartbeat_interval: float = Field(3.0, ge=0.1, le=100, description="between signs of life")
    rebalance_timeout: float = Field(30.0, ge=1, le=600, description="workers get to finish before partitions move")
    transaction_timeout: float = Field(
        10.0, ge=1, le=900, description="after which the cluster aborts the transaction of a worker that went silent"
    )
    request_timeout: float = Field(10.0, ge=1, le=300, description="until a request counts as failed and is repeated")
    metadata_max_age: float = Field(
        5.0, ge=0.5, le=600, description="until new topics and partitions are noticed, at most"
    )
    stall_timeout: float = Field(
        30.0, ge=1, le=3600, description="without progress while there is lag, after which fetching is rebuilt"
    )

    @field_validator("sasl_password")
    @classmethod
    def _follow_reference(cls, value: SecretStr | None) -> SecretStr | None:
        return None if value is None else SecretStr(resolve_secret(value.get_secret_value()))

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.security.startswith("sasl") and (self.sasl_username is None or self.sasl_password is None):
            raise ValueError(f"security {self.security} needs sasl_username and sasl_password")
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key come together")
        for name, path in [("ca", self.tls_ca), ("certificate", self.tls_certificate), ("key", self.tls_key)]:
            if path is not None and not path.is_file():
                raise ValueError(f"tls_{name}: there is no file {path}")
        if self.heartbeat_interval * 2 > self.session_timeout:
            raise ValueError("heartbeat_interval must be at most half of session_timeout")
        return self

    def client_options(self) -> dict[str, Any]:
        """Arguments for aiokafka's clients.

        Raises:
            ConfigError: a certificate file cannot be used.
        """
        options: dict[str, Any] = {
            "request_timeout_ms": round(self.request_timeout * 1000),
            "metadata_max_age_ms": round(self.metadata_max_age * 1000),
            "security_protocol": {
                "plaintext": "PLAINTEXT",
                "tls": "SSL",
                "sasl_plaintext": "SASL_PLAINTEXT",
                "sasl_tls": "SASL_SSL",
            }[self.security],
        }
        if self.security.endswith("tls"):
            options["ssl_context"] = self._tls()
        if self.security.startswith("sasl"):
            assert self.sasl_password is not None
            options["sasl_mechanism"] = self.sasl_mechanism
            options["sasl_plain_username"] = self.sasl_username
            options["sasl_plain_password"] = self.sasl_password.get_secret_value()
        return options

    def _tls(self) -> ssl.SSLContext:
        return client_context(
            "kafka",
            ca=self.tls_ca,
            certificate=self.tls_certificate,
            key=self.tls_key,
            check_hostname=self.tls_check_hostname,
        )
