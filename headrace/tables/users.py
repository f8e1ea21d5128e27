"""The users: reads and changes the topic `registry.users`, and the copy of it that agents have."""

from headrace.engine.clock import Clock
from headrace.engine.log import Log
from headrace.schemas import topics
from headrace.schemas.user import User, decode_user, encode_user
from headrace.tables.live_registry import LiveRegistry
from headrace.tables.replicated import Replicated

#: Users of an installation, count.
MOST_USERS = 100_000


class UserRegistry(LiveRegistry[User]):
    """The users of an installation; see `LiveRegistry` for when a change applies.

    Args:
        log: where the topic is, or will be.
        clock: real time.
    """

    def __init__(self, log: Log, clock: Clock) -> None:
        super().__init__(log, topics.USERS, encode_user, clock)


def user_table() -> Replicated[User]:
    """The users as a table; what is no user is refused, and the one before it stays."""
    return Replicated(topics.USERS, decode_user, most=MOST_USERS)
