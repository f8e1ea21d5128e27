"""Passwords and certificates of a secure cluster, and the broker settings that ask for them."""

import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from local_kafka.jars import MissingTool, find_tool

#: The listeners of a secure cluster beside PLAINTEXT, and their protocol. MTLS asks for a client certificate.
LISTENERS = {"SASL_PLAINTEXT": "SASL_PLAINTEXT", "SSL": "SSL", "SASL_SSL": "SASL_SSL", "MTLS": "SSL"}
SCRAM = ("SCRAM-SHA-256", "SCRAM-SHA-512")
MECHANISMS = ("PLAIN", *SCRAM)

_LOGIN_MODULES = "org.apache.kafka.common.security"
_OPENSSL_CONFIG = """
[req]
distinguished_name = name
prompt = no
[name]
CN = {common_name}
[ca]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[leaf]
basicConstraints = CA:FALSE
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = IP:127.0.0.1, DNS:localhost
"""


@dataclass(frozen=True)
class Security:
    """What clients of a secure cluster log in with. Every SASL mechanism knows the same user.

    `client` and `server` are PEM files of a private key and the certificate for it, signed by `ca`.
    """

    folder: Path
    username: str = "headrace"
    password: str = field(default="correct-horse", repr=False)
    common_name: str = "headrace test"

    @property
    def ca(self) -> Path:
        """Certificate that clients must trust, PEM."""
        return self.folder / "ca.pem"

    @property
    def client_certificate(self) -> Path:
        """Certificate that a client shows to the MTLS listener, PEM."""
        return self.folder / "client.pem"

    @property
    def client_key(self) -> Path:
        """Private key of the client's certificate, PEM without a password."""
        return self.folder / "client.key"

    def make_certificates(self) -> None:
        """Make the authority and both certificates; about 0.1 s."""
        self.folder.mkdir(parents=True)
        (self.folder / "openssl.cnf").write_text(_OPENSSL_CONFIG.format(common_name=self.common_name))
        self._request("ca", "-x509", "-extensions", "ca", "-days", "365", "-out", str(self.ca))
        for name in ("server", "client"):
            self._request(name, "-out", str(self.folder / f"{name}.csr"))
            self._sign(name)
        key, certificate = self.folder / "server.key", self.folder / "server.pem"
        self._keystore.write_text(key.read_text() + certificate.read_text())

    def broker_settings(self) -> dict[str, str]:
        """Settings of every broker for `LISTENERS`, without their addresses."""
        settings = {
            "sasl.enabled.mechanisms": ",".join(MECHANISMS),
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(self._keystore),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(self.ca),
            "listener.name.mtls.ssl.client.auth": "required",
        }
        plain = f'{_LOGIN_MODULES}.plain.PlainLoginModule required user_{self.username}="{self.password}";'
        scram = f"{_LOGIN_MODULES}.scram.ScramLoginModule required;"
        for listener in ("sasl_plaintext", "sasl_ssl"):
            for mechanism in MECHANISMS:
                key = f"listener.name.{listener}.{mechanism.lower()}.sasl.jaas.config"
                settings[key] = plain if mechanism == "PLAIN" else scram
        return settings

    def format_options(self) -> list[str]:
        """Options for formatting the data folder: users with SCRAM live in Kafka's own metadata."""
        user = f"[name={self.username},password={self.password}]"
        return [option for mechanism in SCRAM for option in ("--add-scram", f"{mechanism}={user}")]

    @property
    def _keystore(self) -> Path:
        return self.folder / "server-keystore.pem"

    def _request(self, name: str, *options: str) -> None:
        key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        config = ["-config", str(self.folder / "openssl.cnf")]
        _openssl("req", *config, *key, "-keyout", str(self.folder / f"{name}.key"), *options)

    def _sign(self, name: str) -> None:
        authority = ["-CA", str(self.ca), "-CAkey", str(self.folder / "ca.key"), "-CAcreateserial", "-days", "365"]
        extensions = ["-extfile", str(self.folder / "openssl.cnf"), "-extensions", "leaf"]
        files = ["-in", str(self.folder / f"{name}.csr"), "-out", str(self.folder / f"{name}.pem")]
        _openssl("x509", "-req", *authority, *extensions, *files)


def _openssl(*arguments: str) -> None:
    done = subprocess.run([find_tool("openssl"), *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise MissingTool(f"openssl {arguments[0]} failed; OpenSSL 1.1.1 or newer is needed:\n{done.stderr[-1000:]}")
