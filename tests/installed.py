"""The environments of the format plugins, built once in a run of the tests, whoever needs them."""

import os
from pathlib import Path

import pytest

from hub.config import ROOT, Settings
from hub.formats import Format
from workers import outside

PLUGINS = sorted(path.parent.name for path in ROOT.glob("plugins/*/test_convert.py"))


def data(factory: pytest.TempPathFactory) -> Path:
    """A data folder that all processes of one run of the tests share."""
    base = factory.getbasetemp()
    # Each process of pytest-xdist has a folder of its own in that of the run.
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "plugins"


def install(factory: pytest.TempPathFactory, name: str) -> tuple[Settings, Format]:
    """A plugin that is ready; two processes that ask at once wait for one installation."""
    settings = Settings(data=data(factory))
    return settings, outside.ready(settings, name)
