"""ntfy: pushes to phones and desktops that have subscribed to a topic, without an app of one's own."""

import re
from urllib.parse import urlsplit

import orjson

from headrace.connectors.notifications.channel import Message, Refused, Sent
from headrace.connectors.notifications.fcm import cut
from headrace.connectors.notifications.http_client import HttpClient, host
from headrace.connectors.notifications.push_settings import PushSettings

_TOPIC = re.compile(r"[-_A-Za-z0-9]{1,64}")
#: What is longer becomes a file, bytes; of ntfy.
MOST_TEXT = 4000
MOST_TITLE = 250
_PRIORITIES = {"info": 3, "warning": 4, "critical": 5}
_TAGS = {"acknowledged": "eyes", "resolved": "white_check_mark"}
_MARKS = {"info": "information_source", "warning": "warning", "critical": "rotating_light"}
_REMEDIES = dict.fromkeys((401, 403), "may [channels.push] ntfy_token publish to this topic?")


class Ntfy:
    """Publishes to topics: of the server that the operator names, or of any other by its whole address.

    At least once. The token goes to the operator's server alone.

    Args:
        settings: see there.
        own: client for the operator's server.
        other: client for addresses that users give; connects to public ones.
    """

    def __init__(self, settings: PushSettings, own: HttpClient, other: HttpClient) -> None:
        self._server = settings.ntfy_url.rstrip("/") if settings.ntfy_url is not None else None
        self._token = settings.ntfy_token
        self._timeout = settings.timeout
        self._own, self._other = own, other

    async def send(self, message: Message, target: str) -> Sent:
        """Publish it; see `Channel.send`."""
        server, topic = self._place(target)
        mine = server == self._server
        headers = {"Content-Type": "application/json", "User-Agent": "headrace"}
        if mine and self._token is not None:
            headers["Authorization"] = f"Bearer {self._token.get_secret_value()}"
        client = self._own if mine else self._other
        answer = await client.post(f"{server}/", _body(message, topic), headers, self._timeout)
        client.judge(answer, host(server), _REMEDIES if mine else {})
        said = answer.json()
        return Sent(str(said["id"])[:200] if isinstance(said, dict) and "id" in said else None)

    def _place(self, target: str) -> tuple[str, str]:
        """Server and topic."""
        server, topic = self._server, target
        if "://" in target:
            server, _, topic = target.rstrip("/").rpartition("/")
            parts = urlsplit(server)
            if parts.scheme not in ("https", "http") or not parts.netloc or parts.query or parts.username:
                raise Refused(
                    "the token of platform ntfy is no topic and no address of one, as in https://ntfy.sh/topic"
                )
        if server is None:
            raise Refused("[channels.push] ntfy_url is missing: a topic alone does not say on which server")
        if not _TOPIC.fullmatch(topic):
            raise Refused("the token of platform ntfy is no topic: 1 to 64 letters, digits, - and _")
        return server, topic


def _body(message: Message, topic: str) -> bytes:
    notification, content = message.notification, message.content
    body = {
        "topic": topic,
        "title": cut(content.title, MOST_TITLE),
        "message": cut(content.text, MOST_TEXT),
        "priority": _PRIORITIES[notification.severity] if notification.kind not in _TAGS else 3,
        "tags": [_TAGS.get(notification.kind, _MARKS[notification.severity])],
    }
    if content.link is not None:
        body["click"] = content.link
    return orjson.dumps(body)
