"""The variant of a data set that the readers use if the caller does not specify one.

fast-reid builds a data set from its name and root alone, so the trainer stores these choices here.
"""

from __future__ import annotations

from dataclasses import dataclass

from fastreid.config import CfgNode

FOLDER_IDS = ("auto", "none", "folders")


@dataclass
class Settings:
    """``regdb_trial`` 1-10, ``dnmini_seed`` any non-negative integer (0 is the published one).

    ``dnwild_all_queries``: every test image of DN-Wild is a query, not only those of the query lists.
    ``day_dir``, ``night_dir``: the two folders of `DayNightFolder`, both or neither; ``folder_ids``: the meaning of
    its sub-folders. ``skip_bad``: train without the images that cannot be read.
    """

    regdb_trial: int = 1
    dnmini_seed: int = 0
    dnwild_all_queries: bool = False
    day_dir: str = ""
    night_dir: str = ""
    folder_ids: str = "auto"
    skip_bad: bool = False

    @classmethod
    def from_config(cls, cfg: CfgNode) -> Settings:
        """The keys of ``DATASETS``.

        Raises:
            ValueError: a key has an invalid value, or a value that no reader would use.
        """
        data = cfg.DATASETS
        if data.FOLDER_IDS not in FOLDER_IDS:
            raise ValueError(f"DATASETS.FOLDER_IDS is {data.FOLDER_IDS!r}; it must be 'auto', 'none' or 'folders'.")
        if bool(data.DAY_DIR) != bool(data.NIGHT_DIR):
            raise ValueError(
                f"DATASETS.DAY_DIR is {data.DAY_DIR!r} and NIGHT_DIR {data.NIGHT_DIR!r}; give both or neither."
            )
        if data.DAY_DIR and "DayNightFolder" not in (*data.NAMES, *data.TESTS):
            raise ValueError(
                f"DATASETS.DAY_DIR is {data.DAY_DIR!r}, which {', '.join(data.NAMES)} does not read; "
                "set DATASETS.NAMES \"('DayNightFolder',)\"."
            )
        return cls(
            int(data.REGDB_TRIAL),
            int(data.DNMINI_SEED),
            bool(data.DNWILD_ALL_QUERIES),
            str(data.DAY_DIR),
            str(data.NIGHT_DIR),
            str(data.FOLDER_IDS),
            bool(data.SKIP_BAD),
        )


SETTINGS = Settings()


def configure(cfg: CfgNode) -> None:
    """Apply the keys of ``DATASETS`` that choose a variant to every reader built from now on."""
    vars(SETTINGS).update(vars(Settings.from_config(cfg)))
