"""A section of the config is a constructor's signature: keys, defaults, types and ranges are defined in one place.

``@configured("MODEL.MEMORY")`` on a class says that its constructor's keyword arguments are the keys of that
section, in upper case. A choice is a ``Literal``, a range an ``Annotated[float, Range(...)]``; both are checked
whenever the class is constructed, from a config or by hand. A keyword argument without a default is not a key; one
whose type is itself `configured` with an empty path stands for the keys of that class. The documentation of a key is
the argument's entry in the docstring's ``Args``.
"""

from __future__ import annotations

import functools
import inspect
import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from fastreid.config import CfgNode

T = TypeVar("T", bound=type)

#: The class of every configured section, by the section's dotted path.
SECTIONS: dict[str, type] = {}
#: Configs that have been extended already; a section that is configured later is added to them at once.
_EXTENDED: list[CfgNode] = []


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``; ``above`` leaves ``low`` itself out; ``word`` may stand for a number."""

    low: float = -math.inf
    high: float = math.inf
    above: bool = False
    word: str = ""

    def __contains__(self, value: float) -> bool:
        return (
            self.low <= value <= self.high and math.isfinite(value) and not (self.above and value == self.low)
        )

    def __str__(self) -> str:
        return f"{self._numbers()}, or {self.word!r}" if self.word else self._numbers()

    def _numbers(self) -> str:
        if self.low == -math.inf and self.high == math.inf:
            return "a finite number"
        if self.high < math.inf:
            return (
                f"above {self.low:g} and at most {self.high:g}"
                if self.above
                else f"from {self.low:g} to {self.high:g}"
            )
        return f"above {self.low:g}" if self.above else f"at least {self.low:g}"


Positive = Annotated[float, Range(0, above=True)]
Finite = Annotated[float, Range()]
NotNegative = Annotated[float, Range(0)]
Share = Annotated[float, Range(0, 1)]
Count = Annotated[int, Range(1)]
CountOrNone = Annotated[int, Range(0)]


@dataclass(frozen=True)
class Key:
    """One key of a section.

    Attributes:
        name: in upper case.
        default: its value unless the config sets another.
        kind: annotation of the constructor's argument.
        sentence: from the docstring.
    """

    name: str
    default: Any
    kind: Any
    sentence: str

    def objection(self, value: Any) -> str | None:
        """What ``value`` must be, None if it is that."""
        kind = self.kind
        choice, numbers = _choices(kind), _range(kind)
        if choice:
            fits = any(value == one and type(value) is type(one) for one in choice)
            return None if fits else f"one of {', '.join(map(repr, choice))}"
        if numbers is not None:
            if numbers.word and value == numbers.word:
                return None
            whole = get_args(kind)[0] is int
            if whole and not _is_number(value, whole=True):
                return f"a whole number {numbers}"
            return None if _is_number(value, whole=False) and value in numbers else str(numbers)
        if kind in (bool, str):
            return None if isinstance(value, kind) else {bool: "True or False", str: "a text"}[kind]
        if kind in (int, float):
            text = "a whole number" if kind is int else "a finite number"
            return None if _is_number(value, whole=kind is int) else text
        if get_origin(kind) is Sequence and get_args(kind) == (str,):
            texts = isinstance(value, (list, tuple)) and all(isinstance(one, str) for one in value)
            return None if texts else "a list of texts"
        return None

    @property
    def choices(self) -> str:
        """The allowed values, for the documentation; empty if the type alone describes them."""
        choice, numbers = _choices(self.kind), _range(self.kind)
        if choice:
            return ", ".join(repr(one) for one in choice)
        return str(numbers) if numbers is not None else ""


def configured(path: str, *, without: Sequence[str] = ()) -> Callable[[T], T]:
    """Class decorator: the constructor's signature is the config section ``path``; see the module's docstring.

    An empty path makes the class a group of keys that another class takes as one argument. ``without`` names arguments
    that have a default and are not keys.
    """

    def decorate(cls: T) -> T:
        cls.section = path  # type: ignore[attr-defined]
        cls.no_keys = frozenset(without)  # type: ignore[attr-defined]
        init = cls.__init__  # type: ignore[misc]

        @functools.wraps(init)
        def checked(self: Any, *args: Any, **kwargs: Any) -> None:
            if type(self) is cls or not path:
                _refuse(path, own_keys(cls), kwargs)
            init(self, *args, **kwargs)

        cls.__init__ = checked  # type: ignore[misc]
        if path:
            SECTIONS[path] = cls
            for cfg in _EXTENDED:
                _add_section(cfg, path, cls)
        return cls

    return decorate


def add_sections(cfg: CfgNode) -> None:
    """Add every configured section, also those configured later, with its defaults to ``cfg``."""
    _EXTENDED.append(cfg)
    for path, cls in SECTIONS.items():
        _add_section(cfg, path, cls)


def add_missing_sections(cfg: CfgNode) -> None:
    """Add the sections that were configured after ``cfg`` was made, with their defaults; what it holds stays."""
    for path, cls in SECTIONS.items():
        _add_section(cfg, path, cls, replace=False)


def construct(cls: type, cfg: CfgNode, **others: Any) -> Any:
    """An object of a configured class from its section of ``cfg``; ``others`` are arguments that are not keys.

    Raises:
        ValueError: a value that the signature does not allow.
    """
    return _construct(cls, _section(cls, cfg), cls.section, others)  # type: ignore[attr-defined]


def number_or_word(path: str, value: Any) -> Any:
    """``value`` of the key ``path`` if that key takes a number or one word, in the type of a number; else None."""
    section, _, name = path.rpartition(".")
    cls = SECTIONS.get(section)
    key = next((key for key in keys_of(cls) if key.name == name), None) if cls else None
    numbers = _range(key.kind) if key else None
    if key is None or numbers is None or not numbers.word:
        return None
    if value == numbers.word:
        return value
    return type(key.default)(value) if _is_number(value, whole=type(key.default) is int) else None


def check_keys(cls: type, cfg: CfgNode) -> None:
    """Check the section of a configured class that cannot be constructed yet.

    Raises:
        ValueError: a value that the signature does not allow.
    """
    values = {key.lower(): value for key, value in _section(cls, cfg).items()}
    _refuse(cls.section, keys_of(cls), values)  # type: ignore[attr-defined]


def _section(cls: type, cfg: CfgNode) -> CfgNode:
    return functools.reduce(operator.getitem, cls.section.split("."), cfg)  # type: ignore[attr-defined]


def _construct(cls: type, section: Mapping[str, Any], path: str, others: Mapping[str, Any]) -> Any:
    keys = own_keys(cls)
    arguments = {key.name.lower(): section[key.name] for key in keys if key.name in section}
    _refuse(path, keys, arguments)
    for name, group in _groups(cls).items():
        arguments[name] = _construct(group, section, path, {})
    return cls(**arguments, **others)


def keys_of(cls: type) -> list[Key]:
    """All keys of a configured class, those of its groups included, in the order of the signature."""
    found = own_keys(cls)
    for group in _groups(cls).values():
        found += keys_of(group)
    return found


def own_keys(cls: type) -> list[Key]:
    """The keys of a class without those of its groups."""
    hints, groups = _hints(cls), _groups(cls)
    sentences = _sentences(inspect.getdoc(cls) or "")
    return [
        Key(name.upper(), parameter.default, hints.get(name, Any), sentences.get(name, ""))
        for name, parameter in _parameters(cls).items()
        if parameter.default is not inspect.Parameter.empty and name not in groups and name not in cls.no_keys  # type: ignore[attr-defined]
    ]


def _refuse(path: str, keys: Sequence[Key], arguments: Mapping[str, Any]) -> None:
    """Refuse values that the signature of a configured class does not allow."""
    for key in keys:
        name = key.name.lower()
        text = key.objection(arguments[name]) if name in arguments else None
        if text:
            raise ValueError(
                f"{path}{'.' if path else ''}{key.name} is {arguments[name]!r}; it must be {text}."
            )


def _parameters(cls: type) -> dict[str, inspect.Parameter]:
    parameters = inspect.signature(cls.__init__).parameters  # type: ignore[misc]
    return {n: p for n, p in parameters.items() if p.kind is inspect.Parameter.KEYWORD_ONLY}


def _groups(cls: type) -> dict[str, type]:
    hints = _hints(cls)
    return {
        name: hints[name]
        for name in _parameters(cls)
        if isinstance(hints.get(name), type) and hasattr(hints[name], "section")
    }


def _hints(cls: type) -> dict[str, Any]:
    init = inspect.unwrap(cls.__init__)  # type: ignore[misc]
    return get_type_hints(init, include_extras=True)


def _add_section(cfg: CfgNode, path: str, cls: type, *, replace: bool = True) -> None:
    for name in path.split("."):
        if name not in cfg:
            dict.__setitem__(cfg, name, CfgNode())
        cfg = cfg[name]
    for key in keys_of(cls):
        if replace or key.name not in cfg:
            dict.__setitem__(cfg, key.name, key.default)


def _sentences(doc: str) -> dict[str, str]:
    """``{argument: text}`` of the ``Args`` part of a docstring; several arguments may share one entry."""
    part = re.search(r"^Args:\n((?:[ ]{4}.*\n?|\n)*)", doc, re.MULTILINE)
    result: dict[str, str] = {}
    for entry in re.finditer(
        r"^    (\w[\w, ]*):((?:.*\n?)(?:^     .*\n?)*)", part[1] if part else "", re.MULTILINE
    ):
        for name in entry[1].split(","):
            result[name.strip()] = " ".join(entry[2].split())
    return result


def _is_number(value: Any, *, whole: bool) -> bool:
    kinds = (int,) if whole else (int, float)
    return isinstance(value, kinds) and not isinstance(value, bool) and math.isfinite(value)


def _choices(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) is Literal else ()


def _range(kind: Any) -> Range | None:
    if get_origin(kind) in (Union, UnionType):
        return None
    return next((one for one in getattr(kind, "__metadata__", ()) if isinstance(one, Range)), None)
