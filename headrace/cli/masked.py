"""Users and notifications as commands show them: contacts in part; see `headrace.schemas.contacts`."""

from headrace.schemas.contacts import masked, masked_recipient, masked_text
from headrace.schemas.dead_contact import DeadContact
from headrace.schemas.notification import NotificationState
from headrace.schemas.user import User


def masked_user(user: User) -> User:
    """Somebody without their contacts; what they have is still to be seen."""
    tokens = tuple(each.model_copy(update={"token": masked(each.token)}) for each in user.device_tokens)
    update: dict[str, object] = {"device_tokens": tokens}
    update |= {name: masked(value) for name in ("email", "phone") if (value := getattr(user, name)) is not None}
    return user.model_copy(update=update)


def masked_state(state: NotificationState) -> NotificationState:
    """A row of the delivery log."""
    contact = _shown(state.contact, state.recipient) if state.contact is not None else None
    error = masked_text(state.error) if state.error is not None else None
    shown = {"recipient": masked_recipient(state.recipient), "contact": contact, "error": error}
    return state.model_copy(update=shown)


def masked_contact(contact: DeadContact) -> DeadContact:
    """A contact that nothing is sent to any more."""
    reason = masked_text(contact.reason.replace(contact.contact, masked(contact.contact)))
    name = _shown(contact.contact, contact.recipient)
    return contact.model_copy(
        update={"contact": name, "recipient": masked_recipient(contact.recipient), "reason": reason}
    )


def _shown(contact: str, recipient: str) -> str:
    """The contact of an integration is its name."""
    return contact if recipient.startswith("integration:") else masked(contact)
