"""Settings: which source wins, what is refused, what is never shown."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

from server.config import ConfigError, ServerConfig, load_config, new_api_key
from server.limits import Limits

KEY = "vv_0123456789abcdef"
OTHER = "vv_fedcba9876543210"


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("VIVAVOCE_"):
            monkeypatch.delenv(name)


@pytest.fixture
def toml(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        path = tmp_path / "vivavoce.toml"
        path.write_text(text)
        return path

    return write


def refusal(flags: dict[str, object], file: Path | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(flags, file)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_defaults_are_this_machine_only() -> None:
    config = load_config({})
    assert (config.host, config.port, config.bundle, config.api_keys, config.limits) == ("127.0.0.1", 8765, "pocket", (), Limits())


def test_flags_win_over_environment_over_file(toml: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    file = toml('host = "::1"\nport = 1\nbundle = "from-file"\ndrain_seconds = 3\n[limits]\nmax_sessions = 3\nmax_items = 5\n')
    monkeypatch.setenv("VIVAVOCE_PORT", "2")
    monkeypatch.setenv("VIVAVOCE_BUNDLE", "from-environment")
    monkeypatch.setenv("VIVAVOCE_LIMITS__MAX_ITEMS", "7")
    config = load_config({"bundle": "from-flag"}, file)
    assert (config.host, config.port, config.bundle, config.drain_seconds) == ("::1", 2, "from-flag", 3.0)
    assert config.limits == Limits(max_sessions=3, max_items=7)


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        load_config({}).port = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("prot = 1", "there is no setting prot: did you mean port?"),
        ("[limits]\nmax_session = 1", "there is no setting limits.max_session: did you mean max_sessions?"),
        ("[limits]\nmax_sessions = 0", "the limit max_sessions must be above 0"),
        ("port = 70000", "the setting port is wrong"),
        ('log_level = "loud"', "the setting log_level is wrong"),
        ('tls_cert = "cert.pem"', "TLS needs both tls_cert and tls_key"),
        ('allowed_origins = ["https://example.org/page"]', "is not an origin"),
        ("threads = 0", "the setting threads is wrong"),
        ('device = "gpu"', "the setting device is wrong"),
        ('voice_device = "cuda:1"', "the setting voice_device is wrong: Input should be 'auto', 'cpu' or 'cuda'"),
        ('dtype = "int8"', "the setting dtype is wrong: Input should be 'auto', 'bfloat16', 'float16' or 'float32'"),
        ("port = ", "is not valid TOML"),
        ('udp_ports = "40000"', "is no range of UDP ports: write the first and the last"),
        ('public_addresses = ["example.org:1"]', "neither an IP address nor a name"),
        ('stun_servers = ["stun.example.org"]', "is no address of a STUN or TURN server"),
        ('turn_servers = ["turn:turn.example.org"]', "turn_servers need turn_secret (credentials that expire) or turn_password"),
        ('turn_secret = "shared"', "and these need turn_servers"),
        ('turn_servers = ["turn:t"]\nturn_secret = "a"\nturn_password = "b"', "give turn_password or turn_secret, not both"),
        ('turn_servers = ["turn:t"]\nturn_secret = "a"\nturn_secret_file = "b"', "give turn_secret or turn_secret_file, not both"),
        ("relay_only = true", "relay_only needs turn_servers"),
    ],
)
def test_a_bad_file_is_refused_in_one_line(toml: Callable[[str], Path], text: str, complaint: str) -> None:
    assert complaint in refusal({}, toml(text))


def test_origins_are_kept_as_browsers_send_them() -> None:
    assert load_config({"allowed_origins": "https://Example.org:8443/, *"}).allowed_origins == ("https://example.org:8443", "*")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert "there is no configuration file" in refusal({}, tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("name", "complaint"),
    [("VIVAVOCE_API_KEY", "did you mean VIVAVOCE_API_KEYS?"), ("VIVAVOCE_LIMITS__MAX_ITEM", "did you mean max_items?")],
)
def test_a_misspelt_variable_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, complaint: str) -> None:
    monkeypatch.setenv(name, "5")
    assert complaint in refusal({})


def test_a_variable_that_cannot_be_read_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIVAVOCE_LIMITS", "{")
    assert "limits" in refusal({})


def test_variables_of_others_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("VIVAVOCE_CACHE", "VIVAVOCE_MODELS", "VIVAVOCE_CONFIG", "VIVAVOCE_TALK_API_KEY", "VIVAVOCE_REQUIRE_MODELS"):
        monkeypatch.setenv(name, "1")
    assert load_config({}).port == 8765


# ---------------------------------------------------------------------------------------------------------------- keys


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.4", "example.org"])
def test_a_public_host_needs_a_key(host: str) -> None:
    complaint = refusal({"host": host})
    assert "vivavoce keys new" in complaint
    assert host in complaint
    assert load_config({"host": host, "api_keys": [KEY]}).plain_keys == (KEY,)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_this_machine_needs_none(host: str) -> None:
    assert load_config({"host": host}).api_keys == ()


def test_keys_come_from_a_file_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "keys.txt"
    path.write_text(f"# of the telephone\n{OTHER}\n\n")
    monkeypatch.setenv("VIVAVOCE_API_KEYS", f" {KEY} ,")
    assert load_config({"host": "0.0.0.0", "api_keys_file": path}).plain_keys == (KEY, OTHER)


@pytest.mark.parametrize(
    ("content", "complaint"), [("# none\n", "holds no API key"), ("short\n", "line 1"), (None, "cannot read the API keys")]
)
def test_a_bad_key_file_opens_nothing(tmp_path: Path, content: str | None, complaint: str) -> None:
    path = tmp_path / "keys.txt"
    if content is not None:
        path.write_text(content)
    assert complaint in refusal({"host": "0.0.0.0", "api_keys_file": path})


@pytest.mark.parametrize("key", ["abc", "sixteen characters with spaces", "vv_0123456789,abcdef"])
def test_bad_keys_are_refused_without_being_shown(key: str) -> None:
    complaint = refusal({"api_keys": [key]})
    assert "key 1" in complaint
    assert key not in complaint


def test_keys_are_never_shown() -> None:
    config = load_config({"api_keys": [KEY]})
    for shown in (repr(config), str(config), config.model_dump_json()):
        assert KEY not in shown
    with pytest.raises(ValidationError) as caught:
        ServerConfig(api_keys=(KEY,), port="x")  # type: ignore[arg-type]
    assert KEY not in str(caught.value)


def test_new_keys_fit_a_header_and_a_subprotocol() -> None:
    made = {new_api_key() for _ in range(100)}
    assert len(made) == 100
    assert all(re.fullmatch(r"vv_[A-Za-z0-9_-]{43}", key) for key in made)
    assert load_config({"api_keys": sorted(made)}).plain_keys == tuple(sorted(made))


# ------------------------------------------------------------------------------------------------------ the way to it


def test_the_way_to_it_is_read_from_every_source(toml: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    secret = tmp_path / "turn.txt"
    secret.write_text("shared-secret\n")
    monkeypatch.setenv("VIVAVOCE_STUN_SERVERS", "stun:a.example.org, stun:b.example.org:3479")
    file = toml('udp_ports = "40000-40100"\nturn_servers = ["turns:turn.example.org"]\nturn_seconds = 600\nrelay_only = true\n')
    ice = load_config({"public_addresses": ["203.0.113.7", "2001:db8::7"], "turn_secret_file": secret}, file).ice
    assert (ice.public_addresses, ice.ports) == (("203.0.113.7", "2001:db8::7"), (40_000, 40_100))
    assert ice.stun_servers == ("stun:a.example.org", "stun:b.example.org:3479")
    assert (ice.turn_servers, ice.turn_secret) == (("turns:turn.example.org",), "shared-secret")
    assert (ice.turn_seconds, ice.relay_only) == (600, True)


def test_secrets_of_turn_servers_are_never_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VIVAVOCE_TURN_SECRET", "shared-secret")
    config = load_config({"turn_servers": ["turn:turn.example.org"]})
    for shown in (repr(config), str(config), config.model_dump_json(), repr(config.ice)):
        assert "shared-secret" not in shown
    empty = tmp_path / "empty.txt"
    empty.write_text("")
    monkeypatch.delenv("VIVAVOCE_TURN_SECRET")
    with pytest.raises(ConfigError, match="should hold one key and nothing else"):
        load_config({"turn_servers": ["turn:turn.example.org"], "turn_secret_file": empty}).ice  # noqa: B018
