"""The readers, registered with fast-reid under their class names."""

from .base import CrossDomainDataset
from .day_night_lists import DN348, DNWild
from .folder import DayNightFolder
from .llcm import LLCM
from .regdb import RegDB
from .settings import configure
from .sysu import SYSUMM01
from .table import DayNightTable

__all__ = [
    "DN348",
    "LLCM",
    "SYSUMM01",
    "CrossDomainDataset",
    "DNWild",
    "DayNightFolder",
    "DayNightTable",
    "RegDB",
    "configure",
]
