"""`vivavoce`: the command line. Each command imports what it needs when it runs, so that `--help` is quick.

A mistake a person can make ends in one line on stderr that says what to do: exit code 2 where the command was wrong, 1 where the
world was (a port in use, a full disk, a download that failed).
"""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from server.bench.commands import bench
from server.cli_options import (
    BundleOption,
    ConfigOption,
    DeviceOption,
    DtypeOption,
    HostOption,
    KeyOption,
    KeysFileOption,
    PortOption,
    PublicAddressOption,
    RelayOnlyOption,
    StunServerOption,
    TlsCertOption,
    TlsKeyOption,
    TurnSecretOption,
    TurnServerOption,
    UdpPortsOption,
)
from server.eval.commands import evaluate

if TYPE_CHECKING:
    from server.agents.agent import Agent
    from server.config import ServerConfig
    from streaming.bundle import Bundle
    from streaming.manifest import Manifest

__all__ = ["app", "bundles", "doctor", "keys", "main", "new_key", "pull", "replay", "serve", "talk"]

_DEFAULT_URL: Final = "ws://127.0.0.1:8765/v1/realtime"
_INTERRUPTED: Final = 130
"""What a shell expects of a program ended by SIGINT: 128 and the signal's number."""

_NO_SETTINGS: Final = ("agent", "config", "as_json")
"""Flags of `serve` and `doctor` that are none."""

app = typer.Typer(
    name="vivavoce",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
keys = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown", help="API keys of this server.")
app.add_typer(keys, name="keys")
app.add_typer(bench, name="bench")
app.add_typer(evaluate, name="eval")


@app.callback()
def _about() -> None:
    """A self-hosted server for real-time spoken dialogue. It hears, thinks and answers in speech, offline.

    To begin: `vivavoce serve`, then open the address it prints, or, in a second terminal, `vivavoce talk QUESTION.wav`.
    Any client of the OpenAI Realtime protocol works too: point it at `ws://127.0.0.1:8765/v1/realtime`.
    """


@app.command()
def serve(
    agent: Annotated[
        str | None, typer.Argument(metavar="[FILE.py:AGENT|FILE.toml]", help="Who answers. [default: what each client says]")
    ] = None,
    host: HostOption = None,
    port: PortOption = None,
    bundle: BundleOption = None,
    config: ConfigOption = None,
    tls_cert: TlsCertOption = None,
    tls_key: TlsKeyOption = None,
    api_key: KeyOption = None,
    api_keys_file: KeysFileOption = None,
    threads: Annotated[int | None, typer.Option(help="Threads of the recogniser and the language model. [default: half the cores]")] = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    voice_device: Annotated[
        str | None, typer.Option(metavar="auto|cpu|cuda", help="Where the voice runs. [default: where it is faster]")
    ] = None,
    hears: Annotated[
        str | None,
        typer.Option(
            metavar="words|sound|both",
            help="What the language model is told of a caller's turn: its words, rows made of its sound, or the one behind the other. "
            "[default: the bundle's]",
        ),
    ] = None,
    record: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Keep a log of every session here, for `vivavoce replay`. It holds what is said."),
    ] = None,
    chat_url: Annotated[
        str | None, typer.Option(metavar="URL", help="An OpenAI-compatible chat endpoint as the language model, with its `/v1`.")
    ] = None,
    chat_model: Annotated[str | None, typer.Option(metavar="NAME", help="The model there.")] = None,
    chat_key_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The key to it; or else `VIVAVOCE_CHAT_KEY`, if it needs one.")
    ] = None,
    upstream: Annotated[
        str | None, typer.Option(metavar="SERVICE", help="A realtime service that answers: openai-realtime or gemini-live.")
    ] = None,
    upstream_url: Annotated[str | None, typer.Option(metavar="URL", help="Its address. [default: the hosted service's]")] = None,
    upstream_model: Annotated[str | None, typer.Option(metavar="NAME", help="The model there.")] = None,
    upstream_key_file: Annotated[Path | None, typer.Option(metavar="FILE", help="The key to it; or else `VIVAVOCE_UPSTREAM_KEY`.")] = None,
    public_address: PublicAddressOption = None,
    udp_ports: UdpPortsOption = None,
    stun_server: StunServerOption = None,
    turn_server: TurnServerOption = None,
    turn_secret_file: TurnSecretOption = None,
    relay_only: RelayOnlyOption = None,
) -> None:
    """Serve until Ctrl-C. Fetches the bundle if it is not here yet; prints `vivavoce ready on ...` once the models are warm.

    Settings come from these flags, then from `VIVAVOCE_*` variables (`VIVAVOCE_PORT=9000`), then from the `--config` file; all of
    them are in `docs/operations.md`.

    Examples:

        vivavoce serve
        vivavoce serve my_agent.py:agent
        vivavoce serve --bundle qwen2-audio
        vivavoce serve --hears words
        vivavoce serve --port 9000 --bundle my.toml
        vivavoce serve --record logs/
        vivavoce serve --chat-url http://localhost:11434/v1 --chat-model llama3.2
        vivavoce serve --public-address 203.0.113.7 --udp-ports 40000-40100
        vivavoce keys new > keys.txt
        vivavoce serve --host 0.0.0.0 --api-keys-file keys.txt --tls-cert cert.pem --tls-key key.pem
    """
    given = _settings(locals())
    with _one_line():
        from server.config import load_config

        settings = load_config(given, config)
        answering = _agent(agent)
        manifest = _manifest(settings.bundle)
        settings = settings.on(manifest)
        raise typer.Exit(_run(settings, _fetch(manifest, device=settings.device, dtype=settings.dtype), answering))


