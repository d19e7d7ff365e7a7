"""From the files of a bundle to a warm engine."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import numpy as np
import torch

from streaming.absent import AbsentLanguageModel
from streaming.audio_encoder import AudioEncoder
from streaming.audio_path import AudioPath, Sound
from streaming.batching import completed
from streaming.causal import CausalSound, CausalStation
from streaming.chat import ChatTemplate
from streaming.ctc import load_ctc
from streaming.decoder import LanguageModel, LlamaLanguageModel
from streaming.device import choose_device, choose_dtype, needed_bytes
from streaming.doors import EngineOutput
from streaming.encoder import EncoderStation, WhisperSound, hear_silence
from streaming.engine import Parts, SpeechEngine
from streaming.events import SAMPLE_RATE
from streaming.hearing_models import hears, load_frame_rows, load_hearing_model
from streaming.manifest import Hears
from streaming.models.ctranslate2 import WeightsError
from streaming.models.voxtral_realtime import is_voxtral_realtime, load_voxtral_realtime
from streaming.models.waveform import load_waveform, waveform_kind
from streaming.models.whisper import Silence
from streaming.models.whisper_weights import load_whisper, whisper_file
from streaming.models.yamnet import YamNet
from streaming.realtime_words import load_realtime_words
from streaming.recogniser import load_recogniser
from streaming.recognition import WordRecogniser
from streaming.replying import Writer
from streaming.sampling import Sampling
from streaming.sound_events import PATCH
from streaming.transcriber import Transcriber
from streaming.turn import SmartTurn
from streaming.vad import SileroVad, silero_model
from streaming.voice_device import load_voice
from streaming.windowed import WindowedEncoder

__all__ = ["EngineFiles", "load_engine", "load_parts", "load_states", "load_words", "warm_up"]


@dataclass(frozen=True, slots=True)
class EngineFiles:
    """Where the parts of a bundle lie: folders for the recogniser and the voice, a GGUF file or a folder in Hugging Face's layout for the
    language model (which hears, where it is an audio language model), a file for the end of turn, a folder for what names sounds, where
    there is one; `threads` is torch's. `language` is what a recogniser of one language knows that does not say it itself (CTC). Without a
    language model replies are written elsewhere. `device`
    is where the recogniser and the language model run, `dtype` the numbers they are held in: see `streaming.device`;
    `voice_device` is where the voice does: see `streaming.voice_device`. A `projector`, a file, lets a language model hear that reads;
    `hears` is what one that can hear is told."""

    recogniser: Path
    language_model: Path | None
    voice: Path
    end_of_turn: Path
    threads: int = 2
    language: str = "en"
    device: str = "cpu"
    dtype: str = "auto"
    voice_device: str = "auto"
    sounds: Path | None = None
    projector: Path | None = None
    hears: Hears = "sound"


def load_parts(files: EngineFiles) -> Parts:
    """Load the models. Raises OSError or ValueError, naming the file, for what is missing or bad; DeviceError where the device is."""
    device = _device(files)
    dtype = choose_dtype(files.dtype, device)
    # First the recogniser: a decoder on a GPU divides what memory is free into slots for calls.
    recogniser = load_words(files.recogniser, files.language, device, dtype)
    model, path = _language_model(files.language_model, device, dtype)
    if path is None and files.projector is not None and files.hears != "words":
        path = AudioPath(load_frame_rows(files.projector, recogniser, model))
    elif path is not None and files.projector is not None:
        raise WeightsError(
            f"{files.language_model} hears by itself: take {files.projector}, the part with the role projector, out of the bundle"
        )
    if path is not None:
        path = None if files.hears == "words" else replace(path, words=files.hears == "both")
    return Parts(
        vad=SileroVad(silero_model()),
        end_of_turn=SmartTurn(files.end_of_turn),
        recogniser=recogniser,
        writer=Writer(model, ChatTemplate(model, path=path), Sampling()),
        voice=load_voice(files.voice, device, files.voice_device),
        sounds=None if files.sounds is None else YamNet.load(files.sounds),
    )


def _device(files: EngineFiles) -> torch.device:
    """Where the large models run. Their sizes are looked at only where it matters."""
    large = [part for part in (files.recogniser, files.language_model) if part is not None]
    device = choose_device(files.device, 0 if files.device == "cpu" else needed_bytes(large, files.dtype))
    if device.type == "cuda":
        torch.cuda.set_device(device)  # streams and graphs are of the thread's present GPU; this thread is the one that steps
    return device


def _language_model(path: Path | None, device: torch.device, dtype: torch.dtype | None) -> tuple[LanguageModel, AudioPath | None]:
    """The language model at `path`, and how it hears, where it does by itself."""
    if path is None:
        return AbsentLanguageModel(), None
    if hears(path):
        return load_hearing_model(path, dtype, device=str(device))
    return LlamaLanguageModel.load(path, dtype, device=device), None


def load_words(folder: Path, language: str = "en", device: torch.device | str = "cpu", dtype: torch.dtype | None = None) -> WordRecogniser:
    """The recogniser in a folder: a CTC model of wav2vec 2.0 or HuBERT that knows `language`, a Voxtral Realtime, which hears what is
    spoken and is said to be in `language`, or a Whisper, which knows what it knows. In `dtype`, where it is None in the
    usual one, which is float32 for CTC. Raises OSError or WeightsError, naming the file, for what is missing or bad."""
    if is_voxtral_realtime(folder):
        return load_realtime_words(folder, language, dtype, str(device))
    if waveform_kind(folder) is not None:
        return load_ctc(folder, language, dtype=dtype or torch.float32, device=str(device))
    return load_recogniser(folder, dtype, str(device))


def load_states(folder: Path, dtype: torch.dtype = torch.float32, device: str = "cpu") -> AudioEncoder:
    """The states of an encoder in a folder, for an audio path: wav2vec 2.0, HuBERT, Voxtral Realtime's rows, or the encoder of a Whisper.
    Raises OSError or WeightsError, naming the file, for what is missing or bad."""
    if is_voxtral_realtime(folder):
        model = load_voxtral_realtime(folder, dtype, device, context=1)  # its decoder is not used
        return CausalSound(CausalStation(model.encoder, model.projector))
    if waveform_kind(folder) is not None:
        return WindowedEncoder(load_waveform(folder, dtype=dtype, device=device))
    encoder = load_whisper(whisper_file(folder), dtype, device).encoder
    return WhisperSound(EncoderStation(encoder, Silence(hear_silence(encoder)[0])))


def load_engine(files: EngineFiles, early: Callable[[EngineOutput], None]) -> SpeechEngine:
    """A warm engine whose outputs go to `early`; sets torch's threads, so call it once, in the engine's process."""
    torch.set_num_threads(files.threads)
    parts = load_parts(files)
    warm_up(parts)
    return SpeechEngine(parts, early)


def warm_up(parts: Parts) -> None:
    """Run every model once on what it will see, so that the first caller pays for no lazy initialisation. The voice has been, as it was
    loaded."""
    pcm = np.zeros(SAMPLE_RATE * 2, np.float32)
    transcriber = Transcriber(parts.recogniser)
    path = parts.writer.template.path
    sound = None if path is None else Sound(path.stream(transcriber), count(-1, -1), 1)
    transcriber.push(pcm)
    completed(transcriber.finish())
    parts.end_of_turn.score(pcm)
    if parts.sounds is not None:
        parts.sounds.hear(pcm[:PATCH])
    if sound is not None:
        sound.push(pcm)
        completed(sound.conclude())
    model = parts.writer.model
    if isinstance(model, AbsentLanguageModel):
        return
    sequence = model.sequence()
    completed(model.sync(sequence, parts.writer.template.reply_prompt((), {}, parts.writer.budget)))
    for _ in range(8):
        assert sequence.logits is not None
        completed(model.append(sequence, int(sequence.logits.argmax())))
