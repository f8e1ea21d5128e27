"""The embedded broker: real processes of Mosquitto and amqtt."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import psutil
import pytest

from headrace.connectors.broker import BrokerKind, EmbeddedBroker, find_mosquitto
from headrace.connectors.mqtt.codec.packets import V3
from headrace.connectors.mqtt.connection import BrokerAddress, Login, MqttConnection
from headrace.engine.errors import ConfigError, Disconnected
from tests.conftest import Require

PARENT = """
import asyncio, sys
from pathlib import Path
from headrace.connectors.broker import EmbeddedBroker

async def main():
    broker = EmbeddedBroker(Path(sys.argv[1]), kind=sys.argv[2])
    await broker.start()
    print(broker.pid, flush=True)
    await broker.wait_stopped()

asyncio.run(main())
"""


@pytest.fixture(params=["mosquitto", "amqtt"])
def kind(request: pytest.FixtureRequest, require: Require) -> BrokerKind:
    """Each broker that can be embedded."""
    chosen: BrokerKind = request.param
    require(chosen == "amqtt" or find_mosquitto(), "mosquitto", "install the package `mosquitto`")
    return chosen


async def test_only_who_has_the_password_gets_in(kind: BrokerKind, tmp_path: Path) -> None:
    """Nobody publishes to the embedded broker without the password made for this run; the folder may have a space."""
    broker = EmbeddedBroker(tmp_path / "data folder", kind=kind)

    address = await broker.start()
    try:
        stranger = BrokerAddress(address.host, address.port, address.username, "guess")
        with pytest.raises(ConfigError, match="refuses us"):
            await MqttConnection.open(stranger, Login("stranger", V3, clean=True))
        with pytest.raises(ConfigError, match="refuses us"):
            await MqttConnection.open(BrokerAddress(address.host, address.port), Login("nobody", V3, clean=True))
        connection = await MqttConnection.open(address, Login("friend", V3, clean=True))
        await connection.disconnect()
    finally:
        await broker.stop()

    assert address.host == "127.0.0.1"
    assert address.password is not None
    assert address.password not in repr(address)


async def test_stopping_is_quick_and_not_an_error(kind: BrokerKind, tmp_path: Path) -> None:
    """`stop` ends the process within its time limit, and whoever waits for the broker returns normally."""
    broker = EmbeddedBroker(tmp_path, kind=kind)
    await broker.start()
    waiting = asyncio.create_task(broker.wait_stopped())
    pid = broker.pid

    async with asyncio.timeout(1.5):
        await broker.stop()
        await waiting

    assert pid is not None
    assert not psutil.pid_exists(pid)


async def test_a_broker_that_dies_is_noticed(kind: BrokerKind, tmp_path: Path) -> None:
    """When the broker ends by itself, `wait_stopped` raises."""
    broker = EmbeddedBroker(tmp_path, kind=kind)
    await broker.start()
    assert broker.pid is not None

    os.kill(broker.pid, signal.SIGKILL)

    with pytest.raises(Disconnected, match="ended with code -9"):
        await broker.wait_stopped()
    await broker.stop()


async def test_ctrl_c_does_not_reach_it(kind: BrokerKind, tmp_path: Path) -> None:
    """The broker is in a session of its own, so the terminal's interrupt leaves it alone."""
    broker = EmbeddedBroker(tmp_path, kind=kind)
    await broker.start()
    try:
        assert broker.pid is not None
        assert os.getsid(broker.pid) == broker.pid
    finally:
        await broker.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="the parent-death signal is Linux's")
async def test_it_dies_with_its_parent(kind: BrokerKind, tmp_path: Path) -> None:
    """`kill -9` of the process that started the broker ends the broker too."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PARENT, str(tmp_path), kind, stdout=asyncio.subprocess.PIPE, env=environment
    )
    assert parent.stdout is not None
    broker = psutil.Process(int(await parent.stdout.readline()))

    parent.kill()
    await parent.wait()

    await asyncio.to_thread(psutil.wait_procs, [broker], timeout=5)
    assert not broker.is_running() or broker.status() == psutil.STATUS_ZOMBIE


async def test_the_error_holds_the_end_of_its_log(tmp_path: Path) -> None:
    """A broker that ends says why."""
    broker = EmbeddedBroker(tmp_path, kind="amqtt")
    await broker.start()
    assert broker.pid is not None
    (tmp_path / "broker" / "broker.log").write_text("no more memory")

    os.kill(broker.pid, signal.SIGKILL)

    with pytest.raises(Disconnected, match="no more memory"):
        await broker.wait_stopped()
