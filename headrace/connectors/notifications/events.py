"""What happens to rows, as `notifications.v1` tells it."""

from datetime import UTC, datetime

from headrace.schemas import topics
from headrace.schemas.alert import EVENT_CONTENT
from headrace.schemas.notification import PREFIX, NotificationEvent, NotificationState


def state_json(state: NotificationState) -> bytes:
    """A state as `notifications.state.v1` has it: what is not known is left out."""
    return state.model_dump_json(exclude_none=True).encode()


def event_json(state: NotificationState, key: bytes, at_ms: int) -> bytes:
    """The event that a notification has come to this state.

    Args:
        key: of its row.
        at_ms: when, ms since 1970 UTC.
    """
    event = NotificationEvent(
        id=f"{key.decode()}/{state.status}/{state.attempts}",
        type=PREFIX + state.status,
        subject=state.recipient,
        time=datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        data=state,
    )
    return event.model_dump_json(exclude_none=True).encode()


def event_headers(message_id: str | None) -> dict[str, bytes]:
    """The headers of an event."""
    found = {topics.CONTENT_TYPE: EVENT_CONTENT}
    return found if message_id is None else {**found, topics.MESSAGE_ID: message_id.encode()}
