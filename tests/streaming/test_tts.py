"""The voice: what it says is heard back by Whisper, and every word's position is the graph's own."""

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from streaming.audio import Samples, resample_clause, to_samples
from streaming.features import LogMel
from streaming.models.frames import Frames
from streaming.models.piper import WHOLE, Noise, Stretches, Utterance
from streaming.normalise import normalise
from streaming.phonemes import EnglishPhonemes
from streaming.tts import PhonemeVoice, Speech

RATE = 24_000
QUIET = Noise(0.0, 0.0)


@pytest.fixture(scope="module")
def voice(parts: Path) -> PhonemeVoice:
    """Without chance: the same text is the same audio."""
    return PhonemeVoice.load(parts / "piper-en-us-joe", noise=QUIET)


def joined(chunks: Iterable[Speech]) -> Speech:
    """All chunks of a clause as one."""
    kept = list(chunks)
    pcm = np.concatenate([np.zeros(0, np.int16), *(chunk.pcm for chunk in kept)])
    return Speech(pcm, tuple(word for chunk in kept for word in chunk.words), all(chunk.exact for chunk in kept))


# --------------------------------------------------------------------------------------------------------------- loading


def test_a_missing_voice_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"expected one \.onnx"):
        PhonemeVoice.load(tmp_path)


def test_a_foreign_configuration_is_refused(tmp_path: Path) -> None:
    (tmp_path / "voice.onnx").write_bytes(b"")
    (tmp_path / "voice.onnx.json").write_text("{}")
    with pytest.raises(ValueError, match="not the configuration of a Piper voice"):
        PhonemeVoice.load(tmp_path)


# ------------------------------------------------------------------------------------------------------ the contract


@pytest.mark.models
@pytest.mark.parametrize("text", ["", "   ", "...", "😀", "— (…)", "你好", "\n"])
def test_nothing_to_say_is_no_sound(voice: PhonemeVoice, text: str) -> None:
    assert list(voice.speak(text, RATE)) == []


def check_marks(text: str, speech: Speech) -> None:
    ends, texts = [word.end for word in speech.words], [word.text_end for word in speech.words]
    assert ends == sorted(ends)
    assert texts == sorted(set(texts))
    assert (texts[-1], ends[-1]) == (len(text), len(speech.pcm))
    assert ends[0] > 0
    assert speech.exact
    assert speech.pcm.dtype == np.int16


@pytest.mark.models
def test_every_word_has_its_characters(voice: PhonemeVoice) -> None:
    text = '  "Well, it costs $3.50," said Dr. Smith 😀 (at 10:30). Fine!'
    speech = joined(voice.speak(text, RATE))
    check_marks(text, speech)
    starts = [0, *(word.text_end for word in speech.words)]
    words = [text[a:b].strip() for a, b in pairwise(starts)]
    assert words == ['"Well,', "it", "costs", '$3.50,"', "said", "Dr.", "Smith 😀 (", "at", "10:30).", "Fine!"]


@pytest.mark.models
def test_a_word_ends_where_the_next_begins(voice: PhonemeVoice) -> None:
    """The sound up to the first mark lasts as long as the first word alone."""
    whole = joined(voice.speak("seven, eleven, seventeen", 22_050))
    alone = joined(voice.speak("seven,", 22_050))
    # Within a tenth of a second: a word is not spoken alike alone and before others.
    assert abs(whole.words[0].end - (len(alone.pcm) - 22_050 * 110 // 1000)) < 2_205


@pytest.mark.models
@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 24_000, 48_000])
def test_rates_change_samples_only(voice: PhonemeVoice, rate: int) -> None:
    text = "The same clause at every rate."
    speech, reference = joined(voice.speak(text, rate)), joined(voice.speak(text, 22_050))
    check_marks(text, speech)
    assert abs(len(speech.pcm) * 22_050 - len(reference.pcm) * rate) <= 22_050 + rate
    for word, own in zip(speech.words, reference.words, strict=True):
        assert word.text_end == own.text_end
        assert abs(word.end * 22_050 - own.end * rate) <= 22_050 + rate


@pytest.mark.models
def test_without_chance_the_same_text_is_the_same_audio(voice: PhonemeVoice) -> None:
    first, second = (joined(voice.speak("Once more, please.", RATE)) for _ in range(2))
    assert np.array_equal(first.pcm, second.pcm)
    assert first.words == second.words


@pytest.mark.models
def test_speed(voice: PhonemeVoice) -> None:
    text = "A sentence to be spoken at several speeds."
    slow, usual, fast = (len(joined(voice.speak(text, RATE, speed)).pcm) for speed in (0.25, 1.0, 1.5))
    assert 3 < slow / usual < 5
    assert 1.2 < usual / fast < 1.8
    for speed in (0.2, 1.6, 0.0, float("nan")):
        with pytest.raises(ValueError, match=r"speed is 0\.25 to 1\.5"):
            voice.speak(text, RATE, speed)
    with pytest.raises(ValueError, match="sample rates are"):
        voice.speak(text, 100)


