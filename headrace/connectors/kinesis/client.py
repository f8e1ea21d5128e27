"""Clients of one Kinesis stream that say of each error what to do next."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import structlog

from headrace.connectors.kinesis.record import Entry
from headrace.connectors.kinesis.settings import KinesisSettings, StreamSettings
from headrace.engine.errors import ConfigError, LogError, RetryLater

log = structlog.get_logger(__name__)

#: Longest wait for a connection, seconds.
CONNECT_TIMEOUT = 5.0
DENIED = "AccessDeniedException"
#: Errors of a whole request that no repetition mends, and what does.
TERMINAL = {
    "ResourceNotFoundException": "there is no such stream in this region; make it, or correct stream, region",
    DENIED: "these credentials may not use it",
    "UnrecognizedClientException": "AWS does not know the access key",
    "InvalidClientTokenId": "AWS does not know the access key",
    "InvalidSignatureException": "the secret access key is wrong, or this machine's clock is",
    "SignatureDoesNotMatch": "the secret access key is wrong, or this machine's clock is",
    "IncompleteSignature": "the credentials are incomplete",
    "MissingAuthenticationTokenException": "there are no credentials",
    "ExpiredTokenException": "the session token has expired; put a new one in its place",
    "OptInRequired": "the account has no access to Kinesis",
    "KMSAccessDeniedException": "these credentials may not use the stream's KMS key",
    "KMSDisabledException": "the stream's KMS key is disabled",
    "KMSInvalidStateException": "the stream's KMS key cannot be used in its state",
    "KMSNotFoundException": "the stream's KMS key is gone",
    "KMSOptInRequired": "the account has no access to KMS",
}
#: Errors with a status below 500 that pass.
PASSING = {"ProvisionedThroughputExceededException", "LimitExceededException", "ThrottlingException", "Throttling"}
PASSING |= {"KMSThrottlingException", "RequestTimeout", "RequestTimeoutException", "TooManyRequestsException"}


class _Denied(ConfigError):
    """The credentials are good, but not for this."""


class StreamClient:
    """Sends one request per call; never repeats one by itself.

    Args:
        client: of aiobotocore.
        stream: name or ARN.
    """

    #: Where the settings are, and what the credentials must be allowed.
    section = "kinesis"
    actions = "kinesis:PutRecords"

    def __init__(self, client: Any, stream: str) -> None:
        self._client = client
        self.stream = stream
        self._target = {"StreamARN" if stream.startswith("arn:") else "StreamName": stream}

    async def _call(self, operation: str, **arguments: Any) -> Any:
        return await self._send(operation, self._target | arguments)

    async def _send(self, operation: str, arguments: dict[str, Any]) -> Any:
        from botocore import exceptions  # noqa: PLC0415
        from botocore.parsers import ResponseParserError  # noqa: PLC0415

        passing = (
            exceptions.HTTPClientError,
            exceptions.ConnectionError,
            exceptions.CredentialRetrievalError,
            exceptions.MetadataRetrievalError,
            ResponseParserError,
        )
        try:
            return await getattr(self._client, operation)(**arguments)
        except exceptions.ClientError as error:
            raise self._judged(error.response) from error
        except (exceptions.NoCredentialsError, exceptions.PartialCredentialsError) as error:
            raise ConfigError(f"[{self.section}] stream {self.stream}: {error}") from error
        except passing as error:
            raise RetryLater(f"{type(error).__name__}: {error}") from error
        except exceptions.BotoCoreError as error:
            raise LogError(f"Kinesis, stream {self.stream}: {error}") from error

    def _judged(self, response: Any) -> Exception:
        code = str(response["Error"].get("Code"))
        text = f"{code}: {response['Error'].get('Message') or 'no reason given'}"
        if code in TERMINAL:
            remedy = TERMINAL[code] + (f"; allow them {self.actions}" if code == DENIED else "")
            kind = _Denied if code == DENIED else ConfigError
            return kind(f"[{self.section}] stream {self.stream}: {remedy} ({text})")
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if code in PASSING or status >= 500 or status == 429:
            return RetryLater(text)
        return LogError(f"Kinesis refuses a request to stream {self.stream}: {text}")


class KinesisClient(StreamClient):
    """Puts records into a stream."""

    async def put(self, entries: Sequence[Entry]) -> list[bool]:
        """Send 1 to 500 records; which of them are stored for good.

        Raises:
            RetryLater: nothing is known of any of them.
            ConfigError: no repetition mends it.
            LogError: Kinesis does not understand the request.
        """
        records = [{"Data": each.data, "PartitionKey": each.key} for each in entries]
        answer = await self._call("put_records", Records=records)
        results = answer.get("Records", ())
        if len(results) != len(entries):
            raise RetryLater("the answer does not fit the request")
        return [result.get("ErrorCode") is None and "SequenceNumber" in result for result in results]

    async def check(self) -> None:
        """Find a stream that is not there before a device is told anything. Who may only write is believed.

        Raises:
            ConfigError: there is none, or the credentials are wrong.
        """
        try:
            await self._call("describe_stream_summary")
        except RetryLater as error:
            log.warning("kinesis_away", stream=self.stream, reason=str(error))
        except _Denied:
            log.debug("kinesis_not_checked", stream=self.stream)


@asynccontextmanager
async def open_client(settings: KinesisSettings) -> AsyncIterator[KinesisClient]:
    """A client for as long as the `async with` lasts.

    Raises:
        ConfigError: as `open_plain_client`, or `check` says so.
    """
    async with open_plain_client(settings, KinesisClient.section, settings.requests) as client:
        assert settings.stream is not None
        opened = KinesisClient(client, settings.stream)
        await opened.check()
        yield opened


@asynccontextmanager
async def open_plain_client(settings: StreamSettings, section: str, connections: int) -> AsyncIterator[Any]:
    """A client of aiobotocore for as long as the `async with` lasts.

    Args:
        section: where the settings are.
        connections: requests under way at once.
    Raises:
        ConfigError: aiobotocore is not installed, or no stream or region is named.
    """
    try:
        from aiobotocore.config import AioConfig  # noqa: PLC0415
        from aiobotocore.session import get_session  # noqa: PLC0415
        from botocore import exceptions  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError("Kinesis needs aiobotocore: pip install headrace[kinesis]") from error
    if settings.stream is None:
        raise ConfigError(f"[{section}] stream is missing: name the stream")
    region = settings.region or (settings.stream.split(":")[3] if settings.stream.startswith("arn:") else None)
    secrets = {
        "aws_access_key_id": settings.access_key_id,
        "aws_secret_access_key": settings.secret_access_key,
        "aws_session_token": settings.session_token,
    }
    options = AioConfig(
        connect_timeout=min(CONNECT_TIMEOUT, settings.request_timeout),
        read_timeout=settings.request_timeout,
        max_pool_connections=connections,
        retries={"total_max_attempts": 1},  # who calls repeats: it alone knows the order
        parameter_validation=False,  # the records are ours; it takes as long as all the rest
    )
    session = get_session()
    # Dates take two thirds of the time that reading records takes; numbers are all we want of them.
    session.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=_moment)
    try:
        made = session.create_client(
            "kinesis",
            region_name=region,
            endpoint_url=settings.endpoint_url,
            config=options,
            **{name: None if value is None else value.get_secret_value() for name, value in secrets.items()},
        )
        client = await made.__aenter__()
    except exceptions.NoRegionError as error:
        raise ConfigError(f"[{section}] region is missing: name the region, or set AWS_DEFAULT_REGION") from error
    except (exceptions.BotoCoreError, ValueError) as error:
        raise ConfigError(f"[{section}] cannot be used: {error}") from error
    try:
        yield client
    finally:
        await made.__aexit__(None, None, None)


def _moment(value: Any) -> Any:
    """Seconds since 1970 as they are, a text as botocore reads it."""
    from botocore.utils import parse_timestamp  # noqa: PLC0415

    return value if isinstance(value, int | float) else parse_timestamp(value)
