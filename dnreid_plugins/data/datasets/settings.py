"""The variant of a data set that the readers use if the caller does not specify one.

fast-reid builds a data set from its name and root alone, so the trainer stores these choices here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from fastreid.config import CfgNode

from ...runtime.sections import CountOrNone, Range, configured, construct

FOLDER_IDS = ("auto", "none", "folders")


@configured("DATASETS")
@dataclass(kw_only=True)
class Settings:
    """Variants of the data sets.

    Args:
        regdb_trial: Which of RegDB's ten train/test splits is used.
        dnwild_all_queries: DN-Wild: every test image is a query, not only those of the query lists; papers: not given
            (U28).
        dnmini_seed: Seed of the rendered data sets: 0 is the demo's, 1000 and above are for choosing settings.
        day_dir: Folder of the day images of DayNightFolder; empty: day/ in $FASTREID_DATASETS or in the only folder
            there that contains both.
        night_dir: Folder of its night images, likewise.
        csv: Table of the images of DayNightTable: a CSV file with the columns path (relative to it, or absolute), domain
            (day or night, visible or infrared), and where known id, camera, split (train, test, query or gallery).
        folder_ids: What the sub-folders of DayNightFolder are: "folders" = identities, "none" = nothing, "auto" =
            identities if every image lies in one and both domains share some.
        skip_bad: Train without the images that cannot be read; False: list them all and stop before the training.
    """

    regdb_trial: Annotated[int, Range(1, 10)] = 1
    dnwild_all_queries: bool = False
    dnmini_seed: CountOrNone = 0
    day_dir: str = ""
    night_dir: str = ""
    csv: str = ""
    folder_ids: str = "auto"
    skip_bad: bool = False

    @classmethod
    def from_config(cls, cfg: CfgNode) -> Any:
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
        if data.CSV and "DayNightTable" not in (*data.NAMES, *data.TESTS):
            raise ValueError(
                f"DATASETS.CSV is {data.CSV!r}, which {', '.join(data.NAMES)} does not read; "
                "set DATASETS.NAMES \"('DayNightTable',)\"."
            )
        return construct(cls, cfg)


SETTINGS = Settings()


def configure(cfg: CfgNode) -> None:
    """Apply the keys of ``DATASETS`` that choose a variant to every reader built from now on."""
    vars(SETTINGS).update(vars(Settings.from_config(cfg)))
