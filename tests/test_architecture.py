"""The shape of the project, read from its source: who may import what, what a module makes public, what no file may contain."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGES = ("agent", "server", "streaming", "web_demo")
ALLOWED = {
    "agent": {"agent", "streaming.events"},
    "streaming": {"streaming"},
    "server": {"server", "agent", "streaming", "web_demo"},
    "web_demo": set[str](),
}
"""What of ours a package may import: design.md section 2."""
FORBIDDEN_IN_AGENT = {
    "asyncio",
    "concurrent",
    "datetime",
    "logging",
    "multiprocessing",
    "os",
    "random",
    "secrets",
    "socket",
    "threading",
    "time",
}
"""No await, no clock, no randomness, no I/O. The rest of the standard library is free, third-party packages are not."""
MACHINE_PATH = re.compile(r"(?<![\w.:/-])/(?:work|root|home/[a-z]+|Users/[A-Za-z]+)/[\w.-]+")
TEXT = {".py", ".toml", ".txt", ".md", ".js", ".html", ".css", ".svg", ".json", ".yml", ".cfg", ".sh", ""}


def modules() -> list[Path]:
    return sorted(path for package in PACKAGES for path in (REPOSITORY / package).rglob("*.py"))


def name_of(path: Path) -> str:
    """`server/realtime/codec.py` is `server.realtime.codec`."""
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> Iterator[str]:
    """Dotted names of everything a module imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: write imports in full"
            assert node.module is not None
            # `from streaming import events` imports streaming.events.
            yield from (f"{node.module}.{alias.name}" for alias in node.names) if node.module in PACKAGES else (node.module,)


def within(name: str, allowed: set[str]) -> bool:
    return any(name == one or name.startswith(f"{one}.") for one in allowed)


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_imports_go_one_way(path: Path) -> None:
    package = name_of(path).split(".")[0]
    ours = [name for name in imports(path) if name.split(".")[0] in PACKAGES]
    assert [name for name in ours if not within(name, ALLOWED[package])] == []


@pytest.mark.parametrize("path", [path for path in modules() if name_of(path).startswith("agent")], ids=name_of)
def test_the_agent_is_pure(path: Path) -> None:
    roots = {name.split(".")[0] for name in imports(path)} - set(PACKAGES)
    assert roots & FORBIDDEN_IN_AGENT == set()
    assert roots - sys.stdlib_module_names == set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert [
        node.lineno for node in ast.walk(tree) if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith)
    ] == []


@pytest.mark.parametrize("path", [path for path in modules() if name_of(path).startswith("streaming")], ids=name_of)
def test_streaming_is_synchronous(path: Path) -> None:
    assert {name.split(".")[0] for name in imports(path)} & {"asyncio", "starlette", "uvicorn", "websockets"} == set()


def test_the_seam_is_standard_library_only() -> None:
    roots = {name.split(".")[0] for name in imports(REPOSITORY / "streaming" / "events.py")}
    assert roots - sys.stdlib_module_names == set()


def public_definitions(tree: ast.Module) -> set[str]:
    """Functions, classes and assigned names at a module's top that don't begin with an underscore."""
    found: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}
    return {name for name in found if not name.startswith("_") and name not in ("log", "logger")}


@pytest.mark.parametrize(
    "path", [path for path in modules() if not path.name.startswith("_") and path.parent.name != "web_demo"], ids=name_of
)
def test_all_names_what_a_module_makes_public(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    exported = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and any(isinstance(name, ast.Name) and name.id == "__all__" for name in node.targets)
    ]
    assert len(exported) == 1, "a public module has one __all__"
    names = set(ast.literal_eval(exported[0]))
    imported = {alias.asname or alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    # A module may hand on what belongs to its subject and lives elsewhere; it may not forget what it defines.
    assert names - imported == public_definitions(tree)


@pytest.mark.parametrize("path", [path for path in modules() if path.stat().st_size], ids=name_of)
def test_a_module_says_what_it_is(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


def test_every_package_is_installed_by_name() -> None:
    # The folder of manifests holds data only, and is listed so that setuptools takes it along.
    listed = set(tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]) - {"streaming.bundles"}
    assert {name_of(path) for path in modules() if path.name == "__init__.py"} == listed
    assert {name_of(path.parent / "__init__.py") for path in modules()} == listed


def test_every_third_party_import_is_a_declared_dependency() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    extras = [line for name, lines in project["optional-dependencies"].items() if name != "dev" for line in lines]
    declared = {re.split(r"[^A-Za-z0-9._-]", line)[0].lower().replace("_", "-") for line in (*project["dependencies"], *extras)}
    owners = packages_distributions()
    roots = {name.split(".")[0] for path in modules() for name in imports(path)} - set(PACKAGES) - sys.stdlib_module_names
    used = {root: {owner.lower().replace("_", "-") for owner in owners.get(root, [root])} for root in roots}
    assert {root: owner for root, owner in used.items() if not owner & declared} == {}


def test_no_file_names_a_machine() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    found = []
    for name in filter(None, listed.stdout.split("\0")):
        path = REPOSITORY / name
        if path.suffix in TEXT and path.is_file():
            lines = path.read_text(encoding="utf-8").splitlines()
            found += [f"{name}:{number}: {line.strip()}" for number, line in enumerate(lines, 1) if MACHINE_PATH.search(line)]
    assert found == []
