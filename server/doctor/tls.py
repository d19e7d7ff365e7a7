"""Looks at the certificate, and whether browsers will give the microphone."""

import ipaddress
import ssl
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

from cryptography import x509

from server.auth import is_loopback_host
from server.config import ServerConfig
from server.doctor.finding import Finding, failed, passed, warned

__all__ = ["check_microphone", "check_tls"]

_SOON_DAYS: Final = 14
"""Let's Encrypt's clients renew 30 days before the end; with half of that gone something has stopped doing so."""
_ANY: Final = ("0.0.0.0", "::", "")


def check_tls(config: ServerConfig, now: datetime) -> list[Finding]:
    """The certificate, where there is one: its key, its time, its names."""
    if config.tls_cert is None or config.tls_key is None:
        return []
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(config.tls_cert, config.tls_key)
        certificate = x509.load_pem_x509_certificates(config.tls_cert.read_bytes())[0]
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        return [_unreadable(config.tls_cert, config.tls_key, error)]
    return [_time(certificate, now), _names(certificate, _expected(config)), *_signed(certificate)]


def _unreadable(certificate: Path, key: Path, error: Exception) -> Finding:
    if isinstance(error, ssl.SSLError) and error.reason == "KEY_VALUES_MISMATCH":
        return failed("TLS", f"{key} is not the key of {certificate}", "give the two files of one certificate")
    told = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return failed(
        "TLS", f"the certificate {certificate} and its key {key} can't be used: {told}", "both are PEM files that the server may read"
    )


def _time(certificate: x509.Certificate, now: datetime) -> Finding:
    end = certificate.not_valid_after_utc
    if now < certificate.not_valid_before_utc:
        told = f"the certificate is valid only from {certificate.not_valid_before_utc:%Y-%m-%d} on"
        return failed("TLS", told, "is the clock of this machine right?")
    days = (end - now).days
    if now >= end:
        return failed("TLS", f"the certificate ended on {end:%Y-%m-%d}", "renew it")
    if days < _SOON_DAYS:
        return warned("TLS", f"the certificate ends in {days} days, on {end:%Y-%m-%d}", "renew it; the server reads it when it starts")
    return passed("TLS", f"the certificate is valid for {days} more days, until {end:%Y-%m-%d}")


def _expected(config: ServerConfig) -> list[str]:
    """Names and addresses under which the configuration says that clients come."""
    own = [] if config.host in _ANY or is_loopback_host(config.host) else [config.host]
    return list(dict.fromkeys([*own, *config.public_addresses]))


def _names(certificate: x509.Certificate, expected: Sequence[str]) -> Finding:
    try:
        named = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return failed("TLS", "the certificate names no host that browsers look at (subjectAltName)", "make one that does")
    names = named.get_values_for_type(x509.DNSName)
    addresses = [str(address) for address in named.get_values_for_type(x509.IPAddress)]
    told = f"it is for {', '.join([*names, *addresses])}"
    missing = [host for host in expected if not _covers(host, names, addresses)]
    if expected and len(missing) == len(expected):
        return failed(
            "TLS", f"{told}, not for {', '.join(missing)}", "open the server under a name of the certificate, or get one for its name"
        )
    if any("." in host and not _is_address(host) for host in missing):
        return warned("TLS", f"{told}, not for {', '.join(missing)}", "open the server under a name of the certificate")
    return passed("TLS", told)


def _covers(host: str, names: Sequence[str], addresses: Sequence[str]) -> bool:
    """RFC 9525 section 6.3: a `*` stands for one whole first label."""
    if _is_address(host):
        return str(ipaddress.ip_address(host)) in addresses
    wanted = host.lower().rstrip(".")
    return any(name.lower() == wanted or (name.startswith("*.") and name[2:].lower() == wanted.partition(".")[2]) for name in names)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _signed(certificate: x509.Certificate) -> list[Finding]:
    if certificate.issuer != certificate.subject:
        return []
    return [warned("TLS", "the certificate is signed by itself", "browsers warn of it: get one from an authority, or let them trust it")]


def check_microphone(config: ServerConfig) -> list[Finding]:
    """Browsers' rule: a page gets the microphone over HTTPS and on localhost only."""
    if config.tls_cert is not None:
        return [passed("microphone", "the page is served over HTTPS: browsers give it the microphone")]
    if is_loopback_host(config.host):
        return [passed("microphone", "pages on localhost get it; from elsewhere only through a proxy with HTTPS")]
    advice = "give --tls-cert and --tls-key, or put a proxy that speaks HTTPS in front"
    return [warned("microphone", f"the page at http://{config.host} gets no microphone: browsers want HTTPS outside localhost", advice)]
