"""Flags that several commands share: settings of `server.config`, of which only those given are set."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "BundleOption",
    "ConfigOption",
    "DeviceOption",
    "DtypeOption",
    "HostOption",
    "KeyOption",
    "KeysFileOption",
    "PortOption",
    "PublicAddressOption",
    "RelayOnlyOption",
    "StunServerOption",
    "TlsCertOption",
    "TlsKeyOption",
    "TurnSecretOption",
    "TurnServerOption",
    "UdpPortsOption",
]

BundleOption = Annotated[
    str | None, typer.Option(metavar="NAME|FILE", help="A bundle of models (see `vivavoce bundles`). [default: pocket]")
]
HostOption = Annotated[str | None, typer.Option(help="Address to listen on; all but this machine's own need a key. [default: 127.0.0.1]")]
PortOption = Annotated[int | None, typer.Option(help="Port to listen on; 0 takes any free one. [default: 8765]")]
ConfigOption = Annotated[Path | None, typer.Option(envvar="VIVAVOCE_CONFIG", metavar="FILE", help="Settings in TOML.")]
TlsCertOption = Annotated[Path | None, typer.Option(metavar="FILE", help="Certificate in PEM: serve HTTPS and WSS.")]
TlsKeyOption = Annotated[Path | None, typer.Option(metavar="FILE", help="The certificate's private key in PEM.")]
KeyOption = Annotated[
    list[str] | None, typer.Option(metavar="KEY", help="A key clients must present; may be given again. Others can see it in `ps`.")
]
KeysFileOption = Annotated[Path | None, typer.Option(metavar="FILE", help="Keys from a file, one a line.")]
DeviceOption = Annotated[
    str | None,
    typer.Option(metavar="auto|cpu|cuda|cuda:1", help="Where the recogniser and the language model run. [default: the bundle's]"),
]
DtypeOption = Annotated[
    str | None,
    typer.Option(metavar="auto|bfloat16|float16|float32", help="The numbers they are held in. [default: what the device is best at]"),
]
PublicAddressOption = Annotated[
    list[str] | None,
    typer.Option(metavar="ADDRESS|NAME", help="Where WebRTC calls reach this machine from outside; may be given again."),
]
UdpPortsOption = Annotated[str | None, typer.Option(metavar="FIRST-LAST", help="UDP ports of WebRTC calls. [default: any free ones]")]
StunServerOption = Annotated[list[str] | None, typer.Option(metavar="stun:HOST", help="A STUN server; may be given again.")]
TurnServerOption = Annotated[list[str] | None, typer.Option(metavar="turn:HOST|turns:HOST", help="A TURN server; may be given again.")]
TurnSecretOption = Annotated[
    Path | None, typer.Option(metavar="FILE", help="The secret shared with the TURN servers; or else `VIVAVOCE_TURN_SECRET`.")
]
RelayOnlyOption = Annotated[bool | None, typer.Option("--relay-only", help="Take WebRTC calls through the TURN servers only.")]
