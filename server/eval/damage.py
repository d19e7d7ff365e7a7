"""Sound made worse in known ways: noise at a ratio, a telephone line. Pure and seeded."""

import numpy as np

from streaming.audio import Samples, decode_ulaw, encode_ulaw, resample_clause, to_pcm16, to_samples
from streaming.events import SAMPLE_RATE

__all__ = ["on_the_telephone", "with_noise"]

_TELEPHONE = 8_000


def with_noise(pcm: Samples, noise: Samples, ratio: float, seed: int) -> Samples:
    """`pcm` (n,) with `noise` `ratio` dB below it, by the power of both over the whole clip; the noise begins where `seed` says and is
    repeated where it is shorter. The sum keeps the speech's level and is clipped at full scale."""
    if not len(noise) or not float(np.square(noise).mean()) or not float(np.square(pcm).mean()):
        return pcm
    start = int(np.random.default_rng(seed).integers(len(noise)))
    heard = np.resize(np.roll(noise, -start), len(pcm))
    if not float(np.square(heard).mean()):  # a silent stretch of it: from its loudest sample, then
        heard = np.resize(np.roll(noise, -int(np.abs(noise).argmax())), len(pcm))
    scale = np.sqrt(np.square(pcm).mean() / np.square(heard).mean() / 10 ** (ratio / 10))
    mixed: Samples = np.clip(pcm + heard * scale, -1.0, 1.0).astype(np.float32)
    return mixed


def on_the_telephone(pcm: Samples) -> Samples:
    """8 kHz and mu-law (G.711), and back."""
    narrow = resample_clause(pcm, SAMPLE_RATE, _TELEPHONE)
    return resample_clause(to_samples(decode_ulaw(encode_ulaw(to_pcm16(narrow)))), _TELEPHONE, SAMPLE_RATE)
