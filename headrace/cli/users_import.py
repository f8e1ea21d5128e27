"""What `headrace users import` imports, and how users are stamped when they are saved."""

from headrace.cli.registry_import import Importable
from headrace.connectors.user_file import USER_KIND
from headrace.engine.clock import Clock
from headrace.schemas.user import User, decode_user
from headrace.schemas.user_mistakes import check_user
from headrace.tables.users import UserRegistry


def users_of_file(clock: Clock) -> Importable[User]:
    """Users; one that says what is stored is left alone."""
    now_ms = clock.now_ms()

    def to_write(user: User, stored: bytes | None) -> User | None:
        before = None if stored is None else read_user(stored)
        return None if before is not None and is_same(user, before) else stamped(user, before, now_ms)

    return Importable(USER_KIND, lambda user: user.user_id, check_user, to_write, UserRegistry)


def read_user(stored: bytes) -> User | None:
    """A user from the topic; None if it is none, which somebody else has written."""
    try:
        return decode_user(stored)
    except ValueError:
        return None


def is_same(user: User, other: User) -> bool:
    """Whether they say the same, but for when they were saved."""
    stamps = {"created_at": None, "updated_at": None}
    return user.model_copy(update=stamps) == other.model_copy(update=stamps)


def stamped(user: User, before: User | None, now_ms: int) -> User:
    """As it is saved: with when it was made, by itself or by what was there before, and now as its last change."""
    made = user.created_at or (before.created_at if before else None) or now_ms
    return user.model_copy(update={"created_at": made, "updated_at": now_ms})
