"""The server's settings: flags, then `VIVAVOCE_*` environment variables, then a TOML file, then the defaults below.

An unknown key is an error wherever it stands. API keys are secrets: they are in no message, log or `repr`. What may be asked of the server
once it runs is in `server.limits`; where weights lie (`VIVAVOCE_CACHE`, `VIVAVOCE_MODELS`) is `streaming.bundle`'s.
"""

import difflib
import os
import re
import secrets
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from server.auth import is_loopback_host
from server.limits import Limits
from server.webrtc.ice import IceOptions, parse_ports
from streaming.manifest import Hears, Manifest

__all__ = ["ConfigError", "ServerConfig", "load_config", "new_api_key", "read_key"]

_PREFIX: Final = "VIVAVOCE_"
_OTHER_VARIABLES: Final = ("VIVAVOCE_CACHE", "VIVAVOCE_MODELS", "VIVAVOCE_CONFIG", "VIVAVOCE_SHARED_DATA")
_OTHER_PREFIXES: Final = ("VIVAVOCE_TALK_", "VIVAVOCE_TEST_", "VIVAVOCE_REQUIRE_")
"""Variables that are ours but no settings of the server: weights, the command line, the test suite."""
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""RFC 7230 section 3.2.6: what fits both a header and a WebSocket subprotocol, where a browser has to put its key."""
_MIN_KEY_LENGTH: Final = 16
"""Shorter keys can be guessed."""


class ConfigError(Exception):
    """The settings are wrong; the message is one line that says which and what to do."""


class ServerConfig(BaseSettings):
    """Everything `vivavoce serve` can be told. Immutable, checked when made."""

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True, hide_input_in_errors=True, validate_default=True
    )

    host: str = "127.0.0.1"
    """Address to listen on. Anything that is not this machine itself needs API keys."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8765
    """The port of WebSocket examples everywhere, rarely taken, unlike 8000 and 8080; 0 takes any free one."""
    bundle: str = "pocket"
    """A bundle's name, or the path of a manifest."""
    api_keys: Annotated[tuple[SecretStr, ...], NoDecode] = ()
    """Keys of which a client must present one. In the environment separated by commas."""
    api_keys_file: Path | None = None
    """A file with further keys, one a line; lines that begin with `#` are comments."""
    allowed_origins: Annotated[tuple[str, ...], NoDecode] = ()
    """Web origins (`https://example.org`) whose pages may use the server, besides its own; `*` allows all."""
    tls_cert: Path | None = None
    """Certificate chain in PEM; with `tls_key` the server speaks HTTPS and WSS."""
    tls_key: Path | None = None
    """Private key of the certificate, in PEM."""
    threads: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Threads the models may use; by default one for every core."""
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d{1,3})?)$")] | None = None
    """Where the recogniser and the language model run: cpu, cuda, cuda:1, or auto, a GPU where there is one with room. By default what the
    bundle says, which is cpu for those that need no GPU."""
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """The numbers they are held in: by default bfloat16, or what the device has arithmetic for, and on a CPU packed where that is
    faster."""
    voice_device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the voice runs: by default on the GPU of the large models where onnxruntime can use it and speaks faster there."""
    hears: Hears | None = None
    """What the language model is told of a caller's turn: words, sound, or both. By default what the bundle says."""
    echo_cancellation: bool = False
    """Whether sessions over WebSocket begin with our own voice taken out of the caller's sound. For clients with a loudspeaker and no echo
    cancellation of their own; needs the extra `echo`."""
    record: Path | None = None
    """Folder to write a replayable log of every session to. Contains what callers said: off by default."""
    chat_url: str | None = None
    """Base address of an OpenAI-compatible chat endpoint that is the language model, up to and with its `/v1`."""
    chat_model: str | None = None
    """The model's name there."""
    chat_key: SecretStr | None = None
    """The key to it. No flag, as others could see it in `ps`."""
    chat_key_file: Path | None = None
    """A file with the key to it, in its first line."""
    chat_speculates: bool | None = None
    """Whether an answer is asked for at every pause that may end the turn, which costs its tokens; by default where the endpoint is in
    this machine or a private network."""
    upstream: Literal["openai-realtime", "gemini-live"] | None = None
    """A whole realtime service that answers, in speech of its own."""
    upstream_url: str | None = None
    """Its address; by default the hosted service's."""
    upstream_model: str | None = None
    """The model's name there."""
    upstream_voice: str = ""
    """The voice's name there; the service's own choice where none is given."""
    upstream_key: SecretStr | None = None
    """The key to it. No flag, as others could see it in `ps`."""
    upstream_key_file: Path | None = None
    """A file with the key to it, in its first line."""
    public_addresses: Annotated[tuple[str, ...], NoDecode] = ()
    """Addresses or names under which this machine is reached from outside: WebRTC calls are told of them."""
    udp_ports: str | None = None
    """The UDP ports of WebRTC calls, the first and the last: `40000-40100`; by default any that are free."""
    stun_servers: Annotated[tuple[str, ...], NoDecode] = ()
    """STUN servers, `stun:HOST:PORT`, for this server and the browsers that call it."""
    turn_servers: Annotated[tuple[str, ...], NoDecode] = ()
    """TURN servers, `turn:HOST:PORT?transport=udp` or `turns:HOST:PORT`, for both too."""
    turn_username: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.@-]{1,64}$")] = "vivavoce"
    """The user there."""
    turn_password: SecretStr | None = None
    """The user's lasting password, which every browser that may call is told. No flag, as others could see it in `ps`."""
    turn_password_file: Path | None = None
    """A file with it, in its first line."""
    turn_secret: SecretStr | None = None
    """Or the secret shared with the TURN servers (coturn's `static-auth-secret`), of which credentials are made that expire. No flag."""
    turn_secret_file: Path | None = None
    """A file with it, in its first line."""
    turn_seconds: Annotated[int, Field(ge=60, le=86_400)] = 3_600
    """How long such credentials last: a session's life."""
    relay_only: bool = False
    """Whether calls reach this server through a TURN server only: it tells nobody its own addresses."""
    drain_seconds: Annotated[float, Field(ge=0)] = 10.0
    """What a running reply gets to finish when the server is told to stop."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """How much to say on stderr."""
    limits: Limits = Limits()
    """What one client may ask of the server."""

    @field_validator("api_keys", "allowed_origins", "public_addresses", "stun_servers", "turn_servers", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value

    @field_validator("api_keys")
    @classmethod
    def _check_keys(cls, keys: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        for number, key in enumerate(keys, 1):
            if (problem := _key_problem(key.get_secret_value())) is not None:
                raise ValueError(f"key {number} {problem}; make one with `vivavoce keys new`")
        return keys

    @field_validator("allowed_origins")
    @classmethod
    def _check_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            parts = urlsplit(origin)
            if origin != "*" and (parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/") or parts.query):
                raise ValueError(f"{origin!r} is not an origin: write scheme, host and port only, like https://example.org:8443")
        # As browsers send them.
        return tuple(origin.rstrip("/").lower() for origin in origins)

    @field_validator("chat_url", "upstream_url")
    @classmethod
    def _check_address(cls, url: str | None, info: ValidationInfo) -> str | None:
        if url is None:
            return None
        parts = urlsplit(url)
        schemes = ("http", "https") if info.field_name == "chat_url" else ("http", "https", "ws", "wss")
        if parts.scheme not in schemes or not parts.hostname or parts.query or parts.fragment:
            raise ValueError("write scheme, host and path, like http://localhost:11434/v1")
        if parts.username is not None:
            raise ValueError("a key does not belong into an address: use the variable for it, or a file")
        return url.rstrip("/").removesuffix("/chat/completions")

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.chat_url is not None and self.chat_model is None:
            raise ValueError("a chat endpoint needs both chat_url and chat_model")
        for name in ("chat_key", "upstream_key", "turn_password", "turn_secret"):
            if getattr(self, name) is not None and getattr(self, f"{name}_file") is not None:
                raise ValueError(f"give {name} or {name}_file, not both")
        if self.upstream is not None and self.chat_model is not None:
            raise ValueError("either a chat endpoint answers or an upstream, not both")
        if self.upstream is None and (self.upstream_url is not None or self.upstream_model is not None):
            raise ValueError("upstream_url and upstream_model need upstream: openai-realtime or gemini-live")
        if self.upstream == "gemini-live" and self.upstream_model is None:
            raise ValueError("gemini-live needs upstream_model: its models come and go, take the name of a present one that speaks")
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("TLS needs both tls_cert and tls_key")
        if not is_loopback_host(self.host) and not self.api_keys and self.api_keys_file is None:
            message = f"{self.host} can be reached from outside, so an API key is needed: make one with `vivavoce keys new` and pass it"
            raise ValueError(f"{message} with --api-key or VIVAVOCE_API_KEYS, or serve on 127.0.0.1")
        return self

    @model_validator(mode="after")
    def _check_ice(self) -> Self:
        given = [name for name in ("turn_password", "turn_secret") if getattr(self, name) or getattr(self, f"{name}_file")]
        if len(given) > 1:
            raise ValueError("give turn_password or turn_secret, not both")
        if bool(given) != bool(self.turn_servers):
            raise ValueError("turn_servers need turn_secret (credentials that expire) or turn_password, and these need turn_servers")
        _ice(self, "", "")
        return self

    @property
    def ice(self) -> IceOptions:
        """How WebRTC calls reach this server. Raises ConfigError where a secret can't be read."""
        return _ice(self, read_key(self.turn_password, self.turn_password_file), read_key(self.turn_secret, self.turn_secret_file))

    def on(self, manifest: Manifest) -> Self:
        """These settings, and the bundle's where nobody has set one. Raises ConfigError where something is missing then."""
        update: dict[str, object] = {"device": self.device or manifest.device}
        chat = manifest.chat
        if chat is None and self.chat_model is not None and self.chat_url is None:
            raise ConfigError("a chat endpoint needs both chat_url and chat_model")
        if chat is not None and self.chat_url is None and self.upstream is None:
            model = self.chat_model or chat.model
            if chat.keyed and self.chat_key is None and self.chat_key_file is None:
                asked = f"the bundle {manifest.name} asks {model} at {chat.url}, which needs a key: give it in VIVAVOCE_CHAT_KEY"
                raise ConfigError(f"{asked} or --chat-key-file, or name another endpoint with --chat-url and --chat-model")
            update |= {"chat_url": chat.url, "chat_model": model}
        if self.hears in ("sound", "both") and (self.upstream or self.chat_url or "chat_url" in update):
            raise ConfigError("hears is for a language model that runs here: leave it out where a chat endpoint or a service answers")
        return self.model_copy(update=update)

    @property
    def plain_keys(self) -> tuple[str, ...]:
        """The API keys in clear, for the access check only."""
        return tuple(key.get_secret_value() for key in self.api_keys)


