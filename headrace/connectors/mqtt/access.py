"""Who may connect to the listener, and what they may publish and subscribe to."""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, field_validator

from headrace.connectors.mqtt.codec.packets import Connect
from headrace.connectors.mqtt.codec.reasons import BadPacket, Reason
from headrace.connectors.mqtt.codec.topic import check_filter, matches
from headrace.connectors.mqtt.passwords import Passwords
from headrace.schemas.topics import MAX_DEVICE_ID

#: Stands for whoever is connected.
DEVICE = "{device}"
#: Names that would change a pattern's meaning when they are put into it.
_SPECIAL = re.compile(r"[+#/\0]")


def is_name(name: str) -> bool:
    """Whether a client may be called so: its name is a level of topics."""
    return bool(name) and len(name) <= MAX_DEVICE_ID and not name.startswith("$") and not _SPECIAL.search(name)


def check_pattern(pattern: str) -> str:
    """A topic filter in which `{device}` may be a level."""
    try:
        check_filter(pattern.replace(DEVICE, "x"))
    except BadPacket as error:
        raise ValueError(str(error)) from None
    if pattern.startswith("$"):
        raise ValueError(f"{pattern}: topics that begin with $ are not for devices")
    if any(DEVICE in level and level != DEVICE for level in pattern.split("/")):
        raise ValueError(f"{pattern}: {DEVICE} must be a level of its own")
    return pattern


class Rights(BaseModel):
    """What somebody may do.

    Args:
        publish: topic filters; `{device}` is who is connected.
        subscribe: likewise.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    publish: tuple[str, ...] = ()
    subscribe: tuple[str, ...] = ()

    @field_validator("publish", "subscribe")
    @classmethod
    def _check(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(check_pattern, value))


class Grant(Rights):
    """More rights for some: a gateway that publishes for its devices, a service that sends commands."""

    users: tuple[str, ...] = Field(min_length=1)

    @field_validator("users")
    @classmethod
    def _check_users(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if not is_name(name):
                raise ValueError(f"nobody can be called {name!r}: a name is a level of a topic, without / + # or :")
        return value


class Identity(NamedTuple):
    """Who a client is, and its rights with its name put in."""

    name: str
    publish: tuple[str, ...]
    subscribe: tuple[str, ...]

    def may_publish(self, topic: str) -> bool:
        """Whether it may publish to this topic."""
        return not topic.startswith("$") and any(matches(pattern, topic) for pattern in self.publish)

    def own_topic(self, topic: bytes, own_level: str | None) -> bytes:
        """The topic with the client's name where level `own_level` stands; None for no such level.

        >>> Identity("roof-7", (), ()).own_topic(b"v1/devices/me/telemetry", "me")
        b'v1/devices/roof-7/telemetry'
        """
        if own_level is None:
            return topic
        own, name = own_level.encode(), self.name.encode()
        return b"/".join(name if level == own else level for level in topic.split(b"/"))

    def may_subscribe(self, name: str) -> bool:
        """Whether every topic that filter `name` takes is one it may read."""
        return any(covers(pattern, name) for pattern in self.subscribe)


def covers(pattern: str, name: str) -> bool:
    """Whether filter `pattern` takes everything that filter `name` takes.

    >>> covers("cmd/devices/a/#", "cmd/devices/a/+/x"), covers("cmd/devices/a/#", "cmd/devices/+/x")
    (True, False)
    """
    wide, narrow = pattern.split("/"), name.split("/")
    for place, level in enumerate(wide):
        if level == "#":
            return narrow[0] != "#" or place == 0
        if place >= len(narrow) or narrow[place] == "#" or (level != "+" and narrow[place] != level):
            return False
    return len(wide) == len(narrow)


class Access:
    """Lets clients in.

    Args:
        everyone: rights of every client.
        grants: more rights, by name.
        passwords: of those who come with a user name; None where there are none.
        anonymous: whether a client may come without any proof; its client id is its name then.
    """

    def __init__(
        self, everyone: Rights, grants: Sequence[Grant], passwords: Passwords | None, *, anonymous: bool
    ) -> None:
        self._everyone = everyone
        self._grants = grants
        self._passwords = passwords
        self._anonymous = anonymous

    async def identify(self, connect: Connect, client_id: str, certificate: Any) -> Identity:
        """Who it is.

        A client certificate names the client by its common name; a user name beside it must be the same. Otherwise user
        name and password do, and where it is allowed, the client id.

        Args:
            certificate: as `ssl.SSLSocket.getpeercert` gives it; None or empty if there is none.
        Raises:
            BadPacket: it is not let in; the reason is for its CONNACK.
        """
        name = common_name(certificate)
        if name is not None:
            if connect.username not in (None, name):
                raise BadPacket(Reason.NOT_AUTHORIZED, "the user name is not that of the certificate")
        elif connect.username is not None and self._passwords is not None:
            if not await self._passwords.fits(connect.username, connect.password or b""):
                raise BadPacket(Reason.BAD_USER_NAME_OR_PASSWORD, "wrong user name or password")
            name = connect.username
        elif self._anonymous:
            name = client_id
        else:
            raise BadPacket(Reason.NOT_AUTHORIZED, "who are you? a user name and password, or a certificate, is needed")
        if not is_name(name):
            raise BadPacket(Reason.NOT_AUTHORIZED, f"{name[:100]!r} cannot be a level of a topic")
        return self._with_rights(name)

    def _with_rights(self, name: str) -> Identity:
        rights = [self._everyone, *(grant for grant in self._grants if name in grant.users)]
        publish = [pattern.replace(DEVICE, name) for each in rights for pattern in each.publish]
        subscribe = [pattern.replace(DEVICE, name) for each in rights for pattern in each.subscribe]
        return Identity(name, tuple(publish), tuple(subscribe))


def common_name(certificate: Any) -> str | None:
    """Common name of the subject of a certificate; None without one."""
    for part in (certificate or {}).get("subject", ()):
        for key, value in part:
            if key == "commonName":
                return str(value)
    return None
