"""How far our encoders are from their references, and what a stream loses: counts and differences, no timings.

    python -m benchmarks.encoders [--checkpoint FOLDER ...] [--data ../shared/data] [--clips 4] [--json FILE]

Exact: tiny random checkpoints written by `transformers` in the published layout and loaded by us. `difference` is the largest absolute
one of encoder states or logits in float32; for Mimi's codes, frame by frame beside all at once, it is how many of how many differ.

Windows: wav2vec 2.0 and HuBERT are not incremental. `states` is the relative root mean square difference of the committed rows, logits,
from encoding the whole clip at once, `symbols` the share of rows whose likeliest CTC symbol differs, over clips of 10 s, for several
windows of context, block and lookahead in seconds. Without a `--checkpoint` (a folder of a real one with a CTC head) the weights are
random: that shows how far a row sees, and not how many words are lost.

Blocks: the pocket bundle's Whisper, if it is in the cache: relative difference of committed frames from the whole, by lookahead. What
that does to words is measured by `benchmarks.transcript`.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np
import soundfile
import torch
from rich.console import Console
from rich.table import Table
from transformers import (
    HubertConfig,
    HubertForCTC,
    MimiConfig,
    MimiModel,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
    WhisperConfig,
    WhisperForConditionalGeneration,
)

from streaming.audio import Samples
from streaming.batching import completed
from streaming.bundle import default_places
from streaming.encoder import BlockPlan, EncoderStation, Ending, SoundStream, hear_silence
from streaming.events import SAMPLE_RATE
from streaming.models.mimi import MimiState, load_mimi
from streaming.models.waveform import WaveformModel, load_waveform
from streaming.models.whisper import Silence, Span, WhisperEncoder
from streaming.models.whisper_weights import load_whisper
from streaming.windowed import WindowedEncoder, WindowPlan

_SECOND: Final = 50
"""Rows of all of them but Mimi's."""

_PLANS: Final = tuple(
    WindowPlan(context * _SECOND, block, int(lookahead * _SECOND))
    for context, block, lookahead in ((2, 50, 1.0), (8, 16, 0.32), (8, 50, 0.0), (8, 50, 0.5), (8, 50, 1.0), (8, 50, 2.0))
)

_CLIP: Final = 10 * SAMPLE_RATE


@dataclass(frozen=True, slots=True)
class Row:
    """What was compared with what, and how it came out."""

    part: str
    what: str
    compared: str
    result: str


def noise(samples: int, rate: int = SAMPLE_RATE) -> Samples:
    """Noise whose loudness swells three times a second, like speech."""
    swell = 0.5 + 0.5 * np.sin(2 * np.pi * 3 * np.arange(samples) / rate)
    return (np.random.default_rng(0).standard_normal(samples) * 0.1 * swell).astype(np.float32)


def shaken(model: torch.nn.Module) -> torch.nn.Module:
    """Its own initialisation is so small that a missing layer would hardly show."""
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        parameter.data += torch.randn(parameter.shape, generator=generator) * 0.1
    return model.eval()


# --------------------------------------------------------------------------------------------------------------- exact


@torch.inference_mode()
def whisper_rows(folder: Path) -> Iterator[Row]:
    """Each kind of Whisper beside `transformers`."""
    kinds = {
        "multilingual": (51_865, 80, 2, 2),
        "english": (51_864, 80, 2, 2),
        "large-v3": (51_866, 128, 2, 2),
        "turbo": (51_866, 128, 4, 1),
    }
    for name, (vocabulary, mels, encoder_layers, decoder_layers) in kinds.items():
        config = WhisperConfig(
            vocab_size=vocabulary, num_mel_bins=mels, d_model=32, encoder_layers=encoder_layers, decoder_layers=decoder_layers,
            encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=128, decoder_ffn_dim=128, suppress_tokens=None,
            begin_suppress_tokens=None,
        )  # fmt: skip
        reference = shaken(WhisperForConditionalGeneration(config))
        reference.save_pretrained(folder / name)
        ours = load_whisper(folder / name, torch.float32)
        mel, tokens = torch.randn(3_000, mels), torch.randint(0, vocabulary, (20,))
        expected = reference(input_features=mel.T[None], decoder_input_ids=tokens[None])
        whole = torch.cat((torch.zeros(2, mels), mel, torch.zeros(1, mels)))
        frames = ours.encoder(ours.encoder.stem(whole, 0), [Span(1_500, 0, ours.encoder.new_cache())])
        audio = ours.decoder.new_audio_cache()
        ours.decoder.listen(frames, 0, audio)
        scores = ours.decoder.scores(ours.decoder(tokens, [Span(20, 0, ours.decoder.new_cache(), audio=(audio, 1_500))]))
        states = float((frames - expected.encoder_last_hidden_state[0]).abs().max())
        logits = float((scores - expected.logits[0]).abs().max())
        yield Row("exact", f"Whisper {name}", "transformers", f"states {states:.1e}, logits {logits:.1e}")