def load_config(flags: Mapping[str, object], file: Path | None = None) -> ServerConfig:
    """The settings from `flags` (names of `ServerConfig`, only those given), the environment and a TOML file. Keys of `api_keys_file`
    are among `api_keys`. Raises ConfigError."""
    _check_file(file)
    _refuse_unknown_variables()

    class Layered(ServerConfig):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 (the library names them)
            file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, toml_file=file)

    try:
        config = Layered.model_validate(dict(flags))
    except ValidationError as error:
        raise ConfigError(_one_line(error)) from None
    if config.api_keys_file is None:
        return config
    return config.model_copy(update={"api_keys": (*config.api_keys, *_keys_of(config.api_keys_file))})


def new_api_key() -> str:
    """A key nobody can guess: 256 random bits after `vv_`, in characters that fit a header and a WebSocket subprotocol."""
    return "vv_" + secrets.token_urlsafe(32)


def read_key(key: SecretStr | None, file: Path | None) -> str:
    """A key to something elsewhere, in clear; "" for none. Raises ConfigError."""
    if key is None and file is None:
        return ""
    text, place = "" if key is None else key.get_secret_value().strip(), "the key's variable"
    if file is not None:
        place = str(file)
        try:
            text = file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"cannot read the key in {file}: {getattr(error, 'strerror', None) or 'it is not UTF-8 text'}") from error
    if not text or not text.isascii() or not text.isprintable() or " " in text:
        raise ConfigError(f"{place} should hold one key and nothing else")
    return text


