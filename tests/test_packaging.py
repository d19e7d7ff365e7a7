"""What an installation brings: our names are ours alone, the data is there, the command starts quickly."""

import importlib.resources
import re
import subprocess
import sys
import tomllib
from importlib.metadata import entry_points, packages_distributions, requires
from pathlib import Path

import pytest

from server.config import ServerConfig
from server.limits import Limits

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("name", ["agent", "server", "streaming", "vivavoce", "web_demo"])
def test_no_other_distribution_claims_our_names(name: str) -> None:
    assert set(packages_distributions()[name]) == {"vivavoce"}


@pytest.mark.parametrize(
    ("package", "file"),
    [
        ("streaming", "bundles/pocket.toml"),
        ("streaming", "bundles/parts/pocket-projector/projector.safetensors"),
        ("web_demo", "index.html"),
        ("agent", "py.typed"),
    ],
)
def test_data_is_installed(package: str, file: str) -> None:
    assert (importlib.resources.files(package) / file).is_file()


def test_the_command_is_the_command_line() -> None:
    (command,) = entry_points(group="console_scripts", name="vivavoce")
    assert command.value == "server.cli:main"


def test_constraints_pin_every_dependency() -> None:
    pinned = re.findall(r"^([A-Za-z0-9._-]+)==\S+$", (REPOSITORY / "constraints.txt").read_text(), re.MULTILINE)
    names = {name.lower().replace("_", "-") for name in pinned}
    wanted = {re.split(r"[^A-Za-z0-9._-]", line)[0].lower().replace("_", "-") for line in requires("vivavoce") or []}
    # pip is the environment's own and not in its list.
    assert wanted - names - {"pip"} == set()
    assert "+" not in " ".join(line for line in (REPOSITORY / "constraints.txt").read_text().splitlines() if not line.startswith("#"))


def test_nothing_names_a_registry() -> None:
    """Where packages and models come from is the user's configuration of pip and of the hub's client."""
    hosts = re.compile(r"pypi\.org|pythonhosted|huggingface\.co|index-url|download\.pytorch")
    for name in ("pyproject.toml", "constraints.txt", "Makefile", ".ci/run", "streaming/bundles/pocket.toml"):
        assert hosts.search((REPOSITORY / name).read_text()) is None, name


def test_help_imports_no_model_library() -> None:
    script = (
        "import sys\nfrom typer.testing import CliRunner\nfrom server.cli import app\n"
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0\n"
        "heavy = {'torch', 'numpy', 'onnxruntime', 'starlette', 'uvicorn', 'pydantic'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=REPOSITORY)


def test_the_licence_is_there_whole() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    text = (REPOSITORY / "LICENSE").read_text()
    assert project["license"] == "Apache-2.0"
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_every_setting_and_limit_is_documented() -> None:
    text = (REPOSITORY / "docs" / "operations.md").read_text()
    assert [name for name in (*ServerConfig.model_fields, *Limits.__dataclass_fields__) if f"`{name}`" not in text] == []
    defaults = Limits()
    for name in Limits.__dataclass_fields__:
        (row,) = [line for line in text.splitlines() if line.startswith("|") and f"`{name}`" in line]
        assert str(int(getattr(defaults, name))) in re.findall(r"\d+", row), name