@pytest.mark.models
@pytest.mark.parametrize("prompt", [False, True])
def test_edges_are_quiet_and_the_start_is_prompt(voice: PhonemeVoice, prompt: bool) -> None:
    for text in ("Yes.", "Please come in.", "Five", "How are you?"):
        pcm = np.abs(joined(voice.speak(text, RATE, prompt=prompt)).pcm.astype(np.int32))
        assert pcm[0] <= 8
        assert pcm[-1] <= 8
        loud = np.flatnonzero(pcm > 0.01 * 32_768)
        # Within 60 ms something is heard, 20 where someone waits for it; 250 ms of silence follow a sentence, 40 ms an open end.
        assert loud[0] < (0.02 if prompt else 0.06) * RATE
        silence = len(pcm) - loud[-1]
        assert (0.2 if text[-1] in ".?" else 0.02) * RATE < silence < 0.45 * RATE


@pytest.mark.models
def test_loudness_is_the_voices_and_peaks_are_below_full_scale(voice: PhonemeVoice) -> None:
    texts = ("Yes.", "Who is it?", "Of course, right away.", "The weather in London will be cold and rainy tomorrow morning.")
    levels = []
    for text in texts:
        windows = to_samples(joined(voice.speak(text, 22_050)).pcm)
        rms = np.sqrt(np.mean(np.resize(windows, (len(windows) // 110, 110)) ** 2, axis=1))
        heard = rms[rms > rms.max() * 10 ** (-25 / 20)]
        levels.append(20 * np.log10(np.sqrt(np.mean(heard**2))))
        assert np.abs(windows).max() < 0.95
    # One gain for all it says: clauses differ as the speaker's do, around -20 dBFS.
    assert abs(np.mean(levels) + 20) < 1.5
    assert max(abs(level + 20) for level in levels) < 5


# --------------------------------------------------------------------------------------------------------------- chunks

TEXT = "Hello there. I am fine, thank you; and how are you today, my friend?"


@pytest.mark.models
@pytest.mark.parametrize("rate", [8_000, 22_050, 24_000])
@pytest.mark.parametrize("prompt", [False, True])
def test_chunks_are_the_whole_to_two_steps(voice: PhonemeVoice, rate: int, prompt: bool) -> None:
    at_once = PhonemeVoice(voice._model, voice._phonemes, voice._gain, WHOLE)
    chunks = list(voice.speak(TEXT, rate, prompt=prompt))
    whole, speech = joined(at_once.speak(TEXT, rate, prompt=prompt)), joined(chunks)
    assert len(chunks) > 4
    assert len(speech.pcm) == len(whole.pcm)
    assert np.abs(speech.pcm.astype(np.int32) - whole.pcm).max() <= 2
    assert speech.words == whole.words
    check_marks(TEXT, speech)


@pytest.mark.models
def test_a_chunk_has_the_words_that_end_in_it(voice: PhonemeVoice) -> None:
    end = 0
    for chunk in voice.speak(TEXT, RATE):
        start, end = end, end + len(chunk.pcm)
        assert len(chunk.pcm)
        assert all(start < word.end <= end for word in chunk.words)


@pytest.mark.models
def test_the_first_chunk_is_made_from_one_short_stretch(voice: PhonemeVoice, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[int] = []
    decode = voice._model.decoder._compute

    def counted(latent: Frames) -> Frames:
        decoded.append(latent.shape[2])
        return decode(latent)

    monkeypatch.setattr(voice._model.decoder, "_compute", counted)
    chunks = voice.speak(TEXT, RATE)
    assert decoded == []
    first = next(chunks)
    assert decoded == [Stretches().first + voice._model.decoder.reach]
    # What is not silence of it, all but the 20 ms held back.
    assert len(first.pcm) > 0.1 * RATE


@pytest.mark.models
def test_clauses_may_be_spoken_in_turns(voice: PhonemeVoice) -> None:
    texts = (TEXT, "Could you please close the door before you leave?")
    alone = [joined(voice.speak(text, RATE)) for text in texts]
    under_way = [voice.speak(text, RATE) for text in texts]
    turns: list[list[Speech]] = [[], []]
    for _ in range(20):
        for chunks, speech in zip(turns, under_way, strict=True):
            chunks += [chunk for chunk in [next(speech, None)] if chunk is not None]
    for chunks, reference in zip(turns, alone, strict=True):
        assert np.array_equal(joined(chunks).pcm, reference.pcm)


@pytest.mark.models
def test_long_text_is_spoken_in_bounded_pieces(voice: PhonemeVoice, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    stream = voice._model.stream

    def measured(symbols: Sequence[str], length_scale: float, stretches: Stretches, name: str = "") -> object:
        sizes.append(len(symbols))
        return stream(symbols, length_scale, stretches)

    monkeypatch.setattr(voice._model, "stream", measured)
    for text in (
        "this goes on and on without any stop " * 12,
        "it pauses here, and it goes on, " * 12,
        "1234567890123456789012345678901234567890 and 98765432109876543210987654321098765432109876543210",
    ):
        check_marks(text, joined(voice.speak(text, 8_000)))
    assert len(sizes) > 6
    assert max(sizes) < 260


@pytest.mark.models
def test_every_symbol_of_every_pronunciation_is_the_voices(voice: PhonemeVoice) -> None:
    english = EnglishPhonemes.load()
    known = set(voice._model._ids)
    lexicon = english.lexicon
    words = list(lexicon._words)  # type: ignore[attr-defined]
    assert len(words) > 100_000
    unknown = {
        symbol for start in range(0, len(words), 50) for sound in map_sounds(english, words[start : start + 50]) for symbol in sound
    } - known
    assert unknown == set()


def map_sounds(english: EnglishPhonemes, words: Sequence[str]) -> list[str]:
    # By the lexicon alone: the tagger would be most of the time.
    from streaming.phonemes import narrow

    return [narrow(phonemes) for word in words for phonemes in english.lexicon.roles(word).values()]


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
def test_whisper_hears_what_was_said(voice: PhonemeVoice, hear: Callable[[Samples], str]) -> None:
    spoken = np.concatenate([joined(voice.speak(sentence, 16_000)).pcm for sentence in SENTENCES])
    assert len(spoken) < 29 * 16_000
    expected = plain_words(" ".join(SENTENCES))
    # Whisper may write the time as "10.30", which is three words of difference to us; beyond that two mistakes of its own are allowed.
    assert word_errors(expected, plain_words(hear(to_samples(spoken)))) <= 5
    assert len(expected) > 90
    assert voice.dropped == 0


@pytest.mark.models
def test_whisper_hears_what_kokoro_said_in_voices_of_its_own(kokoro: Path, hear: Callable[[Samples], str]) -> None:
    speaks = PhonemeVoice.load(kokoro)
    text = "Bananas, oranges, apples, tomatoes, potatoes and carrots."
    heart, echo = (joined(speaks.speak(text, 16_000, name=name)) for name in ("", "echo"))
    for said in (heart, echo):
        assert word_errors(plain_words(text), plain_words(hear(to_samples(said.pcm)))) <= 1
    assert len(heart.pcm) != len(echo.pcm)
    assert speaks.dropped == 0
    marks = [mark.end for mark in heart.words]
    assert marks == sorted(marks)
    assert (heart.words[-1].text_end, marks[-1]) == (len(text), len(heart.pcm))
    third = heart.words[2]
    assert plain_words(text[: third.text_end]) == ["bananas", "oranges", "apples"]
    assert word_errors(["bananas", "oranges", "apples"], plain_words(hear(to_samples(heart.pcm[: third.end])))) <= 1


class WholeModel:
    """Makes 100 samples of each symbol, all of an utterance at once."""

    sample_rate = RATE
    whole = True

    def __init__(self) -> None:
        self.asked: list[str] = []

    def stream(self, symbols: Sequence[str], length_scale: float, stretches: Stretches, name: str = "", /) -> Utterance:
        del length_scale, stretches, name
        self.asked.append("".join(symbols))
        samples = np.full(100 * len(symbols), 0.5, np.float32)
        return Utterance(len(samples), 100 * np.arange(1, len(symbols) + 1), 0, iter([samples]))


def test_a_reply_of_a_voice_that_can_not_be_cut_begins_with_a_short_piece() -> None:
    text = "The garden of the old teacher remembers every single one of the quiet golden winters."
    pieces, marks = {}, {}
    for prompt in (False, True):
        model = WholeModel()
        speech = joined(PhonemeVoice(model, EnglishPhonemes.load()).speak(text, RATE, prompt=prompt))
        pieces[prompt], marks[prompt] = model.asked, [mark.text_end for mark in speech.words]
    assert len(pieces[False]) == 1
    assert " ".join(pieces[True]) == pieces[False][0]
    first, second, *_ = (len(piece) for piece in pieces[True])
    assert 16 < first < second
    assert marks[True] == marks[False]


@pytest.mark.parametrize("text", ["Yes, of course.", "How may I help you today?"])
def test_no_short_word_is_cut_off_a_reply(text: str) -> None:
    model = WholeModel()
    list(PhonemeVoice(model, EnglishPhonemes.load()).speak(text, RATE, prompt=True))
    assert len(model.asked) == 1


@pytest.mark.models
def test_what_is_cut_at_a_mark_is_the_words_before_it(voice: PhonemeVoice, hear: Callable[[Samples], str]) -> None:
    text = "Bananas, oranges, apples, tomatoes, potatoes and carrots."
    speech = joined(voice.speak(text, 16_000))
    third = speech.words[2]
    assert plain_words(text[: third.text_end]) == ["bananas", "oranges", "apples"]
    heard = hear(to_samples(speech.pcm[: third.end]))
    assert plain_words(heard) == ["bananas", "oranges", "apples"]


@pytest.mark.models
def test_resampling_a_clause_keeps_its_words(voice: PhonemeVoice, hear: Callable[[Samples], str]) -> None:
    """Through 8 kHz, as on a telephone."""
    speech = joined(voice.speak("Could you please close the door before you leave?", 8_000))
    heard = hear(resample_clause(to_samples(speech.pcm), 8_000, 16_000))
    assert plain_words(heard) == plain_words("Could you please close the door before you leave?")
