"""An MQTT broker for whoever has none: Mosquitto if it is installed, otherwise amqtt, in a child process."""

import asyncio
import base64
import contextlib
import hashlib
import json
import os
import secrets
import shutil
import socket
import sys
from pathlib import Path
from typing import Literal

from headrace.connectors.mqtt.codec.packets import V3
from headrace.connectors.mqtt.connection import BrokerAddress, Login, MqttConnection
from headrace.engine.clock import Clock, SystemClock
from headrace.engine.errors import ConfigError, Disconnected

HOST = "127.0.0.1"
USERNAME = "headrace"
#: Seconds for the broker to answer its first client; amqtt takes about one on a busy laptop.
START_TIMEOUT = 20.0
#: Seconds between SIGTERM and SIGKILL.
STOP_TIMEOUT = 2.0
POLL = 0.02
#: Another process may take the free port before the broker does.
START_TRIES = 3

BrokerKind = Literal["mosquitto", "amqtt"]


class EmbeddedBroker:
    """A broker on a free port of the loopback interface, with a user and password made for this run.

    It keeps its sessions in memory only: what is not in the log when it ends was never accepted. It has a session of
    its own, so Ctrl-C does not reach it, and ends when this process ends, `kill -9` included. Its output goes to
    `broker/broker.log` in the data folder, started afresh each time.

    Args:
        data_dir: the data folder; `broker/` is made in it.
        clock: for waiting.
        kind: which broker; None takes `mosquitto` when it is on PATH (or in /usr/sbin), else amqtt.
    """

    def __init__(self, data_dir: Path, clock: Clock | None = None, kind: BrokerKind | None = None) -> None:
        self._folder = data_dir / "broker"
        self._log_path = self._folder / "broker.log"
        self._clock = clock or SystemClock()
        self._mosquitto = find_mosquitto()
        self.kind: BrokerKind = kind or ("mosquitto" if self._mosquitto else "amqtt")
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = False

    @property
    def pid(self) -> int | None:
        """Process id of the broker; None before `start`."""
        return None if self._process is None else self._process.pid

    async def start(self) -> BrokerAddress:
        """Start it and wait until it takes clients.

        Raises:
            ConfigError: there is no such broker on this machine.
            Disconnected: it did not come up; the message holds the end of its log.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        for attempt in range(1, START_TRIES + 1):
            address = BrokerAddress(HOST, _free_port(), USERNAME, secrets.token_hex(16))
            if self.kind == "amqtt":
                await self._start_amqtt(address)
            else:
                await self._start_mosquitto(address)
            try:
                await self._wait_answering(address)
            except Disconnected:
                await self.stop()
                if attempt == START_TRIES:
                    raise
            else:
                return address
        raise AssertionError("unreachable")

    async def stop(self) -> None:
        """End it; what it still holds is gone. Nothing happens if it does not run."""
        process, self._stopping = self._process, True
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(STOP_TIMEOUT):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()

    async def wait_stopped(self) -> None:
        """Return when `stop` was called.

        Raises:
            Disconnected: the broker ended by itself.
        """
        if self._process is None:
            return
        code = await self._process.wait()
        if not self._stopping:
            raise Disconnected(f"the embedded broker ({self.kind}) ended with code {code}\n{self._log_tail()}")

    async def _start_amqtt(self, address: BrokerAddress) -> None:
        script = str(Path(__file__).with_name("amqtt_broker.py"))
        process = await self._spawn([sys.executable, "-P", script])
        assert process.stdin is not None
        settings = {name: getattr(address, name) for name in ("host", "port", "username", "password")}
        with contextlib.suppress(ConnectionError):  # if it has died already, its log says why
            process.stdin.write(json.dumps(settings).encode() + b"\n")
            await process.stdin.drain()

    async def _start_mosquitto(self, address: BrokerAddress) -> None:
        if self._mosquitto is None:
            raise ConfigError("mosquitto is not installed: no such program on PATH; install it, or use amqtt")
        passwords = self._folder / "mosquitto.passwords"
        _write_private(passwords, _mosquitto_password(address))
        lines = [
            f"listener {address.port} {address.host}",
            "allow_anonymous false",
            f"password_file {passwords}",
            "persistence false",
            "log_dest stderr",
            "log_type error",
            "log_type warning",
            "sys_interval 0",
            "set_tcp_nodelay true",
            # Its defaults hold 1,000 messages for a subscriber and silently drop the rest, and send 20 at a time.
            "max_queued_messages 0",
            "max_inflight_messages 2000",
        ]
        if os.geteuid() == 0:
            # Or it becomes the user `mosquitto`, which may not read the data folder, and loses the parent-death signal.
            lines.append("user root")
        configuration = self._folder / "mosquitto.conf"
        _write_private(configuration, "\n".join(lines) + "\n")
        await self._spawn([self._mosquitto, "-c", str(configuration)])

    async def _spawn(self, command: list[str]) -> asyncio.subprocess.Process:
        guard = str(Path(__file__).with_name("die_with_parent.py"))
        self._stopping = False
        with self._log_path.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",
                guard,
                str(os.getpid()),
                *command,
                stdin=asyncio.subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return self._process

    async def _wait_answering(self, address: BrokerAddress) -> None:
        assert self._process is not None
        give_up = self._clock.monotonic() + START_TIMEOUT
        while self._process.returncode is None and self._clock.monotonic() < give_up:
            try:
                connection = await MqttConnection.open(address, Login("headrace-start", V3, clean=True))
            except Disconnected:
                await self._clock.sleep(POLL)
            else:
                await connection.disconnect()
                return
        raise Disconnected(f"the embedded broker ({self.kind}) did not start\n{self._log_tail()}")

    def _log_tail(self) -> str:
        return self._log_path.read_text(errors="replace")[-2000:].strip()


def find_mosquitto() -> str | None:
    """Where Mosquitto is installed; Debian puts it in /usr/sbin, which is not on every user's PATH."""
    return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def _mosquitto_password(address: BrokerAddress) -> str:
    """A line of Mosquitto's password file: PBKDF2-HMAC-SHA512, as `mosquitto_passwd` writes it (type 7)."""
    salt, iterations = secrets.token_bytes(12), 101
    digest = hashlib.pbkdf2_hmac("sha512", (address.password or "").encode(), salt, iterations)
    encoded = [base64.b64encode(part).decode() for part in (salt, digest)]
    return f"{address.username}:$7${iterations}${encoded[0]}${encoded[1]}\n"


def _write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
