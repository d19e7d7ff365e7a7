"""The voice: what it says is heard back by Whisper, and every word's position is the graph's own."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from streaming.audio import Samples, resample_clause, to_samples
from streaming.features import LogMel
from streaming.models.piper import Noise, PiperModel, with_durations
from streaming.normalise import normalise
from streaming.phonemes import EnglishPhonemes
from streaming.tts import PiperVoice, Speech

RATE = 24_000
QUIET = Noise(0.0, 0.0)


@pytest.fixture(scope="module")
def voice(parts: Path) -> PiperVoice:
    """Without chance: the same text is the same audio."""
    return PiperVoice.load(parts / "piper-en-us-joe", noise=QUIET)


# ------------------------------------------------------------------------------------------------- the graph's edit


def field(number: int, payload: bytes) -> bytes:
    return bytes((number << 3 | 2, len(payload))) + payload


def node(kind: bytes, output: bytes) -> bytes:
    return field(1, field(2, output) + field(4, kind))


def test_the_ceil_nodes_output_is_declared() -> None:
    graph = node(b"Exp", b"a") + node(b"Ceil", b"frames") + field(12, field(1, b"output"))
    model = b"\x08\x08" + field(7, graph)
    declared = field(7, field(12, field(1, b"frames") + field(2, b"\x0a\x02\x08\x01")))
    assert with_durations(model) == model + declared


@pytest.mark.parametrize(
    "model",
    [
        b"",
        field(7, node(b"Exp", b"a")),
        field(7, node(b"Ceil", b"a") + node(b"Ceil", b"b")),
        field(7, node(b"Ceil", b"a"))[:-3],
        b"\x0f\x01",
        b"\xff\xff",
        b"not a model at all",
    ],
)
def test_what_is_no_piper_voice_is_refused(model: bytes) -> None:
    with pytest.raises(ValueError, match=r"ONNX|Ceil"):
        with_durations(model)


def test_a_missing_voice_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"expected one \.onnx"):
        PiperVoice.load(tmp_path)


def test_a_foreign_configuration_is_refused(tmp_path: Path) -> None:
    (tmp_path / "voice.onnx").write_bytes(b"")
    (tmp_path / "voice.onnx.json").write_text("{}")
    with pytest.raises(ValueError, match="not the configuration of a Piper voice"):
        PiperVoice.load(tmp_path)


# ------------------------------------------------------------------------------------------------------ the contract


@pytest.mark.models
def test_durations_are_the_audios_to_the_sample(parts: Path) -> None:
    model = PiperModel.load(parts / "piper-en-us-joe" / "en_US-joe-medium.onnx", 1, QUIET)
    utterance = model.synthesise("həlˈoʊ wˈɜːld.", 1.0)
    assert utterance.dropped == 0
    assert len(utterance.ends) == len("həlˈoʊ wˈɜːld.")
    assert (np.diff(utterance.ends) >= 0).all()
    assert utterance.ends[-1] <= len(utterance.samples)
    assert len(utterance.samples) % 256 == 0


@pytest.mark.models
def test_unknown_symbols_are_left_out_and_counted(parts: Path) -> None:
    model = PiperModel.load(parts / "piper-en-us-joe" / "en_US-joe-medium.onnx", 1, QUIET)
    plain, odd = model.synthesise("həlˈoʊ", 1.0), model.synthesise("^hə本lˈo_ʊ☃", 1.0)
    assert odd.dropped == 4
    assert np.array_equal(plain.samples, odd.samples)
    assert odd.ends[3] == odd.ends[2]
    assert model.synthesise("☃", 1.0).dropped == 1


@pytest.mark.models
@pytest.mark.parametrize("text", ["", "   ", "...", "😀", "— (…)", "你好", "\n"])
def test_nothing_to_say_is_no_sound(voice: PiperVoice, text: str) -> None:
    speech = voice.speak(text, RATE)
    assert (len(speech.pcm), speech.words) == (0, ())


def check_marks(text: str, speech: Speech) -> None:
    ends, texts = [word.end for word in speech.words], [word.text_end for word in speech.words]
    assert ends == sorted(ends)
    assert texts == sorted(set(texts))
    assert (texts[-1], ends[-1]) == (len(text), len(speech.pcm))
    assert ends[0] > 0
    assert speech.exact
    assert speech.pcm.dtype == np.int16


@pytest.mark.models
def test_every_word_has_its_characters(voice: PiperVoice) -> None:
    text = '  "Well, it costs $3.50," said Dr. Smith 😀 (at 10:30). Fine!'
    speech = voice.speak(text, RATE)
    check_marks(text, speech)
    starts = [0, *(word.text_end for word in speech.words)]
    words = [text[a:b].strip() for a, b in pairwise(starts)]
    assert words == ['"Well,', "it", "costs", '$3.50,"', "said", "Dr.", "Smith 😀 (", "at", "10:30).", "Fine!"]


@pytest.mark.models
def test_a_word_ends_where_the_next_begins(voice: PiperVoice) -> None:
    """The sound up to the first mark lasts as long as the first word alone."""
    whole = voice.speak("seven, eleven, seventeen", 22_050)
    alone = voice.speak("seven,", 22_050)
    # Within a tenth of a second: a word is not spoken alike alone and before others.
    assert abs(whole.words[0].end - (len(alone.pcm) - 22_050 * 110 // 1000)) < 2_205


@pytest.mark.models
@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 24_000, 48_000])
def test_rates_change_samples_only(voice: PiperVoice, rate: int) -> None:
    text = "The same clause at every rate."
    speech, reference = voice.speak(text, rate), voice.speak(text, 22_050)
    check_marks(text, speech)
    assert abs(len(speech.pcm) * 22_050 - len(reference.pcm) * rate) <= 22_050 + rate
    for word, own in zip(speech.words, reference.words, strict=True):
        assert word.text_end == own.text_end
        assert abs(word.end * 22_050 - own.end * rate) <= 22_050 + rate


@pytest.mark.models
def test_without_chance_the_same_text_is_the_same_audio(voice: PiperVoice) -> None:
    first, second = (voice.speak("Once more, please.", RATE) for _ in range(2))
    assert np.array_equal(first.pcm, second.pcm)
    assert first.words == second.words


@pytest.mark.models
def test_speed(voice: PiperVoice) -> None:
    text = "A sentence to be spoken at several speeds."
    slow, usual, fast = (len(voice.speak(text, RATE, speed).pcm) for speed in (0.25, 1.0, 1.5))
    assert 3 < slow / usual < 5
    assert 1.2 < usual / fast < 1.8
    for speed in (0.2, 1.6, 0.0, float("nan")):
        with pytest.raises(ValueError, match=r"speed is 0\.25 to 1\.5"):
            voice.speak(text, RATE, speed)
    with pytest.raises(ValueError, match="sample rates are"):
        voice.speak(text, 100)


@pytest.mark.models
def test_edges_are_quiet_and_the_start_is_prompt(voice: PiperVoice) -> None:
    for text in ("Yes.", "Please come in.", "Five", "How are you?"):
        pcm = np.abs(voice.speak(text, RATE).pcm.astype(np.int32))
        assert pcm[0] <= 8
        assert pcm[-1] <= 8
        loud = np.flatnonzero(pcm > 0.01 * 32_768)
        # Within 60 ms something is heard; 250 ms of silence follow a sentence, 40 ms an open end.
        assert loud[0] < 0.06 * RATE
        silence = len(pcm) - loud[-1]
        assert (0.2 if text[-1] in ".?" else 0.02) * RATE < silence < 0.45 * RATE


@pytest.mark.models
def test_loudness_is_alike(voice: PiperVoice) -> None:
    for text in ("Yes.", "Who is it?", "The weather in London will be cold and rainy tomorrow morning."):
        windows = to_samples(voice.speak(text, 22_050).pcm)
        rms = np.sqrt(np.mean(np.resize(windows, (len(windows) // 110, 110)) ** 2, axis=1))
        heard = rms[rms > rms.max() * 10 ** (-25 / 20)]
        assert 0.07 < np.sqrt(np.mean(heard**2)) < 0.13
        assert np.abs(windows).max() < 0.95


@pytest.mark.models
def test_long_text_is_spoken_in_bounded_pieces(voice: PiperVoice, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    synthesise = voice._model.synthesise

    def measured(symbols: Sequence[str], length_scale: float) -> object:
        sizes.append(len(symbols))
        return synthesise(symbols, length_scale)

    monkeypatch.setattr(voice._model, "synthesise", measured)
    for text in (
        "this goes on and on without any stop " * 12,
        "it pauses here, and it goes on, " * 12,
        "1234567890123456789012345678901234567890 and 98765432109876543210987654321098765432109876543210",
    ):
        check_marks(text, voice.speak(text, 8_000))
    assert len(sizes) > 6
    assert max(sizes) < 260


@pytest.mark.models
def test_every_symbol_of_every_pronunciation_is_the_voices(voice: PiperVoice) -> None:
    english = EnglishPhonemes.load()
    known = set(voice._model._ids)
    lexicon = english._lexicon
    words = list(lexicon._words)  # type: ignore[attr-defined]
    assert len(words) > 100_000
    unknown = {
        symbol for start in range(0, len(words), 50) for sound in map_sounds(english, words[start : start + 50]) for symbol in sound
    } - known
    assert unknown == set()


def map_sounds(english: EnglishPhonemes, words: Sequence[str]) -> list[str]:
    # By the lexicon alone: the tagger would be most of the time.
    from streaming.phonemes import narrow

    return [narrow(phonemes) for word in words for phonemes in english._lexicon.roles(word).values()]


# ---------------------------------------------------------------------------------------------- what Whisper hears

# Everyday words and every kind of number, together less than one window of Whisper.
SENTENCES = (
    "The weather in London will be cold and rainy tomorrow.",
    "Could you please close the door before you leave?",
    "It costs $3.50, and the meeting starts at 10:30.",
    "Dr. Smith works for NASA.",
    "About 25% of the people said yes.",
    "You should take 3-4 tablets every day.",
    "He was born on March 3rd, 1984.",
    "The train leaves at 7 p.m. from platform nine.",
    "I'm sorry, I didn't catch that.",
    "I read that book, and I would like to read it again.",
)


@pytest.fixture(scope="module")
def hear(parts: Path) -> Callable[[Samples], str]:
    """Up to 29 s of 16 kHz sound to text, with the reference implementation of our Whisper weights."""
    ctranslate2 = pytest.importorskip("ctranslate2")
    tokenizers = pytest.importorskip("tokenizers")
    folder = parts / "whisper-base"
    whisper = ctranslate2.models.Whisper(str(folder), compute_type="int8", intra_threads=2, inter_threads=1)
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    prompt = [tokenizer.token_to_id(f"<|{name}|>") for name in ("startoftranscript", "en", "transcribe", "notimestamps")]

    def transcribe(pcm: Samples) -> str:
        mel = LogMel()
        padded = np.concatenate((pcm, np.zeros(30 * 16_000 - len(pcm), np.float32)))
        features = np.concatenate((mel.push(padded), mel.flush()))[:3000]
        view = ctranslate2.StorageView.from_array(np.ascontiguousarray(features.T[None]))
        result = whisper.generate(view, [prompt], beam_size=1, max_length=220)
        return str(tokenizer.decode(result[0].sequences_ids[0]))

    return transcribe


def plain_words(text: str) -> list[str]:
    """Words as said, so that "10:30" and "ten thirty" are the same."""
    return [word.lower() for token in normalise(text) for word in token.words]


def word_errors(reference: Sequence[str], heard: Sequence[str]) -> int:
    row = list(range(len(heard) + 1))
    for i, word in enumerate(reference, 1):
        above, row[0] = row[:], i
        for j, other in enumerate(heard, 1):
            row[j] = min(above[j] + 1, row[j - 1] + 1, above[j - 1] + (word != other))
    return row[-1]


@pytest.mark.models
def test_whisper_hears_what_was_said(voice: PiperVoice, hear: Callable[[Samples], str]) -> None:
    spoken = np.concatenate([voice.speak(sentence, 16_000).pcm for sentence in SENTENCES])
    assert len(spoken) < 29 * 16_000
    expected = plain_words(" ".join(SENTENCES))
    # Whisper may write the time as "10.30", which is three words of difference to us; beyond that two mistakes of its own are allowed.
    assert word_errors(expected, plain_words(hear(to_samples(spoken)))) <= 5
    assert len(expected) > 90
    assert voice.dropped == 0


@pytest.mark.models
def test_what_is_cut_at_a_mark_is_the_words_before_it(voice: PiperVoice, hear: Callable[[Samples], str]) -> None:
    text = "Bananas, oranges, apples, tomatoes, potatoes and carrots."
    speech = voice.speak(text, 16_000)
    third = speech.words[2]
    assert plain_words(text[: third.text_end]) == ["bananas", "oranges", "apples"]
    heard = hear(to_samples(speech.pcm[: third.end]))
    assert plain_words(heard) == ["bananas", "oranges", "apples"]


@pytest.mark.models
def test_resampling_a_clause_keeps_its_words(voice: PiperVoice, hear: Callable[[Samples], str]) -> None:
    """Through 8 kHz, as on a telephone."""
    speech = voice.speak("Could you please close the door before you leave?", 8_000)
    heard = hear(resample_clause(to_samples(speech.pcm), 8_000, 16_000))
    assert plain_words(heard) == plain_words("Could you please close the door before you leave?")
