"""Whisper as published, on a recording that is whole: what streaming is measured against."""

import numpy as np
import torch

from streaming.audio import Samples
from streaming.batching import completed
from streaming.encoder import AFTER, BEFORE, FRAME_MEL
from streaming.features import LogMel
from streaming.models.whisper import Span
from streaming.recogniser import Decoding, Recogniser

__all__ = ["full_context"]


@torch.inference_mode()
def full_context(recogniser: Recogniser, pcm: Samples) -> tuple[str, tuple[int, ...]]:
    """The text and the tokens of a clip of at most 30 s, (n,), padded to 30 s, under its own maximum, encoded at once and decoded
    greedily; "" and none where nobody speaks. With a recogniser whose encoder was changed for blocks it is not Whisper as published."""
    mel = LogMel(ceiling=-2.0)  # nothing of a float's power lies below that floor
    features = np.concatenate((mel.push(pcm), mel.flush()))
    features = np.maximum(features, features.max() - 2.0)
    encoder, decoder = recogniser.model.encoder, recogniser.model.decoder
    positions = recogniser.model.shape.audio_positions
    whole = np.full((BEFORE + FRAME_MEL * positions + AFTER, features.shape[1]), features.min(), np.float32)
    whole[:BEFORE] = whole[-AFTER:] = 0
    whole[BEFORE : BEFORE + len(features)] = features
    frames = encoder(encoder.stem(torch.from_numpy(whole), 0), [Span(positions, 0, encoder.new_cache())])
    audio = decoder.new_audio_cache()
    decoder.listen(frames, 0, audio)
    decoding: Decoding = completed(recogniser.decode(audio, positions, "en", ()))
    return (recogniser.text(decoding.tokens), decoding.tokens) if decoding.speech else ("", ())
