"""One world for all tests of the page; what a test writes, it writes into a copy."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from serve_world import client_of, make_world
from starlette.testclient import TestClient

from dnreid_plugins.retrieval.web.site import Site


@pytest.fixture(scope="session")
def first_world(tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("serve"), tiny_root)


@pytest.fixture(scope="session")
def site(first_world: Path) -> Site:
    """The gallery, for tests that correct nothing."""
    return Site.open(first_world / "gallery")


@pytest.fixture(scope="session")
def page(site: Site) -> TestClient:
    return client_of(site)


@pytest.fixture
def world(first_world: Path) -> Path:
    """The gallery and the run, without corrections."""
    (first_world / "run" / "corrections.jsonl").unlink(missing_ok=True)
    return first_world


@pytest.fixture
def copied(world: Path, tmp_path: Path) -> Path:
    """A copy of the world that a test may damage."""
    shutil.copytree(world, tmp_path / "world")
    return tmp_path / "world"
