"""A speech recogniser small enough for every test: random weights, 60 words."""

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from streaming.models.whisper import Whisper, WhisperShape
from streaming.recogniser import Recogniser

COMMANDS = ("endoftext", "startoftranscript", "en", "de", "transcribe", "nocaptions", "notimestamps", "0.00")


@pytest.fixture(scope="session")
def tiny_whisper() -> Whisper:
    """Whisper's lengths (30 s, 448 tokens), one narrow layer a side, float32. What it says is nonsense, but always the same."""
    torch.manual_seed(11)
    shape = WhisperShape(
        mels=80, width=16, heads=2, encoder_layers=2, decoder_layers=1, vocabulary=68, audio_positions=1500, text_positions=448
    )
    model = Whisper(shape).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.data.normal_(0.0, 0.4)
    # Without these it says one word for ever: what reads words writes them too, and a bias of the last norm prefers one word.
    model.decoder.embeddings.data.mul_(0.5)
    model.decoder.norm.bias.data.zero_()
    model.decoder.positions.data.mul_(4.0)
    return model


@pytest.fixture(scope="session")
def tiny_recogniser(tiny_whisper: Whisper) -> Recogniser:
    """Words are "w0" to "w59"; w7 is never said."""
    words = [f"w{n}" for n in range(60)] + [f"<|{command}|>" for command in COMMANDS]
    tokenizer = Tokenizer(WordLevel({word: n for n, word in enumerate(words)}, unk_token="w0"))
    tokenizer.add_special_tokens(words[60:])
    return Recogniser(tiny_whisper, tokenizer, suppressed=(7,), suppressed_first=(3, 60))
