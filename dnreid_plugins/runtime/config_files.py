"""Merge config files and command lines into a config, with errors that a user can act on."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from fastreid.config import CfgNode

from .plugins import KEY, import_plugins
from .sections import add_missing_sections, number_or_word
from .sentences import ConfigError, nearest
from .shipped import config_path

__all__ = [
    "FLAG",
    "ConfigError",
    "known_keys",
    "merge_with_suggestions",
    "nearest",
    "read_config_file",
    "tests_follow",
    "use_plugins",
]

#: Of a config file; the whole default config has less than a thousand.
MAX_NODES = 100_000
NESTED = (list, tuple, Mapping)
BASE = "_BASE_"
FLAG = re.compile(r"--[a-z][a-z-]*")
#: What a value of a type is called, and an example of one.
KINDS = {int: "a whole number", float: "a number", bool: "True or False", str: "a text"}


def merge_with_suggestions(
    cfg: CfgNode, config_file: str | Path = "", opts: Sequence[str] | None = None
) -> None:
    """Merge a yaml file (with fast-reid's ``_BASE_``), then ``KEY VALUE`` pairs, into ``cfg`` in place.

    Whole numbers are taken where a float is wanted and floats without a fraction where a whole number is;
    lists and tuples stand for each other. Nothing is merged unless everything can be. ``DATASETS.TESTS`` follows a
    ``DATASETS.NAMES`` of ``opts``, see `tests_follow`. ``PLUGINS`` are imported first: their sections are known.

    Raises:
        ConfigError: no such file, not a yaml mapping, an unknown key (the nearest known one is named), a
            value of another type, or an odd number of ``opts``.
    """
    content = read_config_file(Path(config_file)) if config_file else {}
    pairs = [item for item in opts or () if item != "--"]
    use_plugins(cfg, {**content, **dict(zip(pairs[::2], pairs[1::2]))}, config_file)
    trial = cfg.clone()
    _merge(trial, content, str(config_file))
    late = next((item for item in pairs if FLAG.fullmatch(item)), None)
    if late is not None:
        raise ConfigError(
            f"{late} is among the KEY VALUE pairs, where flags are not read; put all flags before the first pair."
        )
    follow = tests_follow(trial, pairs)
    if len(pairs) % 2:
        raise ConfigError(
            f"The command line ends with {pairs[-1]!r}, which has no value; after the flags come KEY VALUE pairs."
        )
    for key, value in zip(pairs[::2], pairs[1::2], strict=True):
        nested: Any = value
        for part in reversed(key.split(".")):
            nested = {part: nested}
        _merge(trial, nested, "the command line")
    if follow:
        dict.__setitem__(trial.DATASETS, "TESTS", trial.DATASETS.NAMES)
    _copy(trial, cfg)


def use_plugins(cfg: CfgNode, values: Mapping[str, Any], config_file: str | Path = "") -> None:
    """Import what ``PLUGINS`` of ``values`` names and add the sections that come with it to ``cfg``.

    Raises:
        ConfigError: it cannot be imported.
    """
    if KEY not in cfg or KEY not in values:
        return
    try:
        import_plugins(
            _fit(values[KEY], cfg[KEY], KEY, str(config_file) or "the command line"), Path(config_file).parent
        )
    except ValueError as error:
        raise ConfigError(str(error)) from error
    add_missing_sections(cfg)


def tests_follow(cfg: CfgNode, opts: Sequence[str]) -> bool:
    """Whether ``DATASETS.TESTS`` follows the training sets, where ``opts`` change only ``DATASETS.NAMES``.

    It does if ``cfg`` scores on the same sets that it trains on; a config that tests the transfer to another set keeps
    it.
    """
    keys, sets = set(opts[::2]), cfg.get("DATASETS", {})
    alone = "DATASETS.NAMES" in keys and "DATASETS.TESTS" not in keys
    return alone and "TESTS" in sets and tuple(sets["NAMES"]) == tuple(sets["TESTS"])


def read_config_file(path: Path) -> Mapping[str, Any]:
    """The content of a config file including its base files, not yet compared with the known keys.

    Raises:
        ConfigError: no such file, a base that cannot be read, or not a yaml mapping.
    """
    if not os.path.isfile(path):  # never raises, whatever the name is
        raise ConfigError(f"There is no config file {path}; correct --config-file.")
    try:
        content = _with_base(path)
    except OSError as error:
        reason = f"{error.filename}: {error.strerror}"
        raise ConfigError(f"{path} names a _BASE_ that cannot be read ({reason}); correct it.") from error
    except RecursionError as error:
        raise ConfigError(f"{path} is, through _BASE_, its own base; break the circle.") from error
    except (yaml.YAMLError, UnicodeDecodeError, TypeError, AttributeError, AssertionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"{path} is not a config in yaml ({reason}); correct the file.") from error
    if not _is_finite(content):
        raise ConfigError(
            f"{path} contains itself, or more than {MAX_NODES} values, through an anchor (&) and its aliases (*); "
            "write the values out."
        )
    if not isinstance(content, Mapping):
        raise ConfigError(f"{path} holds a {type(content).__name__} where a mapping of keys is needed.")
    return content


def _with_base(path: Path) -> Any:
    """What fast-reid reads, but ``_BASE_`` may also be the name of a shipped config."""
    own = yaml.safe_load(path.read_text(encoding="utf-8"))
    base = own.get(BASE) if isinstance(own, dict) else None
    if not isinstance(base, str) or (path.parent / os.path.expanduser(base)).is_file():
        return CfgNode.load_yaml_with_base(str(path))
    try:
        below = read_config_file(config_path(base))
    except ConfigError:
        return CfgNode.load_yaml_with_base(str(path))  # which says what is missing
    del own[BASE]
    return _over(below, own)


def _over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _over(merged[key], value) if both else value
    return merged


def _is_finite(content: Any) -> bool:
    left, seen = [content], 0
    while left and seen <= MAX_NODES:
        seen, node = seen + 1, left.pop()
        if isinstance(node, (Mapping, list, tuple)):
            left.extend(node.values() if isinstance(node, Mapping) else node)
    return not left


def _merge(cfg: CfgNode, values: Mapping[str, Any], source: str) -> None:
    for names, value in _leaves(values):
        key = ".".join(str(name) for name in names)
        node = cfg
        for name in names[:-1]:
            if not isinstance(node.get(name), CfgNode):
                raise ConfigError(_unknown(cfg, key, source))
            node = node[name]
        if names[-1] not in node:
            raise ConfigError(_unknown(cfg, key, source))
        dict.__setitem__(node, names[-1], _fit(value, node[names[-1]], key, source))


def _copy(source: CfgNode, target: CfgNode) -> None:
    """fast-reid's own merge would parse strings again and turn ``"101"`` into a number."""
    for name, value in source.items():
        if isinstance(value, CfgNode):
            _copy(value, target[name])
        else:
            dict.__setitem__(target, name, value)


def _leaves(values: Mapping[str, Any], names: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, (*names, name))
        else:
            yield (*names, name), value


def known_keys(cfg: CfgNode, prefix: str = "") -> list[str]:
    """Every dotted key of ``cfg`` that holds a value."""
    keys: list[str] = []
    for name, value in cfg.items():
        keys += known_keys(value, f"{prefix}{name}.") if isinstance(value, CfgNode) else [f"{prefix}{name}"]
    return keys


def _unknown(cfg: CfgNode, key: str, source: str) -> str:
    known = known_keys(cfg)
    last = key.split(".")[-1].lower()
    # The right name in a wrong section is a better guess than a similar spelling of the whole key.
    found = next((item for item in known if item.split(".")[-1].lower() == last), None) or nearest(key, known)
    way_out = f"did you mean {found}?" if found else "it lists no such section."
    return f"{source} sets {key}, which is not a config key; {way_out}"


def _fit(value: Any, default: Any, key: str, source: str) -> Any:
    """``value`` in the type of ``default``."""
    if isinstance(value, str) and not isinstance(default, str):
        value = CfgNode._decode_cfg_value(value)
    if (either := number_or_word(key, CfgNode._decode_cfg_value(value))) is not None:
        return either
    if isinstance(default, CfgNode):
        if isinstance(value, Mapping) and not value:
            return default
        raise ConfigError(f"{source} sets {key} to {value!r}, but it is a section; set the keys below it.")
    if isinstance(default, float) and type(value) is int:
        return float(value)
    if type(default) is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(default, (list, tuple)) and isinstance(value, (list, tuple)):
        texts = [isinstance(item, str) for item in default if not isinstance(item, NESTED)]
        if texts and any(
            isinstance(item, NESTED) or (texts[0] and not isinstance(item, str)) for item in value
        ):
            raise ConfigError(f"{source} sets {key} to {value!r}; it must be a list such as {default!r}.")
        return type(default)(value)
    if default is None or type(value) is type(default):
        return value
    kind = KINDS.get(type(default), f"a {type(default).__name__}")
    sample = type(default)((value,)) if isinstance(default, (list, tuple)) else default
    such_as = "" if type(default) is bool else f" such as {sample!r}"
    raise ConfigError(f"{source} sets {key} to {value!r}; it must be {kind}{such_as}.")
