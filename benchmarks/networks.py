"""Bad networks, from a seed: what becomes of each packet. Pure; time is an argument, in seconds. No kernel here has netem.

`benchmarks.relay` puts one between two sockets; `benchmarks.lossy_calls` counts what is heard through them.
"""

import random
from dataclasses import dataclass
from typing import Final

__all__ = ["GOOD", "NETWORKS", "Network", "Path"]


@dataclass(frozen=True, slots=True)
class Network:
    """One direction. Shares are of all packets. A stall holds everything up: what was sent between `stall_at` and `stall_at + stall`
    comes at its end, in order."""

    loss: float = 0.0
    # Of the packets, the mean run that is lost together; 1 where each is lost by itself.
    burst: float = 1.0
    # Each packet takes up to so many seconds more, each its own: they overtake one another.
    jitter: float = 0.0
    # This share goes after the packet that follows it.
    swapped: float = 0.0
    # This share arrives a second time, 10 ms later.
    repeated: float = 0.0
    stall_at: float = 0.0
    stall: float = 0.0


GOOD: Final = Network()

NETWORKS: Final[dict[str, Network]] = {
    "good": GOOD,
    "5 % loss": Network(loss=0.05),
    "20 % loss": Network(loss=0.2),
    "20 % loss in runs of 3": Network(loss=0.2, burst=3.0),
    "40 % loss": Network(loss=0.4),
    "200 ms jitter": Network(jitter=0.2),
    "30 % swapped": Network(swapped=0.3),
    "30 % twice": Network(repeated=0.3),
    "stall of 0.4 s": Network(stall_at=1.0, stall=0.4),
    "stall of 2 s": Network(stall_at=1.0, stall=2.0),
    "stall of 30 s": Network(stall_at=1.0, stall=30.0),
}
"""The rows of the loss matrix."""


class Path:
    """One direction of one connection. Ask once for each packet, in the order they are sent."""

    def __init__(self, network: Network, seed: int) -> None:
        self._network = network
        self._chance = random.Random(seed)
        self._losing = False
        self._sent = 0.0

    def arrivals(self, now: float) -> list[float]:
        """When a packet that is sent now arrives: never, once, or twice. `now` counts from the connection's beginning."""
        network, chance = self._network, self._chance.random
        step, self._sent = now - self._sent, now
        # All of the dice are thrown for every packet, so that a change of one share changes no other's outcome.
        lost, delay, swapped, repeated = chance(), chance() * network.jitter, chance() < network.swapped, chance() < network.repeated
        if self._lose(lost):
            return []
        if swapped:
            delay += 1.5 * min(max(step, 0.01), 0.06)
        at = now + delay
        if network.stall_at <= now < network.stall_at + network.stall:
            at = max(at, network.stall_at + network.stall)
        return [at, at + 0.01] if repeated else [at]

    def _lose(self, die: float) -> bool:
        """A two-state chain (Gilbert): `burst` is the mean length of a run, `loss` the share of all."""
        network = self._network
        if network.burst <= 1.0:
            return die < network.loss
        leave = 1.0 / network.burst
        enter = leave * network.loss / (1.0 - network.loss)
        self._losing = die >= leave if self._losing else die < enter
        return self._losing
