"""The caller's recordings and loudspeaker, without a clock."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from server.caller_audio import CALLER_RATE, PlayedPart, RecordingError, VirtualSpeaker, load_recording, render, speech_end, write_wav


def tone(samples: int, peak: int = 8_000) -> np.ndarray:
    return np.rint(peak * np.sin(np.arange(samples) * 0.1)).astype(np.int16)


def silence(samples: int) -> np.ndarray:
    return np.zeros(samples, np.int16)


# ---------------------------------------------------------------------------------------------------------- recordings


@pytest.mark.parametrize(("rate", "channels", "suffix"), [(24_000, 1, "wav"), (16_000, 2, "flac"), (8_000, 1, "wav"), (48_000, 2, "ogg")])
def test_a_recording_of_any_format_is_mono_at_24_khz(tmp_path: Path, rate: int, channels: int, suffix: str) -> None:
    path = tmp_path / f"clip.{suffix}"
    sound = 0.3 * np.sin(2 * np.pi * 300 * np.arange(rate) / rate)
    soundfile.write(path, np.repeat(sound[:, None], channels, axis=1), rate)
    recording = load_recording(path)
    assert recording.pcm.dtype == np.int16
    assert abs(len(recording.pcm) - CALLER_RATE) <= 2
    middle = recording.pcm[6_000:18_000].astype(np.float64)
    assert abs(np.sqrt(np.mean(middle**2)) / 32_768 - 0.3 / np.sqrt(2)) < 0.01


def test_bad_files_are_named_in_one_line(tmp_path: Path) -> None:
    text = tmp_path / "notes.wav"
    text.write_text("not sound")
    empty = tmp_path / "empty.wav"
    soundfile.write(empty, np.zeros(0), 16_000)
    for path, reason in ((tmp_path / "none.wav", "no such file"), (tmp_path, "no such file"), (text, "can be read"), (empty, "is empty")):
        with pytest.raises(RecordingError, match=reason) as raised:
            load_recording(path)
        assert str(path) in str(raised.value)
        assert "\n" not in str(raised.value)


def test_the_end_of_speech_is_found_before_trailing_noise_and_clicks() -> None:
    noise = np.random.default_rng(1).integers(-20, 20, 24_000).astype(np.int16)
    click = silence(1_200)
    click[600:630] = 9_000
    clip = np.concatenate((noise, tone(12_000), noise, click))
    assert abs(speech_end(clip) - 36_000) <= 240


def test_a_clip_cut_in_speech_ends_at_its_end_and_so_does_silence() -> None:
    assert speech_end(np.concatenate((silence(2_400), tone(4_800)))) == 7_200
    assert speech_end(silence(4_800)) == 4_800
    assert speech_end(tone(100)) == 100


def test_a_wav_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="can't be written"):
        write_wav(tmp_path, tone(100))


# --------------------------------------------------------------------------------------------------------- loudspeaker


def test_audio_plays_back_to_back_from_its_arrival() -> None:
    speaker = VirtualSpeaker()
    speaker.push("r", tone(24_000), 10.0)
    speaker.push("r", tone(12_000), 10.2)
    speaker.push("r2", tone(12_000), 13.0)
    assert [(part.response_id, part.at, part.end) for part in speaker.parts] == [("r", 10.0, 11.0), ("r", 11.0, 11.5), ("r2", 13.0, 13.5)]
    assert [speaker.playing(now) for now in (9.9, 10.0, 11.2, 11.5, 13.1, 13.5)] == [None, "r", "r", None, "r2", None]
    assert [speaker.played("r", now) for now in (9.0, 10.5, 11.25, 20.0)] == [0, 12_000, 30_000, 36_000]
    assert speaker.busy_until() == 13.5


def test_a_cut_keeps_what_was_heard_only() -> None:
    speaker = VirtualSpeaker()
    speaker.push("r", tone(24_000), 1.0)
    speaker.push("r", tone(24_000), 1.1)
    speaker.cut(1.5)
    assert speaker.played("r", 9.0) == 12_000
    assert speaker.busy_until() == 1.5
    speaker.cut(1.5)
    assert speaker.played("r", 9.0) == 12_000
    speaker.cut(0.5)
    assert speaker.parts == []


def test_the_first_audible_sample_counts_the_silence_before_it() -> None:
    speaker = VirtualSpeaker()
    speaker.push("r", silence(2_400), 5.0)
    speaker.push("r", np.concatenate((silence(240), np.full(10, -500, np.int16))), 5.01)
    assert speaker.first_audible("r") == pytest.approx(5.11)
    assert speaker.first_audible("other") is None
    speaker.push("quiet", silence(100), 6.0)
    assert speaker.first_audible("quiet") is None


def test_what_was_heard_is_rendered_on_one_timeline() -> None:
    parts = [PlayedPart("a", 1.0, np.full(240, 5, np.int16)), PlayedPart("b", 2.0, np.full(240, 7, np.int16))]
    heard = render(parts, 0.5)
    assert (heard[:12_000] == 0).all()
    assert (heard[12_000:12_240] == 5).all()
    assert (heard[36_000:36_240] == 7).all()
    # A start within a part leaves out what came before.
    assert (render(parts, 1.005)[:120] == 5).all()
    assert len(render([], 0.0)) == 0
