"""A client of Redis that says of each error what to do next."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from headrace.connectors.redis.settings import RedisSettings
from headrace.engine.errors import ConfigError, Disconnected, RetryLater

if TYPE_CHECKING:
    from redis.asyncio import Redis

#: What a server with a password says to a client that has none.
NO_PASSWORD = ("HELLO must be called", "NOAUTH")


def connect(settings: RedisSettings, name: str) -> "Redis":
    """A client that connects with its first command, and never repeats one by itself.

    Args:
        name: what `CLIENT LIST` shows.
    Raises:
        ConfigError: the client is not installed, or the URL cannot be used.
    """
    try:
        from redis.asyncio import Redis  # noqa: PLC0415
        from redis.asyncio.retry import Retry  # noqa: PLC0415
        from redis.backoff import NoBackoff  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError("the cache needs redis-py: pip install headrace[redis]") from error
    if settings.url is None:
        raise ConfigError("[redis] url is missing: name a Redis or Valkey, as in redis://localhost:6379/0")
    try:
        client: Redis = Redis.from_url(
            settings.url.get_secret_value(),
            client_name=name,
            socket_timeout=settings.timeout,
            socket_connect_timeout=settings.timeout,
            retry=Retry(NoBackoff(), 0),
        )
    except (ValueError, TypeError, OSError) as error:
        raise ConfigError(f"[redis] url cannot be used: {type(error).__name__}: {error}") from error
    return client


@contextmanager
def translated() -> Iterator[None]:
    """Raise errors of the client as `Disconnected` or `RetryLater`.

    Nothing is a `ConfigError` here, a wrong password neither: it may be changed on the other side, and a cache that
    cannot be used must not stop what runs beside it.
    """
    from redis import exceptions  # noqa: PLC0415

    try:
        yield
    except exceptions.AuthenticationError as error:
        raise RetryLater(f"Redis does not let us in: {error}") from error
    except (exceptions.ConnectionError, exceptions.TimeoutError, OSError) as error:
        if str(error).startswith(NO_PASSWORD):
            raise RetryLater("Redis does not let us in: it wants a password") from error
        raise Disconnected(f"Redis: {type(error).__name__}: {error}") from error
    except exceptions.RedisError as error:
        raise RetryLater(f"Redis: {type(error).__name__}: {error}") from error


async def close(client: "Redis | None") -> None:
    """Let go of connections; never raises."""
    if client is not None:
        with suppress(Exception):
            await client.aclose()
