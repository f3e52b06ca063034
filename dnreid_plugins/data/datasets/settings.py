"""Which variant of a data set the readers give when the caller does not say.

fast-reid builds a data set from its name and root alone, so the trainer hands these choices over here.
"""

from __future__ import annotations

from dataclasses import dataclass

from fastreid.config import CfgNode


@dataclass
class Settings:
    """``regdb_trial`` 1-10, ``dnmini_seed`` any non-negative integer (0 is the published one).

    ``dnwild_all_queries``: every test image of DN-Wild asks, not only those of the query lists.
    """

    regdb_trial: int = 1
    dnmini_seed: int = 0
    dnwild_all_queries: bool = False


SETTINGS = Settings()


def configure(cfg: CfgNode) -> None:
    """Take the keys of ``DATASETS`` that choose a variant for every reader built from now on."""
    SETTINGS.regdb_trial = int(cfg.DATASETS.REGDB_TRIAL)
    SETTINGS.dnmini_seed = int(cfg.DATASETS.DNMINI_SEED)
    SETTINGS.dnwild_all_queries = bool(cfg.DATASETS.DNWILD_ALL_QUERIES)
