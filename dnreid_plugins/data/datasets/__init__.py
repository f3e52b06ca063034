"""The readers, registered with fast-reid under their class names."""

from .base import CrossDomainDataset
from .day_night_lists import DN348, DNWild
from .folder import DayNightFolder
from .regdb import RegDB
from .settings import configure
from .table import DayNightTable

__all__ = ["DN348", "CrossDomainDataset", "DNWild", "DayNightFolder", "DayNightTable", "RegDB", "configure"]
