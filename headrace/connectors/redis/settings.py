"""How to reach the cache, and how long entries live."""

import re
from urllib.parse import parse_qs, urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from headrace.engine.config import resolve_secret

#: Longest that an entry may live by its own `asOf`, seconds (property P3.2: nothing older than ten minutes).
LONGEST_TTL = 600.0


class RedisSettings(BaseModel):
    """One server, Redis 6.2 or Valkey and newer; not a cluster."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    url: SecretStr | None = Field(
        None,
        description="`redis://…`, `rediss://…` (TLS) or `unix://…`; `env:NAME` or `file:PATH` names where it is; no "
        "cache if left out",
        repr=False,
    )
    prefix: str = Field("headrace", description="what all keys begin with, before a colon")
    status_ttl: float = Field(300.0, ge=1, le=LONGEST_TTL, description="seconds after its data that a status expires")
    rollup_ttl: float = Field(600.0, ge=1, le=LONGEST_TTL, description="seconds after its data that a rollup expires")
    timeout: float = Field(5.0, gt=0, le=60, description="seconds until the server counts as gone")
    verify_interval: float = Field(300.0, ge=1, description="seconds from one verification to the next")
    verify_timeout: float = Field(120.0, ge=1, description="seconds after which a verification ends unfinished")

    @field_validator("url")
    @classmethod
    def _follow_reference(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        url = resolve_secret(value.get_secret_value())
        if not url.startswith(("redis://", "rediss://", "unix://")):
            raise ValueError("must start with redis://, rediss:// or unix://")
        parts = urlsplit(url)
        try:
            wrong = parts.port == 0
        except ValueError:
            wrong = True
        if wrong:
            raise ValueError("has a port that is none")
        for name in parse_qs(parts.query):
            if name != "db" and not name.startswith("ssl_"):
                raise ValueError("takes no parameters but db and ssl_…")
        return SecretStr(url)

    @field_validator("prefix")
    @classmethod
    def _plain(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9_.:-]{1,64}", value):
            raise ValueError("takes letters, digits and _ . : -")
        return value
