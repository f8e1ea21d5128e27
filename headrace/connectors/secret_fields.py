"""Addresses and secrets, as fields of several sections."""

import re
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, SecretStr, field_validator

from headrace.engine.config import resolve_secret


def _address(value: str) -> str:
    # A netloc that urlsplit cannot read raises a ValueError of its own.
    parts = urlsplit(value)
    if not re.fullmatch(r"https?://[^\s\x00-\x1f\x7f]{1,2000}", value) or not parts.hostname:
        raise ValueError("must be an address, as in https://host/path")
    if parts.username is not None or parts.password is not None:
        raise ValueError("has a user or password: they do not belong in an address, which logs show")
    if parts.port == 0:
        raise ValueError("has port 0")
    return value


#: An address of HTTP without credentials.
Address = Annotated[str, AfterValidator(_address)]


def _followed(value: SecretStr | None) -> SecretStr | None:
    if value is None:
        return None
    found = resolve_secret(value.get_secret_value())
    if not found or re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", found):
        raise ValueError("is empty, or has control characters")
    return SecretStr(found)


def follow_secret(*fields: str) -> Any:
    """A validator that follows `env:NAME` and `file:PATH` in `fields`."""
    return field_validator(*fields)(_followed)


#: A secret by reference, in a list or a union.
Secret = Annotated[SecretStr, AfterValidator(_followed)]
