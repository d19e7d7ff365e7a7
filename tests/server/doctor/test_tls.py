"""Certificates of every age and name; the microphone's rule."""

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from server.config import ServerConfig
from server.doctor.finding import Outcome
from server.doctor.tls import check_microphone, check_tls

NOW = datetime(2030, 1, 1, tzinfo=UTC)
KEY = "vv_0123456789abcdef"


@pytest.fixture
def certified(tmp_path: Path):
    """A configuration with a certificate for `names`, valid from so many days ago for so many more."""

    def make(*names: str, since: int = 10, days: int = 60, issuer: str = "an authority", **settings: object) -> ServerConfig:
        key = ec.generate_private_key(ec.SECP256R1())
        alternatives = [x509.IPAddress(ipaddress.ip_address(name)) if name[0].isdigit() else x509.DNSName(name) for name in names]
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "server")]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
            .public_key(key.public_key())
            .serial_number(1)
            .not_valid_before(NOW - timedelta(days=since))
            .not_valid_after(NOW + timedelta(days=days, hours=1))
        )
        if alternatives:
            builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        certificate = builder.sign(key, hashes.SHA256())
        (tmp_path / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        private = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        (tmp_path / "key.pem").write_bytes(key.private_bytes(*private))
        return ServerConfig(tls_cert=tmp_path / "cert.pem", tls_key=tmp_path / "key.pem", **settings)

    return make


def found(config: ServerConfig, outcome: Outcome) -> str:
    return "; ".join(finding.found for finding in check_tls(config, NOW) if finding.outcome is outcome)


def test_a_certificate_in_order(certified) -> None:
    config = certified("voice.example.org", "*.example.net", host="voice.example.org", api_keys=(KEY,))
    assert {finding.outcome for finding in check_tls(config, NOW)} == {Outcome.PASS}
    assert "valid for 60 more days" in found(config, Outcome.PASS)


@pytest.mark.parametrize(
    ("since", "days", "outcome", "words"),
    [
        (10, 5, Outcome.WARN, "ends in 5 days"),
        (10, -2, Outcome.FAIL, "ended on 2029-12-30"),
        (-3, 60, Outcome.FAIL, "valid only from 2030-01-04"),
    ],
)
def test_its_time(certified, since, days, outcome, words) -> None:
    assert words in found(certified("example.org", since=since, days=days), outcome)


@pytest.mark.parametrize(
    ("names", "public", "outcome"),
    [
        (("voice.example.org",), ("voice.example.org",), Outcome.PASS),
        (("*.example.org",), ("Voice.Example.org",), Outcome.PASS),
        (("*.example.org",), ("example.org",), Outcome.FAIL),
        (("*.example.org",), ("a.b.example.org",), Outcome.FAIL),
        (("203.0.113.7",), ("203.0.113.7",), Outcome.PASS),
        (("voice.example.org",), ("203.0.113.7",), Outcome.FAIL),
        (("voice.example.org",), ("voice.example.org", "203.0.113.7"), Outcome.PASS),
        (("voice.example.org",), ("voice.example.org", "other.example.org"), Outcome.WARN),
    ],
)
def test_its_names(certified, names, public, outcome) -> None:
    outcomes = [finding.outcome for finding in check_tls(certified(*names, public_addresses=public), NOW)]
    assert outcomes[1] is outcome


def test_one_without_names_is_none(certified) -> None:
    assert "names no host" in found(certified(), Outcome.FAIL)


def test_one_that_signs_itself_is_warned_of(certified) -> None:
    assert "signed by itself" in found(certified("example.org", issuer="server"), Outcome.WARN)


def test_what_is_no_certificate(certified, tmp_path) -> None:
    config = certified("example.org")
    (tmp_path / "other.pem").write_bytes((tmp_path / "key.pem").read_bytes())
    certified("example.org")  # another key
    mixed = ServerConfig(tls_cert=tmp_path / "cert.pem", tls_key=tmp_path / "other.pem")
    assert "is not the key of" in found(mixed, Outcome.FAIL)
    (tmp_path / "cert.pem").write_text("nonsense")
    assert "can't be used" in found(config, Outcome.FAIL)
    (tmp_path / "cert.pem").unlink()
    assert "No such file" in found(config, Outcome.FAIL)


def test_without_tls_there_is_nothing_to_say() -> None:
    assert check_tls(ServerConfig(), NOW) == []


def test_the_microphone_is_given_over_https_and_on_localhost(certified) -> None:
    assert [finding.outcome for finding in check_microphone(ServerConfig())] == [Outcome.PASS]
    assert [finding.outcome for finding in check_microphone(certified("example.org", host="0.0.0.0", api_keys=(KEY,)))] == [Outcome.PASS]
    (plain,) = check_microphone(ServerConfig(host="0.0.0.0", api_keys=(KEY,)))
    assert plain.outcome is Outcome.WARN
    assert "HTTPS" in plain.found
