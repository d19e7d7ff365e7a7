"""Install the third-party clients, each group in an environment of its own (their pins clash): `python tests/clients/install.py`.

Environments live in `.clients/` beside the project and are made again only when what they need has changed.
"""

import hashlib
import shutil
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).parent
TARGET = HERE.parents[1] / ".clients"
PYTHON_GROUPS = ("openai", "livekit", "pipecat")


def install_python(group: str) -> None:
    """One virtual environment with the pinned clients of `group`."""
    folder = TARGET / group
    venv.create(folder, clear=True, with_pip=True)
    requirements = HERE / group / "requirements.txt"
    subprocess.run([folder / "bin" / "python", "-m", "pip", "install", "--quiet", "-r", requirements], check=True)


def install_node() -> None:
    """The npm clients, from the committed lock file."""
    folder = TARGET / "node"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(HERE / "node" / name, folder / name)
    subprocess.run(["npm", "ci", "--silent", "--no-audit", "--no-fund"], cwd=folder, check=True)


def main() -> None:
    """Install every group whose list has changed since its last installation."""
    for group in (*PYTHON_GROUPS, "node"):
        wanted = HERE / group / ("package-lock.json" if group == "node" else "requirements.txt")
        digest = hashlib.sha256(wanted.read_bytes() + sys.version.encode()).hexdigest()
        stamp = TARGET / f"{group}.installed"
        if stamp.exists() and stamp.read_text() == digest:
            continue
        print(f"installing the {group} clients ...", flush=True)
        install_node() if group == "node" else install_python(group)
        stamp.write_text(digest)


if __name__ == "__main__":
    main()
