"""SMS by Amazon SNS: the short form of a notification, one SMS each."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from pydantic import TypeAdapter, ValidationError

from headrace.connectors.notifications.channel import ContactGone, Message, Refused, SendLater, Sent
from headrace.connectors.notifications.sms_settings import SmsSettings
from headrace.engine.errors import ConfigError
from headrace.schemas.user import Phone

#: Longest wait for a connection, seconds; and until the next try where only a person can mend it.
CONNECT_TIMEOUT = 5.0
LOCKED_OUT = 60.0
#: Errors that a person mends, and how.
MENDED = {
    "AuthorizationError": "these credentials may not send SMS: allow them sns:Publish",
    "AuthorizationErrorException": "these credentials may not send SMS: allow them sns:Publish",
    "AccessDenied": "these credentials may not send SMS: allow them sns:Publish",
    "AccessDeniedException": "these credentials may not send SMS: allow them sns:Publish",
    "InvalidClientTokenId": "AWS does not know the access key of [channels.sms]",
    "UnrecognizedClientException": "AWS does not know the access key of [channels.sms]",
    "SignatureDoesNotMatch": "the secret access key of [channels.sms] is wrong, or this machine's clock is",
    "ExpiredToken": "the session token of [channels.sms] has expired; put a new one in its place",
    "OptInRequired": "the account has no access to SNS",
}
#: Errors with a status below 500 that pass.
PASSING = {"Throttling", "ThrottlingException", "ThrottledException", "TooManyRequestsException", "RequestTimeout"}
_PHONES: TypeAdapter[str] = TypeAdapter(Phone)


class SmsChannel:
    """Publishes to phone numbers.

    At least once: SNS knows no key of a repeat. That it was taken does not say that it has arrived.

    Args:
        client: of aiobotocore, for SNS.
        settings: of SMS.
    """

    name = "sms"
    idempotent = False

    def __init__(self, client: Any, settings: SmsSettings) -> None:
        self.at_once = settings.requests
        self._client = client
        self._attributes = {"AWS.SNS.SMS.SMSType": {"DataType": "String", "StringValue": "Transactional"}}
        if settings.sender_id is not None:
            self._attributes["AWS.SNS.SMS.SenderID"] = {"DataType": "String", "StringValue": settings.sender_id}

    async def send(self, message: Message) -> Sent:
        """Hand it over; see `Channel.send`."""
        from botocore import exceptions  # noqa: PLC0415
        from botocore.parsers import ResponseParserError  # noqa: PLC0415

        try:
            phone = _PHONES.validate_python(message.contact)
        except ValidationError as error:
            raise Refused("a contact of SMS is a number as in +4930123456") from error
        try:
            answer = await self._client.publish(
                PhoneNumber=phone, Message=message.content.short, MessageAttributes=self._attributes
            )
        except exceptions.ClientError as error:
            raise _judged(error.response) from error
        except (exceptions.NoCredentialsError, exceptions.PartialCredentialsError) as error:
            raise SendLater(f"Amazon SNS: {error}; see [channels.sms]", LOCKED_OUT) from error
        except (exceptions.BotoCoreError, ResponseParserError, OSError) as error:
            # A proxy in between answers in another language than AWS does.
            raise SendLater(f"Amazon SNS: {type(error).__name__}: {error}") from error
        return Sent(answer.get("MessageId"))

    async def close(self) -> None:
        """Nothing: the client closes with `open_sms`."""


@asynccontextmanager
async def open_sms(settings: SmsSettings, session: Any = None) -> AsyncIterator[SmsChannel]:
    """A channel for as long as the `async with` lasts; connects to nothing yet.

    Args:
        session: of aiobotocore, which keeps what it has read of AWS's interfaces; None for a new one.
    Raises:
        ConfigError: aiobotocore is not installed, or no region is named.
    """
    try:
        from aiobotocore.config import AioConfig  # noqa: PLC0415
        from aiobotocore.session import get_session  # noqa: PLC0415
        from botocore import exceptions  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError("SMS need aiobotocore: pip install headrace[sms]") from error
    secrets = {
        "aws_access_key_id": settings.access_key_id,
        "aws_secret_access_key": settings.secret_access_key,
        "aws_session_token": settings.session_token,
    }
    try:
        made = (session or get_session()).create_client(
            "sns",
            region_name=settings.region,
            endpoint_url=settings.endpoint_url,
            config=AioConfig(
                connect_timeout=min(CONNECT_TIMEOUT, settings.timeout),
                read_timeout=settings.timeout,
                max_pool_connections=settings.requests,
                retries={"total_max_attempts": 1},  # delivery repeats, and counts
            ),
            **{name: None if value is None else value.get_secret_value() for name, value in secrets.items()},
        )
        client = await made.__aenter__()
    except exceptions.NoRegionError as error:
        raise ConfigError("[channels.sms] region is missing: name the region, or set AWS_DEFAULT_REGION") from error
    except (exceptions.BotoCoreError, ValueError) as error:
        raise ConfigError(f"[channels.sms] cannot be used: {error}") from error
    try:
        yield SmsChannel(client, settings)
    finally:
        await made.__aexit__(None, None, None)


def _judged(response: Any) -> SendLater | Refused:
    code = str(response["Error"].get("Code"))
    text = f"Amazon SNS: {code}: {response['Error'].get('Message') or 'no reason given'}"[:500]
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code in MENDED:
        return SendLater(f"{text}; {MENDED[code]}", LOCKED_OUT)
    if "opted out" in text.lower():
        return ContactGone(f"{text}; who answered STOP must be opted in again, in the console of SNS")
    if code.startswith("InvalidParameter") and "PhoneNumber" in text:
        return ContactGone(text)
    if code in PASSING or status >= 500 or status == 429:
        return SendLater(text)
    return Refused(text)
