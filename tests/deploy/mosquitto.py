"""Mosquitto with the configuration that ships: nothing in it is changed but paths and ports."""

import os
import shutil
import ssl
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from local_kafka.ports import free_ports, is_free

from tests.deploy.wire import Client

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
#: Seconds; a limit for what hangs.
PATIENCE = 240.0


class Broker:
    """One that can be killed and started again on the same data.

    Args:
        folder: for secrets, configuration and data; others may look into it, as root Mosquitto becomes one of them.
    """

    def __init__(self, folder: Path) -> None:
        self.secrets = folder / "secrets"
        self.data = folder / "data"
        self.data.mkdir()
        self.data.chmod(0o777)
        folder.chmod(0o755)
        self.port, self.tls_port = free_ports(2)
        self._make_secrets()
        text = (DEPLOY / "mosquitto" / "mosquitto.conf").read_text()
        changes = {
            "/mosquitto/secrets": str(self.secrets),
            "/mosquitto/config/acl": str(shutil.copy(DEPLOY / "mosquitto" / "acl", folder)),
            "/mosquitto/data/": f"{self.data}/",
            "listener 1883": f"listener {self.port} 127.0.0.1",
            "listener 8883": f"listener {self.tls_port} 127.0.0.1",
        }
        for old, new in changes.items():
            assert old in text
            text = text.replace(f"\n{old}\n", f"\n{new}\n") if old.startswith("listener") else text.replace(old, new)
        self._config = folder / "mosquitto.conf"
        self._config.write_text(text)
        self._log = folder / "log"

    def start(self) -> None:
        """Start, and wait until it listens."""
        program = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
        assert program is not None
        with self._log.open("ab") as log:
            self.process = subprocess.Popen([program, "-c", str(self._config)], stdout=log, stderr=log)
        deadline = time.monotonic() + PATIENCE
        while is_free(self.tls_port):
            assert self.process.poll() is None, self._log.read_text()
            assert time.monotonic() < deadline, self._log.read_text()
            time.sleep(0.01)

    def stop(self) -> None:
        """SIGTERM: it saves."""
        self.process.terminate()
        self.process.wait(PATIENCE)

    def kill(self) -> None:
        """SIGKILL: it saves nothing."""
        self.process.kill()
        self.process.wait(PATIENCE)

    def close(self) -> None:
        """Stop what still runs."""
        if self.process.poll() is None:
            self.kill()

    def bridge(self, client_id: str = "headrace", *, keep: bool = True, version: int = 5) -> Client:
        """The bridge's connection."""
        password = (self.secrets / "bridge-password").read_bytes().strip()
        return Client(self.port, client_id, username="headrace", password=password, keep=keep, version=version)

    def commander(self) -> Client:
        """Of who sends commands."""
        password = (self.secrets / "commands-password").read_bytes().strip()
        return Client(self.port, "commands", username="headrace-commands", password=password)

    def device(self, name: str, *, version: int = 5, client_id: str | None = None, keep_alive: int = 60) -> Client:
        """A device with a certificate of its own."""
        return Client(self.tls_port, client_id or name, tls=self.tls(name), version=version, keep_alive=keep_alive)

    def tls(self, name: str | None) -> ssl.SSLContext:
        """What a client of this name, or without a certificate, connects with."""
        context = ssl.create_default_context(cafile=str(self.secrets / "ca.pem"))
        if name is not None:
            certificate = self.secrets / "devices" / f"{name}.pem"
            if not certificate.exists():
                run_script(self.secrets, "device", name)
            context.load_cert_chain(certificate, certificate.with_suffix(".key"))
        return context

    def _make_secrets(self) -> None:
        run_script(self.secrets)


def run_script(secrets: Path, *arguments: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
    """deploy/secrets.sh."""
    command: Sequence[str] = ["sh", str(DEPLOY / "secrets.sh"), *arguments]
    environment = {**os.environ, "SECRETS": str(secrets)}
    return subprocess.run(command, env=environment, check=check, capture_output=True, text=True, timeout=PATIENCE)
