"""Pushes: contacts are `platform:token`, and the platform says which service takes them."""

from headrace.connectors.notifications.channel import Message, Refused, Sent
from headrace.connectors.notifications.fcm import Fcm
from headrace.connectors.notifications.http_client import HttpClient
from headrace.connectors.notifications.ntfy import Ntfy
from headrace.connectors.notifications.public_addresses import Network
from headrace.connectors.notifications.push_settings import PushSettings
from headrace.engine.clock import Clock

#: Those that Firebase reaches.
FIREBASE = ("android", "ios", "web")


class PushChannel:
    """Firebase for android, ios and web, ntfy for ntfy.

    Args:
        settings: of pushes.
        clock: see `Fcm`.
        networks: that are not public and users may name servers in.
    Raises:
        ConfigError: see `Fcm`.
    """

    name = "push"
    #: A repeat takes the place of the first one, but makes a sound.
    idempotent = False

    def __init__(self, settings: PushSettings, clock: Clock, networks: tuple[Network, ...] = ()) -> None:
        self.at_once = settings.requests
        self._own = HttpClient(clock, connections=settings.requests * 2)
        self._other = HttpClient(clock, connections=settings.requests, networks=networks)
        self._fcm = Fcm(settings, self._own, clock) if settings.fcm_credentials is not None else None
        self._ntfy = Ntfy(settings, self._own, self._other)

    async def send(self, message: Message) -> Sent:
        """Hand it over; see `Channel.send`."""
        platform, _, token = message.contact.partition(":")
        if platform == "ntfy" and token:
            return await self._ntfy.send(message, token)
        if platform not in FIREBASE or not token:
            raise Refused("a contact of pushes is platform:token; platforms are android, ios, web and ntfy")
        if self._fcm is None:
            raise Refused("[channels.push] fcm_credentials is missing: without it nothing reaches android, ios and web")
        return await self._fcm.send(message, token)

    async def close(self) -> None:
        """Let go of connections."""
        await self._own.close()
        await self._other.close()
