"""Settings every test shares: two threads, a fixed seed, no time limits in property tests."""

from __future__ import annotations

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(2)

# Examples are a function of the test alone, so that a red run is red again; `--hypothesis-profile=explore`
# draws new ones.
settings.register_profile("fixed", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None, max_examples=2000)
settings.load_profile("fixed")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
