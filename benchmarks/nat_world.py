"""A small internet in network namespaces: hosts with public addresses, hosts behind routers of each kind, a TURN server. Needs Linux,
root, `ip` (iproute2), `nft` (nftables), `turnserver` (coturn) and `openssl`; what this machine itself is connected to is not touched.

Routers translate as RFC 4787 names it:

- `cone`: one mapping for all destinations, everybody may send to it (endpoint-independent mapping and filtering).
- `restricted`: the same mapping, but only an address and port that was sent to may answer. What Linux's masquerading does.
- `symmetric`: another port for each destination, and the same filter.
- `blocked`: as `restricted` for TCP; no UDP leaves.
- `forwarding`: as `restricted`, and a range of UDP ports is forwarded to the host.
"""

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

__all__ = ["KINDS", "SIGNALLING", "TURN_SECRET", "UDP_PORTS", "World", "missing_networks", "udp_sockets", "world"]

KINDS: Final = ("cone", "restricted", "symmetric", "blocked", "forwarding")
SIGNALLING: Final = (8765, 8766)
"""TCP ports that every router forwards to its host: a server's signalling is reached, whatever becomes of its UDP."""
UDP_PORTS: Final = (40_000, 40_063)
"""What a `forwarding` router forwards."""
TURN_SECRET: Final = "a-secret-of-the-tests"
_RELAY_PORTS: Final = (50_000, 50_199)
_PROGRAMS: Final = {"ip": "iproute2", "nft": "nftables", "turnserver": "coturn", "openssl": "openssl"}
_READY_SECONDS: Final = 10.0


def udp_sockets() -> int:
    """UDP sockets that this process holds."""
    inodes = {line.split()[9] for name in ("udp", "udp6") for line in Path(f"/proc/self/net/{name}").read_text().splitlines()[1:]}
    held = 0
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # that of the listing itself
            held += os.readlink(f"/proc/self/fd/{number}").removeprefix("socket:[").removesuffix("]") in inodes
    return held


def missing_networks() -> str | None:
    """What this machine lacks for a world, None if nothing."""
    if lacking := [package for program, package in _PROGRAMS.items() if shutil.which(program) is None]:
        return f"network namespaces need the packages {', '.join(lacking)}"
    if os.geteuid() != 0:
        return "network namespaces need root"
    name = f"vv{os.getpid()}-probe"
    tried = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    if tried.returncode:
        return f"no network namespace can be made here: {tried.stderr.strip()}"
    try:
        rules = _rules("symmetric", "10.0.0.2")
        tried = subprocess.run(["ip", "netns", "exec", name, "nft", "-f", "-"], input=rules, capture_output=True, text=True)
        return f"nftables can't translate addresses here: {tried.stderr.strip()}" if tried.returncode else None
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


@dataclass
class World:
    """`address` is where each host's signalling is reached over IPv4, `six` where those that have IPv6 are over that."""

    prefix: str
    folder: Path
    address: dict[str, str] = field(default_factory=dict)
    six: dict[str, str] = field(default_factory=dict)
    turn: str = ""

    @property
    def certificate(self) -> Path:
        """The TURN server's, which nobody trusts who is not told to (`SSL_CERT_FILE`)."""
        return self.folder / "cert.pem"

    def start(self, host: str, command: Sequence[str], env: Mapping[str, str] | None = None, **pipes: int) -> "subprocess.Popen[str]":
        """A program on a host. Whoever starts it ends it."""
        return subprocess.Popen(["ip", "netns", "exec", self.prefix + host, *command], text=True, env=env, **pipes)  # type: ignore[call-overload,no-any-return]

    def udp_ports(self, host: str) -> set[int]:
        """UDP ports that are open on a host now."""
        shown = _run(["ip", "netns", "exec", self.prefix + host, "cat", "/proc/net/udp", "/proc/net/udp6"])
        return {int(line.split()[1].rpartition(":")[2], 16) for line in shown.splitlines() if not line.lstrip().startswith("sl")}

    def relays_left(self) -> int:
        """Relays that the TURN server goes on to hold: it looks for what has been given back once a second."""
        for _ in range(50):
            if not (held := [port for port in self.udp_ports("turn") if _RELAY_PORTS[0] <= port <= _RELAY_PORTS[1]]):
                break
            time.sleep(0.1)
        return len(held)


