"""Playout without a clock: what leaves when, what counts as heard. Times in 1/16000 s, samples at 24 kHz unless said."""

import numpy as np
import pytest

from agent.commands import Cut, Duck, Hold, OpenPlayout, PartRef, Release, Resume
from agent.events import PlaybackProgress
from agent.settings import AudioEncoding, AudioFormat, PlaybackOwner
from server.playout import AudioDelta, FirstHeard, Playout, PlayoutOverflowError
from streaming.audio import decode_pcm16, decode_ulaw
from streaming.doors import SynthesisedAudio

SECOND = 16_000
RATE = 24_000


def open_voice(playout: Playout, response_id: str, wire: AudioFormat | None = None) -> None:
    playout.order(OpenPlayout(PartRef(response_id, "item", 0, 0), wire or AudioFormat()), 0)


def push(playout: Playout, response_id: str, start: int, samples: int, value: int = 1000) -> None:
    playout.push(SynthesisedAudio("sess", response_id, start, np.full(samples, value, np.int16)))


def drain(playout: Playout, now: int) -> list[AudioDelta]:
    deltas = []
    while (delta := playout.next_delta(now)) is not None:
        deltas.append(delta)
    return deltas


def playing(seconds: float = 1.0, response_id: str = "r1") -> Playout:
    """A client-owned playout with audio released."""
    playout = Playout()
    open_voice(playout, response_id)
    push(playout, response_id, 0, int(RATE * seconds))
    playout.order(Release(response_id, int(RATE * seconds)), 0)
    return playout


def test_nothing_leaves_before_it_is_opened_and_released() -> None:
    playout = Playout()
    push(playout, "r1", 0, 480)
    playout.order(Release("r1", 480), 0)
    assert playout.next_delta(0) is None
    playout = Playout()
    push(playout, "r1", 0, 480)
    open_voice(playout, "r1")
    assert playout.next_delta(0) is None
    playout.order(Release("r1", 240), 0)
    assert [(delta.start, delta.samples) for delta in drain(playout, 0)] == [(0, 240)]


def test_deltas_are_contiguous_and_at_most_200_ms() -> None:
    deltas = drain(playing(1.1), 0)
    assert [delta.samples for delta in deltas] == [4800, 4800, 4800, 4800, 4800, 2400]
    assert [delta.start for delta in deltas] == [0, 4800, 9600, 14400, 19200, 24000]
    assert b"".join(delta.payload for delta in deltas) == np.full(26_400, 1000, "<i2").tobytes()


def test_a_delta_may_span_clauses() -> None:
    playout = playing(0.05)
    push(playout, "r1", 1200, 1200, value=-5)
    playout.order(Release("r1", 2400), 0)
    (delta,) = drain(playout, 0)
    assert decode_pcm16(delta.payload).tolist() == [1000] * 1200 + [-5] * 1200


def test_a_client_that_owns_playback_is_at_most_ten_seconds_ahead() -> None:
    playout = playing(15)
    sent = sum(delta.samples for delta in drain(playout, 0))
    assert sent == 10 * RATE
    assert playout.next_delta(0) is None
    assert playout.deadline() is not None
    assert [delta.samples for delta in drain(playout, SECOND)] == [4800] * 5


def test_an_acknowledging_client_is_at_most_400_ms_ahead() -> None:
    playout = playing(2)
    playout.owner = PlaybackOwner.ACKED
    assert sum(delta.samples for delta in drain(playout, 0)) == 400 * RATE // 1000
    due = playout.deadline()
    assert due == 1
    assert [delta.samples for delta in drain(playout, due)] == [2400]
    assert drain(playout, due) == []


def test_without_room_there_is_no_deadline_to_send() -> None:
    playout = playing(1)
    assert playout.deadline() is not None
    assert playout.deadline(room=False) is None


@pytest.mark.parametrize(("after", "played"), [(0, 0), (0.06, 0), (0.16, 2_400), (0.56, 12_000), (1.06, 24_000), (60, 24_000)])
def test_heard_is_what_time_allows(after: float, played: int) -> None:
    playout = playing(1)
    drain(playout, 0)
    reports = playout.progress(int(after * SECOND), fresh=True)
    assert reports == [PlaybackProgress("r1", 24_000, played)]


def test_nothing_unsent_counts_as_heard() -> None:
    playout = Playout()
    open_voice(playout, "r1")
    push(playout, "r1", 0, RATE)
    playout.order(Release("r1", 480), 0)
    drain(playout, 0)
    assert playout.progress(SECOND) == [PlaybackProgress("r1", 480, 480)]


