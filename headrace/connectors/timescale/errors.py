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
#: Seconds before the first retry, by the beginning of the error code; the first that fits. A lost race is run again at
#: once; a disk does not become empty in a moment, and who is let in nowhere only makes matters worse by knocking.
PACES = (
    ("40", 0.05),  # serialization failure, deadlock
    ("55P03", 0.5),  # lock not available
    ("53300", 1.0),  # too many connections
    ("53100", 5.0),  # disk full
    ("53", 2.0),  # memory, and other limits
    ("25006", 1.0),  # read-only
    ("28", 5.0),  # password
    ("42", 5.0),  # rights, missing tables
)
ANY_PACE = 1.0


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
        pace = next((seconds for prefix, seconds in PACES if code.startswith(prefix)), ANY_PACE)
        raise RetryLater(message, pace) from error
    except (asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError) as error:
        raise Disconnected(f"{type(error).__name__}: {error}") from error
    except ValueError as error:
        raise Refused(str(error)) from error
