"""Offers of every kind: what is taken of them, what is refused, and that nothing else happens."""

import pytest
from aiortc.sdp import SessionDescription
from hypothesis import given, settings
from hypothesis import strategies as st

from server.webrtc.offer import OfferError, is_usable_candidate, read_offer, write_answer

FINGERPRINT = "a=fingerprint:sha-256 " + ":".join(["AB"] * 32)
HOST = "a=candidate:1 1 udp 2130706431 192.0.2.7 50000 typ host"
AUDIO = [
    "m=audio 9 UDP/TLS/RTP/SAVPF 111 63 9 0 8 13 110 126",
    "c=IN IP4 0.0.0.0",
    "a=rtcp:9 IN IP4 0.0.0.0",
    "a=ice-ufrag:abcd",
    "a=ice-pwd:0123456789012345678901",
    "a=ice-options:trickle",
    FINGERPRINT,
    "a=setup:actpass",
    "a=mid:0",
    "a=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level",
    "a=sendrecv",
    "a=msid:stream track",
    "a=rtcp-mux",
    "a=rtpmap:111 opus/48000/2",
    "a=rtcp-fb:111 transport-cc",
    "a=fmtp:111 minptime=10;useinbandfec=1",
    "a=rtpmap:63 red/48000/2",
    "a=fmtp:63 111/111",
    "a=rtpmap:9 G722/8000",
    "a=ssrc:1234 cname:who",
]
DATA = [
    "m=application 9 UDP/DTLS/SCTP webrtc-datachannel",
    "c=IN IP4 0.0.0.0",
    "a=ice-ufrag:abcd",
    "a=ice-pwd:0123456789012345678901",
    FINGERPRINT,
    "a=setup:actpass",
    "a=mid:1",
    "a=sctp-port:5000",
    "a=max-message-size:262144",
]
VIDEO = [line.replace("a=mid:0", "a=mid:2") for line in AUDIO[1:-10]]
VIDEO = ["m=video 9 UDP/TLS/RTP/SAVPF 96", *VIDEO, "a=rtpmap:96 H265/90000"]


def sdp(*sections: list[str], session: tuple[str, ...] = (), group: str = "0 1") -> str:
    head = ["v=0", "o=- 1 2 IN IP4 127.0.0.1", "s=-", "t=0 0", f"a=group:BUNDLE {group}", *session]
    return "\r\n".join([*head, *(line for section in sections for line in section), ""])


def without(section: list[str], prefix: str) -> list[str]:
    return [line for line in section if not line.startswith(prefix)]


def test_of_a_browsers_offer_opus_and_the_data_channel_are_taken() -> None:
    offer = read_offer(sdp(AUDIO, DATA))
    assert offer.has_events
    assert offer.rejected == ("", "")
    parsed = SessionDescription.parse(offer.sdp)
    audio, data = parsed.media
    assert [codec.name for codec in audio.rtp.codecs] == ["opus"]
    assert (audio.rtp.muxId, audio.direction, audio.ice.usernameFragment) == ("0", "sendrecv", "abcd")
    assert (data.sctp_port, data.sctpCapabilities.maxMessageSize) == (5000, 262144)
    assert parsed.group[0].items == ["0", "1"]


def test_what_stands_once_for_all_sections_is_found() -> None:
    shared = ("a=ice-ufrag:abcd", "a=ice-pwd:0123456789012345678901", FINGERPRINT, "a=setup:actpass")
    bare = [line for line in AUDIO if line not in shared]
    parsed = SessionDescription.parse(read_offer(sdp(bare, session=shared, group="0")).sdp)
    assert parsed.media[0].ice.password == "0123456789012345678901"
    assert len(parsed.media[0].dtls.fingerprints) == 1


