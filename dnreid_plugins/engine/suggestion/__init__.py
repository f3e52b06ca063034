"""Settings for images that nobody has trained on yet, and the config that holds them."""

from .config_file import check_target, suggestion_text, write_suggestion
from .proposals import Choice, DomainView, Suggestion, suggest

__all__ = [
    "Choice",
    "DomainView",
    "Suggestion",
    "check_target",
    "suggest",
    "suggestion_text",
    "write_suggestion",
]
