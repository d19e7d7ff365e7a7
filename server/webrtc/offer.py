"""SDP offers and answers around the WebRTC library, as text. Pure.

The library reads a well-formed offer of what it knows and nothing else: it fails on odd lines with whatever error comes first, cannot
reject a media section, and has no bounds. So it is given the parts of an offer that a call needs, checked: one audio section with Opus, the
data channel's, and a few candidates. Everything else is rejected in the answer (RFC 9429 section 5.3.1: port 0, no place in the bundle).
"""

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

__all__ = ["Offer", "OfferError", "is_usable_candidate", "read_offer", "write_answer"]

_MAX_BYTES: Final = 64 << 10
"""Browsers' offers have 2 to 10 KiB."""
_MAX_SECTIONS: Final = 32
_MAX_CANDIDATES: Final = 32
"""Each is a series of checks that we send; a browser with every network there is offers a dozen."""
_MAX_SSRC_LINES: Final = 16

_TOKEN: Final = r"[A-Za-z0-9+/=_.~!#$%&'*^`|{}-]"
_NUMBER: Final = r"\d{1,10}"
# What may stand in a kept section, each in the only form the library reads (RFC 8866, 8839, 8842, 8841, 5285).
_KEPT: Final = tuple(
    re.compile(pattern)
    for pattern in (
        rf"a=mid:{_TOKEN}{{1,64}}",
        rf"a=msid:{_TOKEN}{{1,64}}( {_TOKEN}{{1,64}})?",
        r"a=rtcp-mux",
        r"a=(sendrecv|sendonly|recvonly|inactive)",
        r"a=setup:(actpass|active|passive)",
        rf"a=ssrc:{_NUMBER} (cname|msid):[^\r\n]{{1,128}}",
        r"a=extmap:\d{1,3}(/[a-z]+)? [^\s]{1,256}",
        rf"a=ice-ufrag:{_TOKEN}{{4,256}}",
        rf"a=ice-pwd:{_TOKEN}{{22,256}}",
        r"a=fingerprint:sha-(256|384|512) [0-9A-Fa-f:]{95,191}",
        r"a=sctp-port:\d{1,5}",
        rf"a=max-message-size:{_NUMBER}",
    )
)
_CANDIDATE: Final = re.compile(
    rf"a=candidate:\S{{1,64}} \d{{1,3}} (udp|UDP) {_NUMBER} (\S{{1,64}}) \d{{1,5}} typ (host|srflx|prflx|relay)( \S+)*"
)
_OPUS: Final = re.compile(r"a=rtpmap:(\d{1,3}) opus/48000/2", re.IGNORECASE)
_SECTION: Final = re.compile(r"m=([a-z]{1,16}) \d{1,5} ([A-Z/]{3,32}) ([^\r\n]{1,512})")


class OfferError(Exception):
    """The offer can't be taken; the message says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Offer:
    """What of an offer is taken. `rejected` has an entry for each of its media sections, in order: "" where it is taken, else the section
    that says no. `has_events`: whether it wants a data channel."""

    sdp: str
    rejected: tuple[str, ...]
    has_events: bool


def read_offer(text: str) -> Offer:
    """Raises OfferError."""
    if len(text) > _MAX_BYTES:
        raise OfferError(f"The offer is too large: at most {_MAX_BYTES} bytes.")
    lines = [line.rstrip() for line in text.strip().splitlines()]
    if not lines or lines[0] != "v=0":
        raise OfferError("The body is not an SDP offer: it does not begin with 'v=0'.")
    session, sections = _split(lines)
    if len(sections) > _MAX_SECTIONS:
        raise OfferError(f"The offer has too many media sections: at most {_MAX_SECTIONS}.")
    audio = next((section for section in sections if section[0].startswith("m=audio ")), None)
    if audio is None:
        raise OfferError("The offer has no audio.")
    data = next((section for section in sections if section[0].startswith("m=application ") and "webrtc-datachannel" in section[0]), None)
    kept = [section for section in sections if section is audio or section is data]
    mids = [_attribute(section, "mid") for section in kept]
    if len(set(mids)) < len(mids) or "" in mids:
        raise OfferError("Every media section needs an 'a=mid' of its own.")
    budget = _MAX_CANDIDATES
    written: list[str] = [*_session_lines(session, mids)]
    for section in kept:
        lines = _section_lines(section, session, budget)
        budget -= sum(line.startswith("a=candidate:") for line in lines)
        written += lines
    rejected = tuple("" if section is audio or section is data else _rejection(section) for section in sections)
    return Offer("\r\n".join(written) + "\r\n", rejected, data is not None)


def write_answer(answer: str, offer: Offer) -> str:
    """The library's answer to `offer.sdp`, as an answer to the whole offer."""
    session, sections = _split(answer.splitlines())
    rest = iter(sections)
    written = ["\r\n".join(session)]
    written += [rejection or "\r\n".join(next(rest)) for rejection in offer.rejected]
    return "\r\n".join(written) + "\r\n"


