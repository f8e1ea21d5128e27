"""The sessions of a listener: who continues one, when one ends, and when a will is due."""

import heapq
import itertools
import math
from collections.abc import Callable

from headrace.connectors.mqtt.codec.packets import V5, Connect, Will
from headrace.connectors.mqtt.codec.reasons import BadPacket, Reason
from headrace.connectors.mqtt.session import Session
from headrace.connectors.mqtt.subscriptions import Subscriptions

#: A session expiry of MQTT 5 that means for ever.
NEVER_EXPIRES = 0xFFFF_FFFF


class Sessions:
    """Sessions by client id, in memory.

    Args:
        subscriptions: those of a session that ends are taken out.
        max_expiry: seconds that a session outlives its connection at the most.
        on_will: called with a will that is due.
    """

    def __init__(
        self, subscriptions: Subscriptions, max_expiry: float, on_will: Callable[[Session, Will], None]
    ) -> None:
        self._subscriptions = subscriptions
        self._max_expiry = max_expiry
        self._on_will = on_will
        self._sessions: dict[str, Session] = {}
        #: When something is due for a session that has no connection.
        self._due: list[tuple[float, int, Session]] = []
        self._numbers = itertools.count()

    def __len__(self) -> int:
        return len(self._sessions)

    def find(self, client_id: str, owner: str) -> Session | None:
        """The session of this client id.

        Raises:
            BadPacket: it is somebody else's.
        """
        found = self._sessions.get(client_id)
        if found is not None and found.owner != owner:
            raise BadPacket(Reason.CLIENT_IDENTIFIER_NOT_VALID, "somebody else has this client id")
        return found

    def open(self, connect: Connect, client_id: str, owner: str, now: float) -> tuple[Session, bool]:
        """The session of a client that connects, and whether it had one; nobody else is connected under its id."""
        old = self.find(client_id, owner)
        if old is not None and connect.clean_start:
            self._end(old)
            old = None
        if old is not None:
            self._publish_will(old, now)  # one that is not due yet is dropped (5: 3.1.3.2.2)
        session = old or Session(client_id, owner)
        self._sessions[client_id] = session
        if connect.version == V5:
            session.expiry = self.granted(connect.properties.get("session_expiry_interval", 0))
        else:
            session.expiry = 0.0 if connect.clean_start else self.granted(NEVER_EXPIRES)
        session.will, session.will_at, session.ends_at = connect.will, None, None
        return session, old is not None

    def granted(self, asked: int) -> float:
        """Seconds that a session outlives its connection, of those that are asked for."""
        return min(math.inf if asked == NEVER_EXPIRES else asked, self._max_expiry)

    def detach(self, session: Session, now: float) -> None:
        """The session has no connection any more; it ends now, or later."""
        session.connection = None
        session.ends_at = now + session.expiry
        if session.will is not None:
            session.will_at = now + min(session.will.properties.get("will_delay_interval", 0), session.expiry)
            if session.will_at <= now:
                self._publish_will(session, now)
        if not session.expiry:
            self._end(session)
            return
        for due in {session.ends_at, session.will_at}:
            if due is not None and due != math.inf:
                heapq.heappush(self._due, (due, next(self._numbers), session))

    def settle(self, now: float) -> None:
        """End the sessions and publish the wills whose time has come."""
        while self._due and self._due[0][0] <= now:
            session = heapq.heappop(self._due)[2]
            if session.connection is None and session.ends_at is not None:
                if session.will_at is not None and session.will_at <= now:
                    self._publish_will(session, now)
                if session.ends_at <= now:
                    self._end(session)

    def _publish_will(self, session: Session, now: float) -> None:
        """The will is out if its time has come; either way it is gone."""
        will, session.will = session.will, None
        if will is not None and session.will_at is not None and session.will_at <= now:
            self._on_will(session, will)

    def _end(self, session: Session) -> None:
        self._publish_will(session, math.inf)
        self._subscriptions.forget(session)
        if self._sessions.get(session.client_id) is session:
            del self._sessions[session.client_id]
