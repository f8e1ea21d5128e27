"""How connections to servers are encrypted."""

import ssl
from pathlib import Path

from headrace.engine.errors import ConfigError


def client_context(
    section: str, *, ca: Path | None, certificate: Path | None, key: Path | None, check_hostname: bool
) -> ssl.SSLContext:
    """TLS towards a server.

    Args:
        section: of the settings, for the error.
        ca: PEM, of the authority that signed the server's certificate; the system's own authorities if left out.
        certificate, key: PEM, ours, where the server asks for one.
        check_hostname: whether the server's certificate must name its host.
    Raises:
        ConfigError: a file cannot be used.
    """
    try:
        context = ssl.create_default_context(cafile=None if ca is None else str(ca))
        context.check_hostname = check_hostname
        if certificate is not None and key is not None:
            context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"[{section}] tls_ca, tls_certificate or tls_key cannot be used: {error}") from error
    return context


def server_context(section: str, *, certificate: Path, key: Path) -> ssl.SSLContext:
    """TLS towards clients, 1.2 or newer.

    Args:
        section: of the settings, for the error.
        certificate, key: PEM, ours, with the certificates between it and its authority behind it.
    Raises:
        ConfigError: a file cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"[{section}] certificate {certificate} or key {key} cannot be used: {error}") from error
    return context