def waveform_config(kind: str, norm: str) -> Wav2Vec2Config | HubertConfig:
    """Tiny, but for the published reach: strides, kernels and the 128 rows of the positions."""
    large = norm == "layer"
    return (Wav2Vec2Config if kind == "wav2vec2" else HubertConfig)(
        hidden_size=32, num_hidden_layers=4, num_attention_heads=4, intermediate_size=64, conv_dim=(16,) * 7, feat_extract_norm=norm,
        conv_bias=large, do_stable_layer_norm=large, num_conv_pos_embeddings=128, num_conv_pos_embedding_groups=4, vocab_size=32,
        pad_token_id=0,
    )  # fmt: skip


@torch.inference_mode()
def waveform_rows(folder: Path) -> Iterator[tuple[Row, str, WaveformModel]]:
    """Each kind of wav2vec 2.0 and HuBERT beside `transformers`; with its name and the model."""
    for kind in ("wav2vec2", "hubert"):
        for norm in ("group", "layer"):
            reference = shaken((Wav2Vec2ForCTC if kind == "wav2vec2" else HubertForCTC)(waveform_config(kind, norm)))
            place = folder / f"{kind}-{norm}"
            reference.save_pretrained(place)
            extractor = Wav2Vec2FeatureExtractor(do_normalize=True)
            extractor.save_pretrained(place)
            ours = load_waveform(place, ctc=True)
            pcm = noise(_CLIP)
            values = extractor(pcm, sampling_rate=SAMPLE_RATE, return_tensors="pt").input_values
            difference = float((ours.run(pcm) - reference(values).logits[0]).abs().max())
            name = f"{kind} {norm} norm, random"
            yield Row("exact", name, "transformers", f"logits {difference:.1e}"), name, ours


@torch.inference_mode()
def mimi_row(folder: Path) -> Row:
    """Codes frame by frame beside those of the whole."""
    reference = shaken(
        MimiModel(
            MimiConfig(
                hidden_size=32, num_filters=8, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2, head_dim=16,
                intermediate_size=64, codebook_size=128, codebook_dim=16, vector_quantization_hidden_dimension=16, num_quantizers=8,
                sliding_window=50, upsample_groups=32,
            )
        )
    )  # fmt: skip
    for name, buffer in reference.named_buffers():
        if name.endswith("embed_sum"):
            buffer.normal_(generator=torch.Generator().manual_seed(2))
    reference.save_pretrained(folder / "mimi")
    ours = load_mimi(folder / "mimi")
    pcm = noise(100 * ours.frame_samples, ours.rate)
    whole = reference.encode(torch.from_numpy(pcm)[None, None]).audio_codes[0].T
    state, differ = MimiState(), 0
    for n in range(len(whole)):
        codes, state = ours.step(pcm[n * ours.frame_samples : (n + 1) * ours.frame_samples], state, ours.codebooks)
        differ += int((codes[0] != whole[n]).sum())
    return Row("exact", "Mimi, frame by frame", "transformers, all at once", f"{differ} of {whole.numel()} codes differ")


# ------------------------------------------------------------------------------------------------------------- streams


def relative(rows: torch.Tensor, whole: torch.Tensor) -> float:
    """Root mean square difference over that of the whole's departure from its mean."""
    return float((rows - whole).pow(2).mean().sqrt() / (whole - whole.mean(0)).pow(2).mean().sqrt())