def test_a_gap_in_the_audio_is_not_played_twice_as_fast_later() -> None:
    playout = playing(0.1)
    drain(playout, 0)
    playout.progress(0)
    push(playout, "r1", 2400, 2400)
    playout.order(Release("r1", 4800), 0)
    drain(playout, 2 * SECOND)
    assert playout.progress(2 * SECOND) == [PlaybackProgress("r1", 4800, 2400)]
    assert playout.progress(2 * SECOND + 1760) == [PlaybackProgress("r1", 4800, 3600)]


def test_progress_comes_every_100_ms_and_at_the_end() -> None:
    playout = playing(0.3)
    drain(playout, 0)
    assert playout.progress(0) == [PlaybackProgress("r1", 7200, 0)]
    times, played = [], []
    while (due := playout.deadline()) is not None:
        reports = playout.progress(due)
        assert len(reports) == 1  # never woken for nothing
        times.append(due)
        played.append(reports[0].played)
    assert times == [1600, 3200, 4800, 5760]
    assert played == [960, 3360, 5760, 7200]


def test_consecutive_responses_are_played_one_after_the_other() -> None:
    playout = playing(1)
    drain(playout, 0)
    playout.finish("r1")
    open_voice(playout, "r2")
    push(playout, "r2", 0, RATE)
    playout.order(Release("r2", RATE), 0)
    drain(playout, SECOND // 2)
    assert playout.progress(SECOND // 2)[1] == PlaybackProgress("r2", RATE, 0)
    assert playout.progress(SECOND + 960) == [PlaybackProgress("r1", RATE, RATE)]
    reports = []
    while (due := playout.deadline()) is not None:
        told = playout.progress(due)
        assert len(told) == 1
        reports.append((due, told[0].played))
    assert reports[0][0] == SECOND + 960 + 16
    assert reports[-1] == (2 * SECOND + 960, RATE)


def test_a_cut_voice_sends_nothing_more_and_frees_the_clock() -> None:
    playout = playing(15)
    drain(playout, 0)
    playout.progress(SECOND)
    playout.order(Cut("r1"), SECOND)
    push(playout, "r1", 15 * RATE, 480)
    playout.order(Release("r1", 16 * RATE), SECOND)
    assert playout.next_delta(SECOND) is None
    assert (playout.progress(2 * SECOND), playout.silent, playout.queued_samples) == ([], True, 0)
    open_voice(playout, "r2")
    push(playout, "r2", 0, 2400)
    playout.order(Release("r2", 2400), 0)
    drain(playout, SECOND)
    assert playout.progress(SECOND + 1600 + 960)[0].played == 2400


def test_after_a_truncate_the_next_response_is_heard_at_once() -> None:
    playout = playing(8)
    drain(playout, 0)
    playout.finish("r1")
    playout.flushed("item", 1_000, SECOND)
    open_voice(playout, "r2")
    push(playout, "r2", 0, 2400)
    playout.order(Release("r2", 2400), SECOND)
    drain(playout, SECOND)
    assert PlaybackProgress("r2", 2400, 2400) in playout.progress(SECOND + 1600 + 960)


def test_a_late_truncate_moves_up_what_was_sent_behind_it() -> None:
    playout = playing(8)
    drain(playout, 0)
    playout.finish("r1")
    playout.order(OpenPlayout(PartRef("r2", "next", 0, 0), AudioFormat()), SECOND)
    push(playout, "r2", 0, RATE)
    playout.order(Release("r2", RATE), SECOND)
    drain(playout, SECOND)
    for _ in range(2):  # the client played 1 s of the first and went on with the second as it came; it may say so twice
        playout.flushed("item", 1_000, 3 * SECOND // 2)
    assert PlaybackProgress("r2", RATE, 10_560) in playout.progress(3 * SECOND // 2, fresh=True)
    assert PlaybackProgress("r2", RATE, RATE) in playout.progress(2 * SECOND + 960)


def test_audio_of_a_dropped_speculation_is_forgotten() -> None:
    playout = Playout()
    push(playout, "r1", 0, 480)
    assert playout.silent  # nobody waits for it
    playout.forget("r1")
    push(playout, "r1", 480, 480)
    assert playout.silent
    open_voice(playout, "r1")
    assert playout.silent


def test_forgetting_an_open_voice_waits_for_its_cut() -> None:
    playout = playing(1)
    playout.forget("r1")
    assert len(drain(playout, 0)) == 5


def test_acknowledged_playback_is_as_reported() -> None:
    playout = playing(1)
    playout.owner = PlaybackOwner.ACKED
    drain(playout, 0)
    playout.progress(0)
    playout.acknowledge("r1", 100, 2 * SECOND)
    assert playout.progress(2 * SECOND) == [PlaybackProgress("r1", 9600, 2400)]
    playout.acknowledge("r1", 50, 2 * SECOND)
    assert playout.progress(2 * SECOND) == []
    playout.acknowledge("r1", 99_999, 2 * SECOND)
    assert playout.progress(2 * SECOND) == [PlaybackProgress("r1", 9600, 9600)]
    playout.acknowledge("unknown", 5, 0)


def test_that_a_response_is_heard_is_told_once_by_what_the_client_reports() -> None:
    playout = playing()
    playout.owner = PlaybackOwner.ACKED
    drain(playout, SECOND)
    playout.progress(SECOND)
    playout.acknowledge("r1", 0, SECOND + 500)
    assert playout.take_heard() == []
    playout.acknowledge("r1", 100, SECOND + 2_000)
    playout.acknowledge("r1", 200, SECOND + 3_600)
    assert playout.take_heard() == [FirstHeard("r1", SECOND + 400, reported=True)]
    assert playout.take_heard() == []


def test_a_response_is_not_heard_before_it_was_sent() -> None:
    playout = playing()
    playout.owner = PlaybackOwner.ACKED
    drain(playout, SECOND)
    playout.acknowledge("r1", 400, SECOND + 100)
    assert playout.take_heard() == [FirstHeard("r1", SECOND, reported=True)]


def test_when_a_response_is_heard_is_estimated_from_what_plays_before_it() -> None:
    playout = playing(1.0)
    open_voice(playout, "r2")
    push(playout, "r2", 0, 4_800)
    playout.order(Release("r2", 4_800), 0)
    drain(playout, 0)
    playout.progress(SECOND // 2)
    assert playout.take_heard() == [FirstHeard("r1", 960, reported=False)]
    playout.progress(SECOND + 960)
    assert playout.take_heard() == []
    playout.progress(2 * SECOND)
    assert playout.take_heard() == [FirstHeard("r2", SECOND + 960, reported=False)]


def test_after_a_cut_the_next_response_is_heard_sooner() -> None:
    playout = playing(1.0)
    open_voice(playout, "r2")
    push(playout, "r2", 0, 4_800)
    playout.order(Release("r2", 4_800), 0)
    drain(playout, 0)
    playout.progress(SECOND // 2)
    playout.order(Cut("r1"), SECOND // 2)
    playout.progress(2 * SECOND)
    assert playout.take_heard() == [FirstHeard("r1", 960, reported=False), FirstHeard("r2", SECOND // 2 + 960, reported=False)]


def test_where_we_own_playback_what_is_heard_is_known() -> None:
    playout = playing()
    playout.owner = PlaybackOwner.SERVER
    drain(playout, SECOND)
    playout.progress(SECOND + 160)
    assert playout.take_heard() == [FirstHeard("r1", SECOND, reported=True)]


def test_of_what_is_cut_before_it_is_heard_and_of_a_client_that_does_not_report_nothing_is_told() -> None:
    playout = playing()
    drain(playout, 0)
    playout.order(Cut("r1"), 100)
    playout.progress(SECOND)
    assert playout.take_heard() == []
    playout = playing()
    playout.owner = PlaybackOwner.ACKED
    drain(playout, 0)
    playout.progress(10 * SECOND)
    assert playout.take_heard() == []


def test_a_client_behind_its_acknowledgements_gets_no_more_ahead() -> None:
    playout = playing(2)
    playout.owner = PlaybackOwner.ACKED
    drain(playout, 0)
    playout.acknowledge("r1", 0, SECOND)
    assert drain(playout, SECOND) == []
    playout.acknowledge("r1", 300, SECOND)
    assert [delta.samples for delta in drain(playout, SECOND)] == [2400] * 3


def test_lost_acknowledgements_do_not_hold_the_turn() -> None:
    playout = playing(0.1)
    playout.owner = PlaybackOwner.ACKED
    drain(playout, 0)
    playout.finish("r1")
    playout.progress(0)
    due = playout.deadline()
    assert due == 1600 + 2 * SECOND
    assert playout.progress(due) == [PlaybackProgress("r1", 2400, 2400)]
    assert playout.silent


def test_a_voice_that_is_over_is_removed() -> None:
    playout = playing(0.1)
    drain(playout, 0)
    playout.finish("r1")
    playout.progress(SECOND)
    assert (playout.silent, playout.deadline()) == (True, None)


def test_a_response_without_audio_leaves_nothing_behind() -> None:
    playout = Playout()
    open_voice(playout, "r1")
    playout.finish("r1")
    playout.finish("text only")
    assert playout.silent


def test_ducking_ramps_over_20_ms_and_resumes() -> None:
    playout = playing(1)
    playout.order(Duck("r1"), 0)
    ducked = playout.next_delta(0)
    playout.order(Resume("r1"), 0)
    resumed = playout.next_delta(0)
    assert ducked is not None
    assert resumed is not None
    down, up = decode_pcm16(ducked.payload).astype(int), decode_pcm16(resumed.payload).astype(int)
    assert (down[479], down[480], down[-1]) == (250, 250, 250)
    assert (up[479], up[-1], len(down), len(up)) == (1000, 1000, 4800, 4800)
    joined = np.concatenate(([1000], down, up))
    assert np.abs(np.diff(joined)).max() <= 2


def test_g711_leaves_as_one_byte_a_sample() -> None:
    playout = Playout()
    open_voice(playout, "r1", AudioFormat(AudioEncoding.PCMU, 8_000))
    push(playout, "r1", 0, 1600, value=1000)
    playout.order(Release("r1", 1600), 0)
    (delta,) = drain(playout, 0)
    assert (len(delta.payload), set(decode_ulaw(delta.payload).tolist())) == (1600, {988})
    assert playout.progress(1600 + 960)[0].played == 800


def test_a_gap_from_the_engine_is_our_bug() -> None:
    playout = playing(0.1)
    with pytest.raises(ValueError, match="expected 2400"):
        push(playout, "r1", 2401, 480)


def test_endless_audio_is_refused() -> None:
    playout = Playout()
    push(playout, "r1", 0, 1200 * RATE)
    with pytest.raises(PlayoutOverflowError):
        push(playout, "r1", 1200 * RATE, 1)


def test_what_is_held_keeps_its_place() -> None:
    playout = Playout()
    playout.owner = PlaybackOwner.SERVER
    playout.push(SynthesisedAudio("s", "resp_1", 0, np.arange(24_000, dtype=np.int16)))
    playout.order(OpenPlayout(PartRef("resp_1", "item_1", 0, 0), AudioFormat()), 0)
    playout.order(Release("resp_1", 24_000), 0)

    def sent(now: int) -> list[AudioDelta]:
        deltas = []
        while (delta := playout.next_delta(now)) is not None:
            deltas.append(delta)
        return deltas

    first = sent(0) + sent(1)
    assert [(delta.start, delta.samples) for delta in first] == [(0, 480), (480, 480)]  # the frame that plays and the next
    assert [progress.played for progress in playout.progress(640, fresh=True)] == [960]  # 40 ms later: exactly what has left
    playout.order(Hold("resp_1"), 640)
    assert sent(640) == sent(6_400) == []
    assert playout.progress(6_400, fresh=True) == []
    playout.order(Resume("resp_1"), 6_400)
    assert sent(6_400)[0].start == 960


def test_where_the_transport_asks_for_frames_its_clock_says_what_was_heard() -> None:
    playout = playing(0.05)
    playout.owner = PlaybackOwner.SERVER
    first = playout.next_frame(1_000)
    assert (first.start, first.samples) == (0, 480)
    assert playout.progress(1_000 + 160, fresh=True) == [PlaybackProgress("r1", 480, 240)]
    # A frame that was missed is caught up: the one before it counts as heard, lateness does not add up.
    playout.next_frame(1_700)
    third = playout.next_frame(1_700)
    assert (third.start, third.samples) == (960, 240)
    assert playout.progress(1_700, fresh=True) == [PlaybackProgress("r1", 1_200, 960)]
    assert playout.next_frame(1_720) is None
    assert playout.progress(1_700 + 160) == [PlaybackProgress("r1", 1_200, 1_200)]
    assert [(heard.at, heard.reported) for heard in playout.take_heard()] == [(1_000, True)]


def test_a_held_reply_is_silent_from_the_next_frame_on_and_goes_on_at_its_sample() -> None:
    playout = playing(0.1)
    playout.owner = PlaybackOwner.SERVER
    playout.next_frame(0)
    playout.order(Hold("r1"), 100)
    assert playout.next_frame(320) is None
    playout.order(Resume("r1"), 400)
    assert playout.next_frame(640).start == 480
    playout.order(Cut("r1"), 700)
    assert playout.next_frame(960) is None
