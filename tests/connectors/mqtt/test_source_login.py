"""TLS, client certificates and passwords, on a real broker: what lets us in, and what is said when it does not."""

import asyncio
import subprocess
from pathlib import Path

import pytest
from local_kafka.security import Security

from headrace.connectors.mqtt.connection import BrokerAddress
from headrace.engine.errors import ConfigError
from tests.conftest import Require
from tests.connectors.mqtt.at_work import FILTER, RecordingIntake, Running
from tests.mosquitto import Mosquitto, find_mosquitto

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def certificates(require: Require, tmp_path_factory: pytest.TempPathFactory) -> Security:
    """An authority, and certificates of it for a server on 127.0.0.1 and for a client."""
    require(find_mosquitto(), "mosquitto", "install the package `mosquitto`")
    security = Security(tmp_path_factory.mktemp("tls") / "certificates")
    security.make_certificates()
    return security


@pytest.fixture
def tls(certificates: Security) -> list[str]:
    """Mosquitto's settings for TLS."""
    folder = certificates.folder
    return [f"cafile {certificates.ca}", f"certfile {folder / 'server.pem'}", f"keyfile {folder / 'server.key'}"]


async def log_in(broker: Mosquitto, intake: RecordingIntake, version: str, **settings: object) -> None:
    """Be let in, and subscribe."""
    async with asyncio.timeout(60):
        async with Running(BrokerAddress("localhost", broker.port), intake, version=version, **settings):
            assert FILTER in broker.said()


async def test_tls_needs_the_right_authority_and_name(
    certificates: Security, tls: list[str], tmp_path: Path, intake: RecordingIntake, version: str
) -> None:
    """The authority that signed lets us in; without it, or under another name, it is a mistake."""
    broker = Mosquitto(tmp_path / "mosquitto", ["allow_anonymous true", *tls]).start()
    try:
        await log_in(broker, intake, version, tls=True, tls_ca=certificates.ca)
        with pytest.raises(ConfigError, match="tls_ca"):
            await log_in(broker, intake, version, tls=True)
    finally:
        broker.stop()


async def test_the_name_in_the_certificate_counts(
    certificates: Security, tls: list[str], tmp_path: Path, intake: RecordingIntake
) -> None:
    """A certificate for another name is refused, unless it is said that the name does not matter."""
    broker = Mosquitto(tmp_path / "mosquitto", ["allow_anonymous true", *tls]).start()
    # An address too, but as a name none that the certificate has.
    settings = {"host": "127.1", "tls": True, "tls_ca": certificates.ca}
    try:
        with pytest.raises(ConfigError, match="tls_check_hostname"):
            await log_in(broker, intake, "5", **settings)
        await log_in(broker, intake, "5", **settings, tls_check_hostname=False)
    finally:
        broker.stop()


async def test_a_broker_may_ask_for_our_certificate(
    certificates: Security, tls: list[str], tmp_path: Path, intake: RecordingIntake, version: str
) -> None:
    """With it we are let in; without it we are told what is missing."""
    listener = ["allow_anonymous true", *tls, "require_certificate true"]
    broker = Mosquitto(tmp_path / "mosquitto", listener).start()
    ours = {"tls_certificate": certificates.client_certificate, "tls_key": certificates.client_key}
    try:
        await log_in(broker, intake, version, tls=True, tls_ca=certificates.ca, **ours)
        with pytest.raises(ConfigError, match="client certificate"):
            await log_in(broker, intake, version, tls=True, tls_ca=certificates.ca)
    finally:
        broker.stop()


async def test_only_the_right_password_lets_us_in(
    require: Require, tmp_path: Path, intake: RecordingIntake, version: str
) -> None:
    """A wrong password is a mistake, not something to try for ever."""
    require(find_mosquitto(), "mosquitto", "install the package `mosquitto`")
    passwords = tmp_path / "passwords"
    subprocess.run(["mosquitto_passwd", "-b", "-c", str(passwords), "me", "hush"], check=True, capture_output=True)
    broker = Mosquitto(tmp_path / "mosquitto", ["allow_anonymous false", f"password_file {passwords}"]).start()
    try:
        await log_in(broker, intake, version, username="me", password="hush")
        with pytest.raises(ConfigError, match="username and password"):
            await log_in(broker, intake, version, username="me", password="guess")
    finally:
        broker.stop()
