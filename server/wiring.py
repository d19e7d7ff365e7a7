"""From settings and a bundle to a running server: what joins the parts, and nothing else."""

import functools
from dataclasses import replace
from pathlib import Path

from agent.conversation import Conversation
from agent.settings import SessionSettings
from server.agents.agent import Agent
from server.config import ConfigError, ServerConfig
from server.engine_process import ProcessEngineLink
from server.serve import ServeOptions, run_server
from server.upstream.link import UpstreamLink
from server.upstream.places import upstream_of
from streaming import echo_canceller
from streaming.bundle import Bundle
from streaming.hearing_models import hears
from streaming.load import EngineFiles, load_engine
from streaming.manifest import BundleError, Hears
from streaming.models.kokoro import voices_in
from streaming.needs import usable_cores

__all__ = ["engine_files", "run", "serve_options", "told"]


def run(config: ServerConfig, bundle: Bundle, agent: Agent | None = None) -> int:
    """Serve until told to stop; returns the exit code. `agent` answers, or else whatever a client says. Raises BundleError,
    ConfigError."""
    upstream, threads = upstream_of(config), config.threads or _spare_cores()
    files = engine_files(bundle, threads, config.device or "cpu", elsewhere=upstream is not None, hears=config.hears)
    files = replace(files, dtype=config.dtype, voice_device=config.voice_device)
    engine = ProcessEngineLink(functools.partial(load_engine, files))
    link = engine if upstream is None else UpstreamLink(engine, upstream)
    return run_server(serve_options(config, bundle, agent), link, Conversation)


def engine_files(bundle: Bundle, threads: int, device: str = "cpu", *, elsewhere: bool = False, hears: Hears | None = None) -> EngineFiles:
    """Where the engine finds its models; without a language model where replies are made `elsewhere`. `hears` is what the language model is
    told of a turn, where it is not what the bundle says. Raises BundleError, and ConfigError where it can't hear."""
    recogniser, projector = bundle.part("transcript"), bundle.optional_part("projector")
    return EngineFiles(
        device=device,
        recogniser=recogniser,
        language_model=None if elsewhere else _language_model(bundle.part("language_model")),
        voice=bundle.part("voice"),
        end_of_turn=_only_file(bundle.part("end_of_turn"), ".onnx"),
        sounds=bundle.optional_part("sounds"),
        threads=threads,
        projector=None if projector is None else _only_file(projector, ".safetensors"),
        hears="words" if elsewhere else told(bundle, hears),
        language=next(iter(bundle.manifest.part_for("transcript").languages), "en"),
    )


def serve_options(config: ServerConfig, bundle: Bundle, agent: Agent | None = None) -> ServeOptions:
    """What the server is told, in its own terms."""
    return ServeOptions(
        host=config.host,
        port=config.port,
        api_keys=config.plain_keys,
        allowed_origins=config.allowed_origins,
        tls_certificate=config.tls_cert,
        tls_key=config.tls_key,
        limits=config.limits,
        defaults=SessionSettings(model=bundle.manifest.name, model_hears=_hears(config, bundle), voice=_voice(bundle)),
        models=(bundle.manifest.name,),
        voices=voices_in(bundle.part("voice")),
        languages=bundle.manifest.languages,
        record=config.record,
        agent=agent,
        ice=config.ice,
        drain_seconds=config.drain_seconds,
        cancels_echo=_cancels_echo(config),
    )


def _cancels_echo(config: ServerConfig) -> bool:
    """Raises ConfigError where echo cancellation is wanted and not installed."""
    if config.echo_cancellation and not echo_canceller.available():
        raise ConfigError("echo_cancellation needs a library that is not installed: pip install 'vivavoce[echo]'")
    return config.echo_cancellation


def _voice(bundle: Bundle) -> str:
    """The name of the voice that speaks where nobody asks for another."""
    return next(iter(voices_in(bundle.part("voice"))), SessionSettings().voice)


def told(bundle: Bundle, asked: Hears | None = None) -> Hears:
    """What the bundle's language model is told of a caller's turn: what is `asked` for, else what the manifest says, else the sound, if it
    can hear. Raises ConfigError where it can't."""
    wanted = asked or bundle.manifest.hears
    can = bundle.optional_part("projector") is not None or hears(bundle.part("language_model"))
    if wanted in ("sound", "both") and not can:
        problem = f"the language model of the bundle {bundle.manifest.name} can't hear, so it can't be told {wanted!r}"
        raise ConfigError(f"{problem}: leave out --hears, or add a part with the role projector (docs/bundles.md)")
    return wanted or ("sound" if can else "words")


def _hears(config: ServerConfig, bundle: Bundle) -> bool:
    """Whether the replies come from a language model of the bundle's that is told the caller's sound."""
    return upstream_of(config) is None and told(bundle, config.hears) != "words"


def _spare_cores() -> int:
    """Half the cores this process may use: the Ear and the voice run beside the models, and two threads on one core only wait for each
    other (measured on two cores: p95 of the answer 1.2 s with one thread, 2.5 s with two)."""
    return max(1, usable_cores() // 2)


def _language_model(folder: Path) -> Path:
    """The GGUF file in the folder, or the folder itself where it has none and is one of Hugging Face's layout."""
    whole = (folder / "config.json").is_file() and not any(folder.glob("*.gguf"))
    return folder if whole else _only_file(folder, ".gguf")


def _only_file(folder: Path, suffix: str) -> Path:
    """The one file of this kind; which part of a bundle it is, only the folder says."""
    found = sorted(path for path in folder.iterdir() if path.suffix == suffix)
    if len(found) != 1:
        raise BundleError(f"{folder} should hold one {suffix} file but holds {len(found)}: correct the bundle's manifest")
    return found[0]
