"""The tables and figures of published papers again, one command each: what there is, its runs, its pages."""

from .catalogue import SETS, Item, items, named
from .make import Choice, list_text, run_items

__all__ = ["SETS", "Choice", "Item", "items", "list_text", "named", "run_items"]