@app.command()
def doctor(
    host: HostOption = None,
    port: PortOption = None,
    bundle: BundleOption = None,
    config: ConfigOption = None,
    tls_cert: TlsCertOption = None,
    tls_key: TlsKeyOption = None,
    api_key: KeyOption = None,
    api_keys_file: KeysFileOption = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    public_address: PublicAddressOption = None,
    udp_ports: UdpPortsOption = None,
    stun_server: StunServerOption = None,
    turn_server: TurnServerOption = None,
    turn_secret_file: TurnSecretOption = None,
    relay_only: RelayOnlyOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Test what `vivavoce serve` with the same settings needs, and say what to do about what does not work; then the exit code is 1.

    Ports, a packet to itself, the public address as STUN servers see it, a packet through each TURN server, the certificate, browsers'
    rule for the microphone, the processor, the models and room for them. Nothing is fetched or changed.

    Examples:

        vivavoce doctor
        vivavoce doctor --config vivavoce.toml --json
        vivavoce doctor --public-address home.example.org --udp-ports 40000-40100 --stun-server stun:stun.example.org
    """
    given = _settings(locals())
    with _one_line():
        from server.config import load_config
        from server.doctor.command import run_doctor

        settings = load_config(given, config)
        manifest = _manifest(settings.bundle)
        raise typer.Exit(run_doctor(settings.on(manifest), manifest, as_json=as_json))


@app.command()
def pull(
    bundle: Annotated[str, typer.Argument(metavar="[NAME|FILE]", help="The bundle's name, or the path of a manifest.")] = "pocket",
    verify: Annotated[bool, typer.Option("--verify", help="Hash every file again; what is damaged is fetched again.")] = False,
    hub: Annotated[
        bool, typer.Option("--hub", help="Try the Hugging Face hub first; else it is asked only for what is nowhere else.")
    ] = False,
) -> None:
    """Fetch a bundle's models into the cache, checked against the hashes in its manifest. What is here already is kept.

    Examples:

        vivavoce pull
        vivavoce pull pocket --verify
        VIVAVOCE_CACHE=/data/vivavoce vivavoce pull my.toml --hub
    """
    with _one_line():
        manifest = _manifest(bundle)
        _fetch(manifest, hub=hub, verify=verify)
        typer.echo(f"{manifest.name} is complete")


@app.command()
def bundles(
    bundle: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME|FILE]...", help="The parts of these. [default: a line for each that is shipped]")
    ] = None,
) -> None:
    """List bundles and what they take; of those named their parts, licences, sizes, languages, and what is on this machine."""
    with _one_line():
        from server.bundle_view import show_bundles, show_overview
        from streaming.bundle import default_places
        from streaming.manifest import shipped_bundles

        if bundle:
            show_bundles([_manifest(name) for name in bundle], default_places())
        else:
            show_overview([_manifest(name) for name in shipped_bundles()], default_places())


@app.command()
def talk(
    questions: Annotated[list[Path], typer.Argument(metavar="QUESTION.wav...", help="Recordings, one turn each, in order.")],
    output: Annotated[Path | None, typer.Option("-o", "--output", metavar="ANSWER.wav", help="Write the spoken answers here.")] = None,
    url: Annotated[str, typer.Option(metavar="WS", help="The server's address.")] = _DEFAULT_URL,
    api_key: Annotated[
        str | None, typer.Option(envvar="VIVAVOCE_TALK_API_KEY", metavar="KEY", help="The server's key, if it has one.")
    ] = None,
) -> None:
    """Play recordings to a server at microphone pace; shows both sides of the dialogue and the latency of each turn.

    Examples:

        vivavoce talk question.wav
        vivavoce talk first.wav second.wav -o answers.wav
        vivavoce talk question.flac --url wss://example.org/v1/realtime --api-key vv_...
    """
    with _one_line():
        import asyncio

        from server.talk import talk as talk_to_server

        raise typer.Exit(asyncio.run(talk_to_server(questions, output, url, api_key)))


@app.command()
def replay(
    logs: Annotated[list[Path], typer.Argument(metavar="LOG.jsonl...", help="Logs that `vivavoce serve --record FOLDER` has kept.")],
    show: Annotated[bool, typer.Option("--show", help="Print the dialogue: when, what happened, what was ordered.")] = False,
    waterfall: Annotated[
        Path | None, typer.Option(metavar="FILE.svg", help="Draw where each turn's time went; of one log.", dir_okay=False)
    ] = None,
) -> None:
    """Tell this version's conversation what a recorded one was told, and say whether it orders the same, bit for bit.

    Nothing is served and no model is needed. Where this version orders something else, the first such event is shown with both
    sides, and the exit code is 1; so is it for a log that is damaged or breaks off.

    Examples:

        vivavoce replay logs/sess_1.jsonl
        vivavoce replay logs/sess_1.jsonl --show | less
        vivavoce replay logs/sess_1.jsonl --waterfall turns.svg
        vivavoce replay logs/*.jsonl
    """
    from rich.console import Console

    from server.replay_view import replay_logs

    if waterfall is not None and len(logs) > 1:
        _fail("a waterfall is drawn of one log: name only that", 2)
    raise typer.Exit(replay_logs(logs, waterfall, show=show, out=Console(highlight=False), errors=Console(highlight=False, stderr=True)))


@keys.command("new")
def new_key() -> None:
    """Make an API key and print it. It is stored nowhere: keep it, and give it to the server and its clients.

    Examples:

        vivavoce keys new >> keys.txt
        VIVAVOCE_API_KEYS=$(vivavoce keys new) vivavoce serve --host 0.0.0.0
    """
    from server.config import new_api_key

    typer.echo(new_api_key())


def main() -> None:
    """The program."""
    app()


def _settings(flags: Mapping[str, object]) -> dict[str, object]:
    """The flags of a command that are settings and were given, by the settings' names; what may be given again is of several."""
    several = {"api_key": "api_keys", "public_address": "public_addresses", "stun_server": "stun_servers", "turn_server": "turn_servers"}
    return {several.get(name, name): value for name, value in flags.items() if value is not None and name not in _NO_SETTINGS}


@contextmanager
def _one_line() -> Iterator[None]:
    """Turns the mistakes of people and machines into one line and an exit code; ours keep their traceback."""
    from server.agents.errors import AgentError
    from server.config import ConfigError
    from streaming.manifest import BundleError

    try:
        yield
    except (AgentError, ConfigError) as error:
        _fail(str(error), 2)
    except BundleError as error:
        _fail(str(error), 1)
    except KeyboardInterrupt:
        _fail("interrupted", _INTERRUPTED)


def _fail(message: str, code: int) -> None:
    print(f"vivavoce: {' '.join(message.split())}", file=sys.stderr)
    raise typer.Exit(code)


def _manifest(name: str) -> "Manifest":
    from streaming.manifest import load_manifest

    return load_manifest(name)


def _agent(place: str | None) -> "Agent | None":
    from server.agents.loader import load_agent

    return None if place is None else load_agent(place)


def _fetch(manifest: "Manifest", *, device: str | None = None, dtype: str = "auto", hub: bool = False, verify: bool = False) -> "Bundle":
    """The bundle on this machine, with progress on the terminal while something is fetched or hashed. What the bundle needs is told before
    anything is fetched, and nothing is where it could not run on `device` in `dtype`."""
    from server.bundle_view import show_needs, show_progress
    from streaming.bundle import default_places, ensure_bundle, missing_bytes

    places = default_places()
    if missing_bytes(manifest, places, hub=hub):
        from streaming.needs import check_room, this_machine

        machine = this_machine()
        show_needs(manifest, places, machine, dtype, hub=hub)
        if device is not None:
            check_room(manifest, machine, device, dtype)
    with show_progress() as report:
        return ensure_bundle(manifest, report, hub=hub, verify=verify)


def _run(settings: "ServerConfig", bundle: "Bundle", agent: "Agent | None") -> int:
    import logging

    from server.wiring import run

    logging.basicConfig(level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    # Their notes at INFO repeat ours in other words.
    for name in ("uvicorn.error", "httpx2"):
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLogger().level))
    return run(settings, bundle, agent)