def _ice(config: ServerConfig, password: str, secret: str) -> IceOptions:
    """Raises ValueError."""
    return IceOptions(
        config.public_addresses,
        None if config.udp_ports is None else parse_ports(config.udp_ports),
        config.stun_servers,
        config.turn_servers,
        config.turn_username,
        password,
        secret,
        config.turn_seconds,
        config.relay_only,
    )


def _key_problem(key: str) -> str | None:
    if len(key) < _MIN_KEY_LENGTH:
        return f"is shorter than {_MIN_KEY_LENGTH} characters"
    return None if _TOKEN.fullmatch(key) else "has characters other than letters, digits and !#$%&'*+-.^_`|~"


def _keys_of(path: Path) -> tuple[SecretStr, ...]:
    """The keys of a file. Raises ConfigError where it can't be read, has none, or one is bad."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the API keys in {path}: {getattr(error, 'strerror', None) or 'it is not UTF-8 text'}") from error
    keys = []
    for number, line in enumerate(lines, 1):
        key = line.strip()
        if key and not key.startswith("#"):
            if (problem := _key_problem(key)) is not None:
                raise ConfigError(f"the key in line {number} of {path} {problem}; make one with `vivavoce keys new`")
            keys.append(SecretStr(key))
    if not keys:
        raise ConfigError(f"{path} holds no API key: add one with `vivavoce keys new >> {path}`")
    return tuple(keys)


def _check_file(file: Path | None) -> None:
    """The library would pass over a missing file in silence, and not say which one it can't parse."""
    try:
        if file is not None:
            tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"there is no configuration file {file}") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file} is not valid TOML: {error}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {file}: {getattr(error, 'strerror', None) or 'it is not UTF-8 text'}") from error


def _refuse_unknown_variables() -> None:
    """A misspelt variable would be ignored, and a server without its keys is no small matter."""
    known = {f"{_PREFIX}{name.upper()}" for name in ServerConfig.model_fields}
    for name in sorted(os.environ):
        if not name.upper().startswith(_PREFIX) or name in _OTHER_VARIABLES or name.startswith(_OTHER_PREFIXES):
            continue
        if name.upper() not in known and not name.upper().startswith(f"{_PREFIX}LIMITS__"):
            raise ConfigError(f"the environment variable {name} means nothing here{_hint(name, known)}")


def _one_line(error: ValidationError) -> str:
    """The first mistake, by the name of its setting and without its value."""
    first = error.errors(include_input=False, include_url=False)[0]
    where = ".".join(str(step) for step in first["loc"])
    if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        known = Limits.__dataclass_fields__ if where.startswith("limits.") else ServerConfig.model_fields
        return f"there is no setting {where}{_hint(where.removeprefix('limits.'), known)}"
    message = first["msg"].removeprefix("Value error, ")
    return f"the setting {where} is wrong: {message}" if where else message


def _hint(name: str, known: Mapping[str, object] | set[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f": did you mean {near[0]}?" if near else ": see docs/operations.md for those there are"
