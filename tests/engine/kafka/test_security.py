"""Logging in to brokers that ask for it: passwords, certificates, and what a refusal says."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from local_kafka.cluster import Cluster

from headrace.cli.settings import Settings
from headrace.engine.config import load
from headrace.engine.errors import ConfigError
from headrace.engine.kafka.log import KafkaLog
from headrace.engine.kafka.settings import KafkaSettings
from headrace.engine.log import Append, Listener, Member, TopicPartition, TopicSpec, Transaction
from headrace.engine.records import Records
from tests.contract.log_access import PATIENCE

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def secure(kafka_tools: None) -> Iterator[Cluster]:
    """A broker with a listener of every kind."""
    with Cluster(secure=True) as cluster:
        yield cluster


@asynccontextmanager
async def log_at(address: str, settings: KafkaSettings) -> AsyncIterator[KafkaLog]:
    log = KafkaLog(f"kafka://{address}", settings)
    await log.start()
    try:
        yield log
    finally:
        await log.close()


class Waiting(Listener):
    """Notes its assignment."""

    def __init__(self) -> None:
        self.targets: set[TopicPartition] = set()

    async def on_assigned(self, targets: Any, member: Member) -> None:
        self.targets = set(targets)

    async def on_revoked(self) -> None:
        """Nothing in hand."""


async def use(log: KafkaLog) -> bytes | None:
    """Make a topic, join a group, commit, read back: every kind of connection that a worker has."""
    target = TopicPartition(f"secure-{uuid4()}", 0)
    await log.create_topics([TopicSpec(target.topic, 1)])
    listener = Waiting()
    await log.join(f"group-{uuid4()}", [target.topic], listener)
    await log.commit(Transaction([Append(target, Records([b"k"], [b"secret"], [1]))]))
    reader = log.reader()
    while (fetched := await reader.read(target, 0, 10)) is None:
        assert await reader.wait({target: 0}, PATIENCE)
    while target not in listener.targets:
        await log._clock.sleep(0.05)
    return fetched.records.values[0]


def sasl(cluster: Cluster, **changed: Any) -> dict[str, Any]:
    security = cluster.security
    assert security is not None
    return {"sasl_username": security.username, "sasl_password": security.password, **changed}


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
async def test_password_in_clear_and_over_tls(secure: Cluster, mechanism: str) -> None:
    """SASL works with every mechanism, with and without TLS."""
    assert secure.security is not None
    plain = KafkaSettings(security="sasl_plaintext", sasl_mechanism=mechanism, **sasl(secure))
    tls = KafkaSettings(security="sasl_tls", sasl_mechanism=mechanism, tls_ca=secure.security.ca, **sasl(secure))

    async with log_at(secure.listeners["SASL_PLAINTEXT"], plain) as log:
        assert await use(log) == b"secret"
    async with log_at(secure.listeners["SASL_SSL"], tls) as log:
        assert await use(log) == b"secret"


async def test_tls_and_mutual_tls(secure: Cluster) -> None:
    """A certificate of an authority of one's own is trusted; a listener that asks for the client's gets it."""
    security = secure.security
    assert security is not None
    tls = KafkaSettings(security="tls", tls_ca=security.ca)
    mutual = tls.model_copy(update={"tls_certificate": security.client_certificate, "tls_key": security.client_key})

    async with log_at(secure.listeners["SSL"], tls) as log:
        assert await use(log) == b"secret"
    async with log_at(secure.listeners["MTLS"], mutual) as log:
        assert await use(log) == b"secret"


async def test_who_is_not_let_in_learns_what_to_check(secure: Cluster) -> None:
    """A wrong password, an unknown authority and a missing client certificate end with one error that says where."""
    assert secure.security is not None
    refused = [
        ("SASL_PLAINTEXT", KafkaSettings(security="sasl_plaintext", **sasl(secure, sasl_password="wrong"))),
        ("SSL", KafkaSettings(security="tls")),
        ("MTLS", KafkaSettings(security="tls", tls_ca=secure.security.ca)),
    ]

    for listener, settings in refused:
        log = KafkaLog(f"kafka://{secure.listeners[listener]}", settings)
        with pytest.raises(ConfigError, match=r"\[kafka\]") as caught:
            await log.start()
        assert "wrong" not in str(caught.value)


def test_password_comes_by_reference_and_is_never_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`env:` and `file:` name where the password is; neither it nor a mistake in it is printed."""
    (tmp_path / "password").write_text("from-file\n")
    file = tmp_path / "headrace.toml"
    file.write_text(
        f'[kafka]\nsecurity = "sasl_tls"\nsasl_username = "u"\nsasl_password = "file:{tmp_path / "password"}"\n'
    )
    monkeypatch.setenv("SECRET", "from-environment")

    from_file = load(Settings, file)
    monkeypatch.setenv("HEADRACE_KAFKA__SASL_PASSWORD", "env:SECRET")
    from_environment = load(Settings, file)

    assert from_file.kafka.sasl_password is not None
    assert from_file.kafka.sasl_password.get_secret_value() == "from-file"
    assert from_environment.kafka.client_options()["sasl_plain_password"] == "from-environment"
    assert "from-" not in f"{from_file!r}{from_environment!r}"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"security": "sasl_tls"}, "needs sasl_username and sasl_password"),
        ({"tls_key": "key.pem"}, "come together"),
        ({"heartbeat_interval": 8.0}, "at most half of session_timeout"),
        ({"security": "tls", "tls_ca": "nowhere.pem"}, "nowhere.pem"),
    ],
)
def test_mistakes_are_told_apart(changed: dict[str, Any], said: str, tmp_path: Path) -> None:
    """What is missing or contradicts itself in [kafka] is said before anything connects."""
    file = tmp_path / "headrace.toml"
    file.write_text("[kafka]\n" + "".join(f"{key} = {value!r}\n" for key, value in changed.items()))

    with pytest.raises(ConfigError, match=said):
        load(Settings, file)
