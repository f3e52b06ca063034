"""Every string and number of our sections, replaced by a wrong one, is refused before an image is read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastreid.config import CfgNode, get_cfg

from dnreid_plugins.config import KEYS
from dnreid_plugins.engine.preflight import check
from dnreid_plugins.modeling.loss_heads import LOSS_HEAD_REGISTRY
from dnreid_plugins.runtime.config_files import ConfigError, merge_with_suggestions
from dnreid_plugins.runtime.sections import SECTIONS, keys_of

TESTS = Path(__file__).resolve().parents[1]
NAN, INF = float("nan"), float("inf")
#: Cosines, and the ramp over them: any finite number is one.
ANY_NUMBER = {
    "MODEL.LOSSES.DGM.SIMILARITY_THRESHOLD",
    "MODEL.LOSSES.DGM.THRESHOLD_START",
    "MODEL.LOSSES.DGM.THRESHOLD_FINAL",
    "MODEL.LOSSES.CMA.SIMILARITY_THRESHOLD",
    "MODEL.MATCHERS.DICTIONARYMATCHER.SIMILARITY_THRESHOLD",
    "MODEL.MATCHERS.DICTIONARYMATCHER.THRESHOLD_START",
    "MODEL.MATCHERS.DICTIONARYMATCHER.THRESHOLD_FINAL",
    "MODEL.MATCHERS.PAIRCOUNTMATCHER.SIMILARITY_THRESHOLD",
    "MODEL.LOSSES.MAA.S_0",
    "LABELS.DENSITYRELABEL.THRESHOLD",
}
#: What the wrong value is put into, where the default holds nothing that could be replaced.
FILLED: dict[str, Any] = {
    "MODEL.DUAL_STREAM.MODULES": ("conv1",),
    "MODEL.MEMORY.EXTRA_BANKS": (("hard", "hardest_of_own"),),
    "LABELS.REFINERS": ("JointClusters",),
    "MODEL.BLOCKS.NAME": ("StructureEnhancement",),
    "MODEL.BLOCKS.GLARESUPPRESSION.AFTER": ("bn1",),
    "MODEL.BLOCKS.STRUCTUREENHANCEMENT.AFTER": ("bn1",),
    "MODEL.BLOCKS.CLASSATTENTION.AFTER": ("bn1",),
    "MODEL.BLOCKS.NONLOCAL.AFTER": ("bn1",),
    "SOLVER.LR_FACTORS": (("backbone", 0.1),),
    "SOLVER.STAGES": (2,),
    "INPUT.VIEWS.DAY": ((), ("exchange",)),
    "INPUT.VIEWS.NIGHT": ((), ("grey",)),
}
#: Losses of clusters that both domains share, and of blocks inside the encoder.
SPANNING = ("IdentityClassifier", "CentreTriplet", "HardTriplet", "WeightedTriplet", "GlareMask")
SPANNING += ("JointContrast", "SharedContrast")
BLOCKS = ("GlareSuppression", "StructureEnhancement", "ClassAttention", "NonLocal")
#: What must be on for a section to matter.
SWITCHES: list[Any] = ["MODEL.TEACHER.ENABLED", True, "SOLVER.AMP.ENABLED", True, "SOLVER.SWA.ENABLED", True]
SWITCHES += ["INPUT.CHANNEL_AUG.ENABLED", True, "INPUT.REA.ENABLED", True, "PROFILE.STEPS", 1]


def base(path: str) -> CfgNode:
    """A sound config in which the section ``path`` is in force."""
    bridging = path.startswith(
        ("MODEL.BACKBONE.CLIP", "MODEL.PROMPT", "PROMPT_STAGE", "MODEL.LOSSES.IMAGETEXT")
    )
    cfg = get_cfg()
    cfg.merge_from_file(str(TESTS / ("tiny_bridging.yml" if bridging else "tiny.yml")))
    cfg.merge_from_list(SWITCHES)
    cfg.LABELS.CORRECTIONS.FILE = str(TESTS / "corrections.csv")
    cfg.OUTPUT_DIR = ""
    if bridging:
        return cfg
    cfg.MODEL.MEMORY.EXTRA_BANKS = (("hard", "hardest_of_own"),)
    last = path.rpartition(".")[2]
    if last in {"IDENTITIES", "JOINTMATCHER", *map(str.upper, SPANNING)} or path.startswith("MODEL.BLOCKS"):
        cfg.LABELS.SOURCE, cfg.DATALOADER.STREAMS = "Identities", ("domains", "joint")
        cfg.MODEL.LOSSES.SHAREDCONTRAST.CLUSTERS = "joint"
        cfg.MODEL.LOSSES.NAME = ("ClusterNCE", "CrossContrast", *SPANNING)
        cfg.MODEL.BLOCKS.NAME = BLOCKS
        for name in BLOCKS:
            cfg.MODEL.BLOCKS[name.upper()].AFTER = ("bn1",)
    else:
        cfg.MODEL.LOSSES.NAME = tuple(sorted({*LOSS_HEAD_REGISTRY.names()} - {"ImageText", *SPANNING}))
    if path.startswith("MODEL.MATCHERS."):
        cfg.MODEL.LOSSES.CROSSCONTRAST.MATCHER = SECTIONS[path].__name__
    if path.startswith("LABELS.") and last != "IDENTITIES":
        cfg.LABELS.REFINERS = (SECTIONS[path].__name__,)
    return cfg


def every_key() -> dict[str, Any]:
    """``{dotted key: value}`` of all that we add, with something in each sequence."""
    found = {f"{path}.{key.name}".lstrip("."): key.default for path, key in KEYS}
    for path, cls in SECTIONS.items():
        found.update({f"{path}.{key.name}": key.default for key in keys_of(cls)})
    return {key: FILLED.get(key, value) for key, value in found.items()}


def wrong(value: Any, *, any_number: bool) -> Iterator[Any]:
    """``value`` with one string or number in it replaced by a wrong one."""
    if isinstance(value, bool) or value is None:
        return
    if isinstance(value, str):
        yield from ("nonsense", "no\nsense", "\0")
    elif isinstance(value, (int, float)):
        yield from (NAN, INF, -INF)
        yield from () if any_number else (-7, -1e-9 if isinstance(value, float) else -1)
        yield "nonsense"
    elif isinstance(value, (list, tuple)):
        yield "nonsense"
        for place, item in enumerate(value):
            for other in wrong(item, any_number=any_number):
                yield (*value[:place], other, *value[place + 1 :])


#: A bank may have any name; a pattern that no parameter's name has is refused when there is a model.
FREE = [("SOLVER.LR_FACTORS", ((text, 0.1),)) for text in ("nonsense", "no\nsense", "\0")]
CASES = [
    (key, bad) for key, value in every_key().items() for bad in wrong(value, any_number=key in ANY_NUMBER)
]
CASES = [case for case in CASES if case not in FREE]


def put(cfg: CfgNode, key: str, value: Any) -> None:
    *path, name = key.split(".")
    for part in path:
        cfg = cfg[part]
    dict.__setitem__(cfg, name, value)


def test_the_fuzz_begins_at_sound_configs_and_reaches_every_key() -> None:
    for path in {key.rpartition(".")[0] for key in every_key()}:
        check(base(path))
    tried = {key for key, _ in CASES}
    truths = {key for key, value in every_key().items() if isinstance(value, bool)}
    assert len(CASES) > 500 and set(every_key()) - tried == truths


@pytest.mark.parametrize("key", sorted({key for key, _ in CASES}))
def test_no_wrong_value_survives(key: str) -> None:
    """As the run gets it, whoever has put it into the config."""
    survived = []
    for bad in [bad for name, bad in CASES if name == key]:
        cfg = base(key.rpartition(".")[0])
        if key in FILLED:
            put(cfg, key, FILLED[key])
        put(cfg, key, bad)
        try:
            check(cfg)
        except ConfigError as error:
            if key.rpartition(".")[2] not in str(error):
                survived.append(f"{bad!r} is refused without naming the key: {error}")
        except Exception as error:
            survived.append(f"{bad!r}: {type(error).__name__} {error}")
        else:
            survived.append(repr(bad))
    assert survived == []


@pytest.mark.parametrize("key", sorted({key for key, _ in CASES}))
def test_no_wrong_value_survives_the_command_line(key: str) -> None:
    survived = []
    for bad in [bad for name, bad in CASES if name == key]:
        cfg = base(key.rpartition(".")[0])
        try:
            merge_with_suggestions(cfg, "", [key, str(bad)])
            check(cfg)
        except ConfigError:
            continue
        survived.append(str(bad))
    assert survived == []
