"""Lets one process of a sink write, and the others stand by: an advisory lock that ends with its connection."""

import hashlib
from contextlib import suppress
from typing import NamedTuple

import asyncpg

from headrace.engine.errors import RetryLater
from headrace.engine.sink import Standby

#: Seconds between two looks at whether the other one has ended.
STANDBY_WAIT = 2.0
#: Seconds before looking again after our own former connection was ended.
OWN_WAIT = 0.2
#: So that the server notices a machine that went without goodbye: after 10 s of silence, or within half a minute.
_NOTICE = (
    "SET client_connection_check_interval = '10s'",
    "SET tcp_keepalives_idle = 15",
    "SET tcp_keepalives_interval = 5",
    "SET tcp_keepalives_count = 3",
)

_HOLDER = """
    SELECT pid, application_name AS name, host(client_addr) AS address, backend_start
    FROM pg_locks JOIN pg_stat_activity USING (pid)
    WHERE locktype = 'advisory' AND granted AND objsubid = 1
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND (classid::bigint << 32) | objid::bigint = $1
"""
_SELF = "SELECT pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()"


class _Backend(NamedTuple):
    pid: int
    started: object


class SoleWriter:
    """The lock of one sink. It only saves work: what keeps two from writing is the compared position.

    Args:
        name: of the sink.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        digest = hashlib.sha256(f"headrace sink {name}".encode()).digest()
        self._key = int.from_bytes(digest[:8], signed=True)
        self._former: _Backend | None = None

    async def claim(self, connection: asyncpg.Connection) -> None:
        """Hold the lock for as long as `connection` lives.

        Raises:
            Standby: another process holds it.
            RetryLater: a connection of ours that is gone still does; the server was told to end it.
        """
        for setting in _NOTICE:
            with suppress(asyncpg.PostgresError):  # not every system has it
                await connection.execute(setting)
        if await connection.fetchval("SELECT pg_try_advisory_lock($1)", self._key):
            own = await connection.fetchrow(_SELF)
            self._former = _Backend(own["pid"], own["backend_start"]) if own is not None else None
            return
        holder = await connection.fetchrow(_HOLDER, self._key)
        if holder is None:
            raise Standby(f"another process has sink {self._name}", OWN_WAIT)
        if self._former == _Backend(holder["pid"], holder["backend_start"]):
            await connection.execute("SELECT pg_terminate_backend($1)", holder["pid"])
            raise RetryLater(f"the former connection of sink {self._name} is not closed yet", OWN_WAIT)
        where = f"on {holder['address']}" if holder["address"] else "on this machine"
        since = holder["backend_start"].isoformat(timespec="seconds")
        raise Standby(
            f"another process stores already: {holder['name']} {where}, connected since {since}", STANDBY_WAIT
        )
