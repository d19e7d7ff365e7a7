"""The command says what is missing, by name."""

import sys
from pathlib import Path

import pytest

from streaming.bundle import Places
from training.pocket import __main__ as command
from training.pocket import stages


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty one."""
    places = Places(tmp_path)
    monkeypatch.setattr(stages, "default_places", lambda: places)
    return tmp_path


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["training.pocket", "--threads", "1", *arguments])
    command.main()


@pytest.mark.parametrize("named", [(), ("texts",), ("hear",), ("ctc",), ("export",)])
def test_models_that_were_not_fetched_are_named(cache, monkeypatch, named) -> None:
    with pytest.raises(SystemExit, match=r"smollm2-135m-instruct is not there: run `vivavoce pull pocket`"):
        run(monkeypatch, *named)


def test_there_is_no_other_stage(cache, monkeypatch, capsys) -> None:
    with pytest.raises(SystemExit):
        run(monkeypatch, "bake")
    assert "invalid choice: 'bake'" in capsys.readouterr().err