def window_rows(name: str, model: WaveformModel, clips: list[Samples]) -> Iterator[Row]:
    """What windows lose."""
    for plan in _PLANS:
        rows, whole = [], []
        for pcm in clips:
            stream = WindowedEncoder(model, plan).stream()
            stream.push(pcm)
            while (block := completed(stream.commit())) is not None:
                rows.append(block)
            whole.append(model.run(pcm)[: stream.committed])
        streamed, offline = torch.cat(rows), torch.cat(whole)
        differ = float((streamed.argmax(-1) != offline.argmax(-1)).float().mean())
        spans = (plan.context / _SECOND, plan.block / _SECOND, plan.lookahead / _SECOND)
        window = "{:g} + {:g} + {:g} s".format(*spans)
        yield Row("windows", name, window, f"states {relative(streamed, offline):.3f}, symbols {100 * differ:.1f} %")


@torch.inference_mode()
def block_rows(model: WhisperEncoder, clips: list[Samples]) -> Iterator[Row]:
    """What Whisper's blocks lose: with silence behind the sound, and without, as Qwen2-Audio and Ultravox hear with it."""
    for behind, silence, ending in (("", Silence(hear_silence(model)[0]), Ending.PAUSE), (", nothing behind", None, Ending.SOUND)):
        station = EncoderStation(model, silence)
        for plan in (BlockPlan(lookahead=0), BlockPlan(lookahead=16), BlockPlan(lookahead=32), BlockPlan()):
            rows, whole = [], []
            for pcm in clips:
                stream, at_once = (SoundStream(station, each, ending) for each in (plan, BlockPlan(first=1_500)))
                stream.push(pcm)
                while (block := completed(stream.commit())) is not None:
                    rows.append(block)
                at_once.push(pcm)
                whole.append(completed(at_once.provisional())[: stream.committed])
            difference = relative(torch.cat(rows), torch.cat(whole))
            yield Row("blocks", f"Whisper, real weights{behind}", f"lookahead {plan.lookahead / _SECOND:g} s", f"states {difference:.3f}")


def recordings(data: Path, most: int) -> list[Samples]:
    """The first 10 s of read speech, of clips that have as much."""
    lines = [json.loads(line) for line in (data / "manifest.jsonl").read_text(encoding="utf-8").splitlines()]
    long = [line for line in lines if line["set"] == "librispeech_train100" and line["part"] == "dev" and line["seconds"] >= 10]
    return [soundfile.read(data / line["path"], dtype="float32")[0][:_CLIP] for line in long[:most]]


def measure(checkpoints: list[Path], clips: list[Samples], whisper: Path | None) -> list[Row]:
    """All rows."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        rows = list(whisper_rows(folder))
        windows = []
        for row, name, model in waveform_rows(folder):
            rows.append(row)
            windows += [] if checkpoints else list(window_rows(name, model, clips or [noise(_CLIP)]))
        rows.append(mimi_row(folder))
    for checkpoint in checkpoints:
        windows += window_rows(checkpoint.name, load_waveform(checkpoint, ctc=True), clips or [noise(_CLIP)])
    blocks = [] if whisper is None or not clips else list(block_rows(load_whisper(whisper, torch.float32).encoder, clips))
    return [*rows, *windows, *blocks]


def main() -> None:
    """Measure and print."""
    options = _options()
    clips = recordings(options.data, options.clips) if (options.data / "manifest.jsonl").is_file() else []
    whisper = default_places().cache / "parts" / "whisper-base" / "model.bin"
    rows = measure(options.checkpoint, clips, whisper if whisper.is_file() else None)
    table = Table("part", "what", "beside, or window", "difference")
    for row in rows:
        table.add_row(row.part, row.what, row.compared, row.result)
    Console(width=140).print(table)
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, action="append", default=[], help="a real wav2vec 2.0 or HuBERT with a CTC head")
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--clips", type=int, default=4, help="recordings, at most")
    parser.add_argument("--json", type=Path, help="where the rows go too")
    return parser.parse_args()


if __name__ == "__main__":
    main()
