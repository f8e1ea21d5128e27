"""What a broker or TLS refuses, and whether another try can help."""

import ssl

from headrace.connectors.mqtt.codec.packets import Properties
from headrace.connectors.mqtt.codec.reasons import Reason
from headrace.engine.errors import ConfigError, Disconnected

#: What another try cannot change, and what to do about it.
_FINAL = {
    Reason.CLIENT_IDENTIFIER_NOT_VALID: "it does not accept the client id: check [mqtt] client_id",
    Reason.BAD_USER_NAME_OR_PASSWORD: "bad user name or password: check [mqtt] username and password",
    Reason.NOT_AUTHORIZED: "not authorised: check [mqtt] username and password, and what the broker lets this user do",
    Reason.BANNED: "this client is banned there",
    Reason.BAD_AUTHENTICATION_METHOD: "it wants another way of authentication than user and password",
    Reason.USE_ANOTHER_SERVER: "it names another server: check [mqtt] host",
    Reason.SERVER_MOVED: "it has moved: check [mqtt] host",
}
#: What OpenSSL says when another try cannot help.
_TLS_FINAL = {
    "CERTIFICATE_VERIFY_FAILED": "check [mqtt] host, tls_ca and tls_check_hostname",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "it asks for a client certificate: set [mqtt] tls_certificate and tls_key",
    "SSLV3_ALERT_HANDSHAKE_FAILURE": "it may ask for a client certificate: set [mqtt] tls_certificate and tls_key",
    "SSLV3_ALERT_BAD_CERTIFICATE": "it does not take our certificate: check [mqtt] tls_certificate",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "our certificate has expired: renew [mqtt] tls_certificate",
    "TLSV1_ALERT_UNKNOWN_CA": "it does not know who signed our certificate: check [mqtt] tls_certificate",
    "TLSV1_ALERT_PROTOCOL_VERSION": "it speaks no version of TLS that we do",
    "WRONG_VERSION_NUMBER": "it does not speak TLS on this port: check [mqtt] port and tls",
}


class VersionRefused(ConfigError):
    """The broker does not speak this version of MQTT."""


def login_error(where: str, reason: int, properties: Properties) -> ConfigError | Disconnected:
    """What to raise when CONNACK says no.

    Args:
        where: names the broker.
        reason: code of MQTT 5; or 1, "unacceptable version" of a broker that answers MQTT 5 in the form of 3.1.1.
    """
    if reason in (Reason.UNSUPPORTED_PROTOCOL_VERSION, 1):
        return VersionRefused(f"{where} does not speak this version of MQTT: check [mqtt] version")
    advice = _FINAL.get(Reason(reason)) if reason in list(Reason) else None
    if advice is None:
        return Disconnected(f"{where} is not available now: {explained(reason, properties)}")
    told = [properties[name] for name in ("reason_string", "server_reference") if name in properties]
    return ConfigError(f"{where} refuses us: {advice}" + "".join(f" ({each})" for each in told))


def tls_error(where: str, error: ssl.SSLError) -> ConfigError | Disconnected:
    """What to raise when TLS fails."""
    detail = getattr(error, "verify_message", "") or error.reason or str(error)
    advice = _TLS_FINAL.get(error.reason)
    if advice is None:
        return Disconnected(f"TLS with {where} failed: {detail}")
    return ConfigError(f"TLS with {where} failed: {detail}; {advice}")


def explained(reason: int, properties: Properties) -> str:
    """A reason code in words, with what the broker says about it."""
    name = Reason(reason).name.lower().replace("_", " ") if reason in list(Reason) else f"reason {reason:#04x}"
    return f"{name}: {properties['reason_string']}" if "reason_string" in properties else name
