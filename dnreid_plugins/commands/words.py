"""``KEY VALUE`` pairs on the command line, as in fast-reid."""

from __future__ import annotations

from collections.abc import Sequence

from ..runtime.config_files import FLAG

#: For a command that ends with pairs: a value may look like an option (``SOLVER.BIAS -1``).
KEY_VALUE = {"ignore_unknown_options": True}


def pairs_only(words: Sequence[str] | None) -> list[str]:
    """The words after the options, which must be ``KEY VALUE`` pairs.

    Raises:
        ValueError: an option that the command does not have, a word that is no key, or a key without a value.
    """
    opts = [word for word in words or () if word != "--"]
    for number, word in enumerate(opts):
        if FLAG.fullmatch(word.partition("=")[0]):
            raise ValueError(f"There is no option {word}; --help shows all.")
        if number % 2 == 0 and not word.isupper():
            raise ValueError(
                f"{word!r} is no key of a config; after the options come pairs such as SOLVER.MAX_EPOCH 20."
            )
    if len(opts) % 2:
        raise ValueError(
            f"{opts[-1]} has no value; after the options come pairs such as SOLVER.MAX_EPOCH 20."
        )
    return opts
