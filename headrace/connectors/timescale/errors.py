"""What an error of PostgreSQL means for the sink."""

from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg

from headrace.engine.errors import Disconnected, RetryLater
from headrace.engine.sink import Refused

#: Error classes that blame the data: cardinality, data exception, integrity, program limit
#: (PostgreSQL manual, appendix A).
REFUSED = ("21", "22", "23", "54")
#: Error classes that say the server is going, or coming: connection exception, operator intervention.
GONE = ("08", "57")


@contextmanager
def translated() -> Iterator[None]:
    """Raise errors of asyncpg and PostgreSQL as `Refused`, `Disconnected` or `RetryLater`.

    A `ValueError` means that something could not even be encoded: `Refused`, too.
    """
    try:
        yield
    except asyncpg.PostgresError as error:
        code = error.sqlstate or ""
        message = f"{type(error).__name__} {code}: {error}"
        if code.startswith(REFUSED):
            raise Refused(message) from error
        if code.startswith(GONE):
            raise Disconnected(message) from error
        raise RetryLater(message) from error
    except (asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError) as error:
        raise Disconnected(f"{type(error).__name__}: {error}") from error
    except ValueError as error:
        raise Refused(str(error)) from error