def test_video_is_rejected_in_the_answer_and_audio_kept() -> None:
    offer = read_offer(sdp(VIDEO, AUDIO, DATA, group="2 0 1"))
    assert [bool(rejection) for rejection in offer.rejected] == [True, False, False]
    assert "video" not in offer.sdp
    assert SessionDescription.parse(offer.sdp).group[0].items == ["0", "1"]
    answer = write_answer(sdp(AUDIO, DATA), offer)
    lines = [line for line in answer.splitlines() if line.startswith(("m=", "a=mid:", "a=inactive"))]
    assert lines == ["m=video 0 UDP/TLS/RTP/SAVPF 96", "a=inactive", "a=mid:2", AUDIO[0], "a=mid:0", DATA[0], "a=mid:1"]


def test_a_second_audio_section_is_rejected() -> None:
    second = [line.replace("a=mid:0", "a=mid:5") for line in AUDIO]
    offer = read_offer(sdp(AUDIO, second))
    assert [bool(rejection) for rejection in offer.rejected] == [False, True]


def test_of_a_thousand_candidates_a_few_are_looked_at() -> None:
    many = [f"a=candidate:{number} 1 udp 1 192.0.2.{number % 250} {1_024 + number} typ host" for number in range(1_000)]
    offer = read_offer(sdp(AUDIO + many[:500], DATA + many[500:]))
    assert offer.sdp.count("a=candidate:") == 32


@pytest.mark.parametrize(
    ("line", "usable"),
    [
        (HOST, True),
        ("a=candidate:1 1 UDP 1 2001:db8::1 5 typ srflx raddr 0.0.0.0 rport 9 generation 0", True),
        (HOST.replace("udp", "tcp") + " tcptype active", False),
        (HOST.replace("192.0.2.7", "b1c2.local"), False),
        (HOST.replace("192.0.2.7", "example.org"), False),
        (HOST.replace("host", "nonsense"), False),
        ("a=candidate:", False),
        ("", False),
    ],
)
def test_usable_candidates(line, usable) -> None:
    assert is_usable_candidate(line) is usable


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "does not begin with 'v=0'"),
        ("hello", "does not begin with 'v=0'"),
        ("v=0", "has no audio"),
        (sdp(DATA), "has no audio"),
        (sdp(VIDEO), "has no audio"),
        ("v=0\r\n" + "a=x\r\n" * 20_000, "too large"),
        (sdp(*[AUDIO] * 33), "too many media sections"),
        (sdp(without(AUDIO, "a=mid")), "a=mid"),
        (sdp(AUDIO, [line.replace("a=mid:1", "a=mid:0") for line in DATA]), "a=mid"),
        (sdp(without(AUDIO, "a=ice-ufrag")), "ICE user name"),
        (sdp(without(AUDIO, "a=ice-pwd")), "ICE password"),
        (sdp(without(AUDIO, "a=fingerprint")), "DTLS fingerprint"),
        (sdp([line.replace("sha-256", "md5") for line in AUDIO]), "DTLS fingerprint"),
        (sdp(without(AUDIO, "a=setup")), "DTLS role"),
        (sdp(without(AUDIO, "a=rtpmap:111")), "no Opus"),
        (sdp([line.replace("111", "999") for line in AUDIO]), "no Opus"),
        (sdp(["m=audio nonsense", *AUDIO[1:]]), "can't be read"),
    ],
)
def test_what_can_not_be_taken_is_refused_by_name(text, message) -> None:
    with pytest.raises(OfferError, match=message):
        read_offer(text)


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_a_damaged_offer_is_refused_or_reads_in_the_library(data) -> None:
    lines = sdp([*AUDIO, HOST], DATA).splitlines()
    for _ in range(data.draw(st.integers(0, 4))):
        number = data.draw(st.integers(0, len(lines) - 1))
        match data.draw(st.integers(0, 3)):
            case 0:
                del lines[number]
            case 1:
                lines[number] = lines[number][: data.draw(st.integers(0, len(lines[number])))]
            case 2:
                lines[number] += data.draw(st.text(max_size=8))
            case 3:
                lines.insert(number, lines[data.draw(st.integers(0, len(lines) - 1))])
    try:
        offer = read_offer("\r\n".join(lines))
    except OfferError:
        return
    assert len(SessionDescription.parse(offer.sdp).media) == 1 + offer.has_events
