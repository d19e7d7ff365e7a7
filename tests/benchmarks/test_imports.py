"""Every benchmark and training script can be started: its imports are there."""

import importlib
import pkgutil

import pytest

import benchmarks
import training

ELSEWHERE = {"benchmarks.pipecat_peer"}
"""Runs in pipecat's own environment."""
FOUND = [found for package in (benchmarks, training) for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")]


@pytest.mark.parametrize("module", [found.name for found in FOUND if found.name not in ELSEWHERE and not found.name.endswith("__main__")])
def test_it_imports(module) -> None:
    assert importlib.import_module(module).__doc__