def is_usable_candidate(line: str) -> bool:
    """Whether `line` (`a=candidate:...`) can be checked: UDP at an address. Names ending in `.local` are left out: to look one up takes
    seconds, and the browser that hides behind it calls us, which shows its address."""
    match = _CANDIDATE.fullmatch(line)
    if match is None:
        return False
    try:
        ipaddress.ip_address(match[2])
    except ValueError:
        return False
    return True


def _split(lines: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """The session's lines, and those of each media section."""
    session: list[str] = []
    sections: list[list[str]] = []
    for line in lines:
        if line.startswith("m="):
            sections.append([line])
        else:
            (sections[-1] if sections else session).append(line)
    return session, sections


def _session_lines(session: Sequence[str], mids: Sequence[str]) -> list[str]:
    bundled = next((line.split()[1:] for line in session if line.startswith("a=group:BUNDLE ")), [])
    lines = ["v=0", "o=- 0 0 IN IP4 127.0.0.1", "s=-", "t=0 0", "a=msid-semantic:WMS *"]
    if "a=ice-lite" in session:
        lines.append("a=ice-lite")
    if shared := [mid for mid in bundled if mid in mids]:
        lines.append(f"a=group:BUNDLE {' '.join(shared)}")
    return lines


def _section_lines(section: Sequence[str], session: Sequence[str], budget: int) -> list[str]:
    """A kept section: its lines of known form, with what the session says for all; at most `budget` candidates."""
    _section_match(section)
    lines = [line for line in section[1:] if any(pattern.fullmatch(line) for pattern in _KEPT)]
    for name, what in (
        ("ice-ufrag", "ICE user name"),
        ("ice-pwd", "ICE password"),
        ("fingerprint", "DTLS fingerprint"),
        ("setup", "DTLS role"),
    ):
        if not _attribute(lines, name):
            shared = [line for line in session if line.startswith(f"a={name}:") and any(pattern.fullmatch(line) for pattern in _KEPT)]
            if not shared:
                raise OfferError(f"The offer has no {what} that can be used (a={name}).")
            lines += shared[:1]
    ssrc = [line for line in lines if line.startswith("a=ssrc:")]
    lines = [line for line in lines if line not in ssrc] + ssrc[:_MAX_SSRC_LINES]
    lines += [line for line in section if is_usable_candidate(line)][:budget]
    return [*_codec_lines(section), "c=IN IP4 0.0.0.0", *lines]


def _codec_lines(section: Sequence[str]) -> list[str]:
    """The section's first line with the one format that is spoken in it, and what describes that."""
    if section[0].startswith("m=application "):
        return ["m=application 9 UDP/DTLS/SCTP webrtc-datachannel"]
    offered = section[0].split()[3:]
    opus = next((match[1] for line in section if (match := _OPUS.fullmatch(line)) and match[1] in offered), None)
    if opus is None or not 0 <= int(opus) < 128 or 72 <= int(opus) <= 76:  # RFC 5761 section 4: those would be taken for RTCP
        raise OfferError("The offer's audio has no Opus, which is the only codec of this server (RFC 7874 asks every client for it).")
    return [f"m=audio 9 UDP/TLS/RTP/SAVPF {opus}", f"a=rtpmap:{opus} opus/48000/2", f"a=fmtp:{opus} minptime=10;useinbandfec=1"]


def _section_match(section: Sequence[str]) -> re.Match[str]:
    match = _SECTION.fullmatch(section[0])
    if match is None:
        raise OfferError(f"The offer has a media section that can't be read: {section[0][:64]!r}.")
    return match


def _attribute(lines: Sequence[str], name: str) -> str:
    prefix = f"a={name}:"
    return next((line.removeprefix(prefix) for line in lines if line.startswith(prefix)), "")


def _rejection(section: Sequence[str]) -> str:
    match = _section_match(section)
    lines = [f"m={match[1]} 0 {match[2]} {match[3]}", "c=IN IP4 0.0.0.0", "a=inactive"]
    mid = _attribute(section, "mid")
    return "\r\n".join([*lines, *([f"a=mid:{mid}"] if re.fullmatch(rf"{_TOKEN}{{1,64}}", mid) else [])])
