"""DNMini as a data set of fast-reid's registry."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from fastreid.data.datasets import DATASET_REGISTRY

from ..data.datasets.day_night_lists import DayNightListDataset, DNWild
from ..data.datasets.settings import SETTINGS
from .write import ensure_dnmini


@DATASET_REGISTRY.register()
class DNMini(DayNightListDataset):
    """DNMini, the rendered data set in DN-348's layout; written on first use.

    Args:
        seed: seed of the renderer; None uses ``DATASETS.DNMINI_SEED``. 0 is the published set.
    """

    dataset_name = "dnmini"

    def __init__(self, root: str | os.PathLike[str] | None = None, *, seed: int | None = None, **kwargs: Any):
        self.seed = SETTINGS.dnmini_seed if seed is None else seed
        super().__init__(root, **kwargs)

    def find_root(self, root: Path) -> Path:
        return Path(ensure_dnmini(root, seed=self.seed, name=self.dataset_name))


@DATASET_REGISTRY.register()
class DNMini2(DNMini):
    """DNMini's protocol 2: 100 training and 200 test identities, many renderings by their seed.

    An identity has 20 images per domain for training and 8 for testing. Settings are chosen on seeds from 1000 on.
    """

    dataset_name = "dnmini2"


@DATASET_REGISTRY.register()
class DNMiniWild(DNMini, DNWild):
    """The second rendered world in DN-Wild's layout and protocol: 300 training and 200 test identities.

    An identity has 16 images by day and 8 by night for training, 6 and 8 for testing, of which 4 are queries each.
    """

    dataset_name = "dnminiwild"
    expected = {}
    protocol_name = "DNMiniWild"
