"""Prometheus metrics of one server, in a registry of their own."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from server.echo import EchoNews
from server.ledger import STAGES, TurnLedger
from streaming.events import SAMPLE_RATE, SoundKind

__all__ = ["CONTENT_TYPE", "Metrics"]

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_BUCKETS: Final = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7, 0.9, 1.2, 1.5, 2.0, 3.0, 5.0, 10.0)
"""Seconds: dense where a conversation feels the difference."""
_WAIT_BUCKETS: Final = (0.001, 0.01, 0.02, 0.04, 0.06, 0.1, 0.2)
"""Seconds: a packet in order waits for nothing, one behind a gap for three others at most."""


class Metrics:
    """What operations wants to see."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.sessions = Gauge("vivavoce_sessions", "Sessions open", registry=self._registry)
        self.sessions_ended = Counter("vivavoce_sessions_ended", "Sessions ended, by close code", ["code"], registry=self._registry)
        self.refused = Counter("vivavoce_refused", "Requests refused before a session, by reason", ["reason"], registry=self._registry)
        self.engine_busy = Gauge("vivavoce_engine_busy", "Share of the last seconds in which the engine worked", registry=self._registry)
        self._speculations = Counter(
            "vivavoce_speculations", "Replies prepared at a pause, by outcome", ["outcome"], registry=self._registry
        )
        self._wasted = Counter(
            "vivavoce_speculation_wasted_tokens", "Tokens decoded for replies that were dropped", registry=self._registry
        )
        for outcome in ("adopted", "dropped"):
            self._speculations.labels(outcome)  # there from the start, so that a rate can be taken
        self._sounds = Counter("vivavoce_sounds", "Sounds of callers that are not speech, by kind", ["kind"], registry=self._registry)
        self._echo_cancellation = Counter(
            "vivavoce_echo_cancellation",
            "Sessions in which echo cancellation began, and those in which it failed",
            ["outcome"],
            registry=self._registry,
        )
        self._turn = Histogram(
            "vivavoce_turn_seconds",
            "Last speech sample received to first audio sent",
            registry=self._registry,
            buckets=_BUCKETS,
        )
        self._stage = Histogram(
            "vivavoce_turn_stage_seconds", "Stages of a turn's latency", ["stage"], registry=self._registry, buckets=_BUCKETS
        )

        self.webrtc_calls = Counter("vivavoce_webrtc_calls", "WebRTC calls answered, by outcome", ["outcome"], registry=self._registry)
        self.rtp_packets = Counter(
            "vivavoce_rtp_packets",
            "RTP packets of callers, by what became of them, counted at the end of a call",
            ["outcome"],
            registry=self._registry,
        )
        self.rtp_wait = Histogram(
            "vivavoce_rtp_wait_seconds",
            "How long RTP packets waited for those before them",
            registry=self._registry,
            buckets=_WAIT_BUCKETS,
        )

    def turn(self, turn: TurnLedger) -> None:
        """A turn's first audio has left, or has been heard: of that only what clients report is counted, for an estimate is none."""
        if turn.played is not None:
            if turn.reported:
                self._stage.labels("played").observe(turn.played / SAMPLE_RATE)
            return
        self._turn.observe(turn.total / SAMPLE_RATE)
        for stage, ticks in zip(STAGES, turn.stages, strict=True):
            self._stage.labels(stage).observe(ticks / SAMPLE_RATE)

    def speculation(self, adopted: bool, wasted: int) -> None:
        """A reply that was prepared has been adopted, or dropped with `wasted` tokens decoded."""
        self._speculations.labels("adopted" if adopted else "dropped").inc()
        self._wasted.inc(wasted)

    def sound(self, kind: SoundKind) -> None:
        """A sound that is not speech began."""
        self._sounds.labels(kind.value).inc()

    def echo(self, news: EchoNews) -> None:
        """Echo cancellation began in a session, or failed."""
        self._echo_cancellation.labels(news.value).inc()

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self._registry)
