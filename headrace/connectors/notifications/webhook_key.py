"""The key of a webhook's signature, as Standard Webhooks writes it."""

import base64
import binascii

from pydantic import SecretStr

PREFIX = "whsec_"


def webhook_key(secret: str, name: str = "secret") -> bytes:
    """The key in `whsec_` and base64.

    Raises:
        ValueError: it is none; says how to make one.
    """
    try:
        if not secret.startswith(PREFIX):
            raise ValueError("no prefix")
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
        if not 24 <= len(key) <= 64:
            raise ValueError("too short or too long")
    except (ValueError, binascii.Error) as error:
        raise ValueError(
            f"{name} must be whsec_ and 24 to 64 random bytes in base64: "
            f'echo "whsec_$(openssl rand -base64 32)" makes one'
        ) from error
    return key


def check_webhook_keys(secret: SecretStr | None, old_secret: SecretStr | None) -> None:
    """Of a section of settings: each is a key, and there is no old one alone.

    Raises:
        ValueError: otherwise.
    """
    for name, value in (("secret", secret), ("old_secret", old_secret)):
        if value is not None:
            webhook_key(value.get_secret_value(), name)
    if old_secret is not None and secret is None:
        raise ValueError("old_secret goes with secret")