@contextlib.contextmanager
def world(public: Sequence[str], behind: Mapping[str, str], six: Sequence[str] = ()) -> Iterator[World]:
    """`public` hosts have addresses of the internet, IPv4 and IPv6; `six` only IPv6; `behind` are hosts and the kind of their router.
    There is always one called `turn`. Nothing of it is left afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        made = World(f"vv{os.getpid()}-", Path(folder))
        try:
            _build(made, ["turn", *public], behind, six)
            with _coturn(made):
                yield made
        finally:
            for name in _namespaces(made.prefix):
                _run(["ip", "netns", "del", name])


def _build(made: World, public: Sequence[str], behind: Mapping[str, str], six: Sequence[str]) -> None:
    routers = [f"{host}-router" for host in behind]
    for name in ("net", *public, *six, *routers, *behind):
        _run(["ip", "netns", "add", made.prefix + name])
    # Where nobody is, packets are lost without a word: with no way there at all coturn ends an allocation.
    _ip(made, "net", ["link add br0 type bridge", "addr add 198.51.100.1/24 dev br0", "link set br0 up"])
    for number, name in enumerate([*public, *six, *routers], 2):
        four, other = f"198.51.100.{number}", f"2001:db8::{number:x}"
        _ip(made, "net", [f"link add p{number} type veth peer name eth0 netns {made.prefix}{name}", f"link set p{number} master br0 up"])
        addresses = [f"addr add {other}/64 dev eth0 nodad"] if name not in routers else []
        if name not in six:
            addresses.append(f"addr add {four}/24 dev eth0")
        way = [] if name in six else ["route add default via 198.51.100.1"]
        _ip(made, name, [*addresses, "link set lo up", "link set eth0 up", *way])
        if name not in six:
            made.address[name.removesuffix("-router")] = four
        if name not in routers:
            made.six[name] = other
    for number, (host, kind) in enumerate(behind.items(), 2):
        router, inside = f"{host}-router", f"10.0.{number}.2"
        _ip(made, host, [f"link add eth0 type veth peer name lan0 netns {made.prefix}{router}", f"addr add {inside}/24 dev eth0"])
        _ip(made, host, ["link set lo up", "link set eth0 up"])
        _ip(made, router, [f"addr add 10.0.{number}.1/24 dev lan0", "link set lan0 up"])
        _ip(made, host, [f"route add default via 10.0.{number}.1"])
        script = "echo 1 > /proc/sys/net/ipv4/ip_forward && exec nft -f -"
        _run(["ip", "netns", "exec", made.prefix + router, "sh", "-c", script], _rules(kind, inside))


def _rules(kind: str, inside: str) -> str:
    """A router's nftables: `eth0` is the internet, `lan0` the host's side. What is dropped on the way in is forgotten at once, so that a
    later packet on the way out still finds its port free."""
    assert kind in KINDS
    forwarded = {"cone": "1024-65535", "forwarding": f"{UDP_PORTS[0]}-{UDP_PORTS[1]}"}.get(kind)
    lines = [f'iifname "eth0" tcp dport {{ {", ".join(map(str, SIGNALLING))} }} dnat to {inside}']
    if forwarded:
        lines.append(f'iifname "eth0" udp dport {forwarded} dnat to {inside}')
    into = "\n    ".join(lines)
    return f"""
table ip nat {{
  chain prerouting {{
    type nat hook prerouting priority dstnat; policy accept;
    {into}
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    oifname "eth0" masquerade {"fully-random" if kind == "symmetric" else ""}
  }}
}}
table inet filter {{
  chain forward {{
    type filter hook forward priority filter; policy drop;
    {"meta l4proto udp drop" if kind == "blocked" else ""}
    ct state established,related accept
    iifname "lan0" accept
    ct status dnat accept
  }}
  chain input {{
    type filter hook input priority filter; policy drop;
    iifname "lo" accept
    ct state established,related accept
  }}
}}
"""


@contextlib.contextmanager
def _coturn(made: World) -> Iterator[None]:
    """The TURN server, which is a STUN server too, over UDP, TCP and TLS."""
    made.turn = made.address["turn"]
    key = made.folder / "key.pem"
    signed = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=turn"]
    _run([*signed, "-addext", f"subjectAltName=IP:{made.turn}", "-keyout", str(key), "-out", str(made.certificate)])
    first, last = _RELAY_PORTS
    given = ["-n", f"--listening-ip={made.turn}", "--listening-port=3478", "--tls-listening-port=5349", f"--cert={made.certificate}"]
    given += [f"--pkey={key}", f"--relay-ip={made.turn}", f"--min-port={first}", f"--max-port={last}", "--realm=example.org", "--no-cli"]
    given += ["--use-auth-secret", f"--static-auth-secret={TURN_SECRET}", "--log-file=stdout", f"--pidfile={made.folder / 'pid'}"]
    given += [f"--userdb={made.folder / 'db'}"]
    with (made.folder / "turn.log").open("w") as log:
        running = made.start("turn", ["turnserver", *given], stdout=log.fileno(), stderr=subprocess.STDOUT)
        try:
            _await_port(made, running)
            yield
        finally:
            running.terminate()
            running.wait(_READY_SECONDS)


def _await_port(made: World, running: "subprocess.Popen[str]") -> None:
    """Returns when the TURN server listens. Raises RuntimeError with what it said."""
    for _ in range(int(_READY_SECONDS / 0.1)):
        if 3478 in made.udp_ports("turn"):
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            running.wait(0.1)
            break
    raise RuntimeError(f"coturn does not start:\n{(made.folder / 'turn.log').read_text()}")


def _namespaces(prefix: str) -> list[str]:
    listed = json.loads(_run(["ip", "-j", "netns", "list"]) or "[]")
    return [entry["name"] for entry in listed if entry["name"].startswith(prefix)]


def _ip(made: World, host: str, commands: Sequence[str]) -> None:
    _run(["ip", "-n", made.prefix + host, "-batch", "-"], "\n".join(commands))


def _run(command: Sequence[str], given: str | None = None) -> str:
    done = subprocess.run(command, input=given, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {done.stderr.strip()}")
    return done.stdout
