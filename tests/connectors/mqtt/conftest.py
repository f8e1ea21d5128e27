"""Brokers for the tests of MQTT."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.connectors.mqtt import connection, probe
from headrace.connectors.mqtt.connection import BrokerAddress
from tests.conftest import Require
from tests.connectors.mqtt.at_work import RecordingIntake
from tests.mosquitto import Mosquitto, find_mosquitto


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker is not given up for standing still for some seconds, as it may on a machine with much else to do."""
    for module, name in ((probe, "PATIENCE"), (connection, "ANSWER_TIMEOUT")):
        monkeypatch.setattr(module, name, 60.0)


@pytest.fixture
def goodbye_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the broker takes, we leave only when it has taken all our acknowledgements."""
    monkeypatch.setattr(connection, "CLOSE_TIMEOUT", 60.0)


@pytest.fixture
def mosquitto(require: Require, tmp_path: Path) -> Iterator[Mosquitto]:
    """A Mosquitto that lets everybody in and keeps its sessions over a restart; started."""
    require(find_mosquitto(), "mosquitto", "install the package `mosquitto`")
    broker = Mosquitto(tmp_path / "mosquitto", persistent=True)
    yield broker.start()
    broker.stop()


@pytest.fixture
def address(mosquitto: Mosquitto) -> BrokerAddress:
    """Its address."""
    return BrokerAddress(mosquitto.host, mosquitto.port)


@pytest.fixture(params=["5", "3.1.1"])
def version(request: pytest.FixtureRequest) -> str:
    """Each version of MQTT."""
    chosen: str = request.param
    return chosen


@pytest.fixture
def intake() -> RecordingIntake:
    """Where the messages go."""
    return RecordingIntake()
