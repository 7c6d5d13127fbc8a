"""What several tests of whole recordings stand on: one bag of three laps, and networks that know what it shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from etr_ros.pipeline import Networks
from landmark_bag import WORLD, write_laps


@pytest.fixture(scope="session")
def laps_bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """To be read only."""
    return write_laps(tmp_path_factory.mktemp("bags") / "laps")


@pytest.fixture
def landmark_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever networks the program asks for, it gets those of the made-up world."""
    monkeypatch.setattr(Networks, "load", lambda config: WORLD.networks)
