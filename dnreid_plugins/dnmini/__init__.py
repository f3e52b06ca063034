"""DNMini: the day/night vehicle set that the package renders itself (``docs/dnmini.md``)."""

from __future__ import annotations

from .identity import Identity, caption, sample_identities
from .reader import DNMini, DNMini2, DNMiniWild
from .render import render
from .sheet import contact_sheet
from .write import ensure_dnmini, write_dnmini

__all__ = [
    "DNMini",
    "DNMini2",
    "DNMiniWild",
    "Identity",
    "caption",
    "contact_sheet",
    "ensure_dnmini",
    "render",
    "sample_identities",
    "write_dnmini",
]
