"""The systems with true identities hold the settings of their released code."""

from __future__ import annotations

from typing import Any

import pytest
from config_values import differences

# The supervised systems: section 2 of the family's reference. An epoch is the larger domain's images / 32.
AGW: dict[str, Any] = {
    "LABELS.SOURCE": "Identities",
    "LABELS.REFINERS": (),
    "SOLVER.OPT": "SGD",
    "SOLVER.BASE_LR": 0.1,
    "SOLVER.MOMENTUM": 0.9,
    "SOLVER.NESTEROV": True,
    "SOLVER.WEIGHT_DECAY": 5e-4,
    "SOLVER.WEIGHT_DECAY_NORM": 5e-4,
    "SOLVER.WEIGHT_DECAY_BIAS": 5e-4,
    "SOLVER.BIAS_LR_FACTOR": 1.0,
    "SOLVER.HEADS_LR_FACTOR": 1.0,
    "SOLVER.LR_FACTORS": (("^backbone[.]", 0.1),),
    "SOLVER.SCHED": "MultiStepLR",
    "SOLVER.GAMMA": 0.1,
    "SOLVER.STEPS": (20, 50),
    "SOLVER.STAGES": (),
    "SOLVER.WARMUP_METHOD": "linear",
    "SOLVER.WARMUP_FACTOR": 0.1,
    "SOLVER.MAX_EPOCH": 81,
    "SOLVER.IMS_PER_BATCH": 64,
    "SOLVER.AMP.ENABLED": False,
    "DATALOADER.NUM_INSTANCE": 4,
    "DATALOADER.PAIRED": True,
    "INPUT.SIZE_TRAIN": (288, 144),
    "INPUT.FLIP.ENABLED": True,
    "INPUT.PADDING.ENABLED": True,
    "INPUT.PADDING.SIZE": 10,
    "INPUT.REA.ENABLED": False,
    "INPUT.VIEWS.DAY": ((),),
    "INPUT.VIEWS.NIGHT": ((),),
    "MODEL.META_ARCHITECTURE": "CrossDomainBaseline",
    "MODEL.BACKBONE.DEPTH": "50x",
    "MODEL.BACKBONE.LAST_STRIDE": 1,
    "MODEL.BACKBONE.WITH_NL": True,
    "MODEL.BACKBONE.NL_WIDTH": 0.0,
    "MODEL.DUAL_STREAM.MODULES": ("conv1", "bn1"),
    "MODEL.DUAL_STREAM.SHARED_BN": "joint",
    "MODEL.HEADS.POOL_LAYER": "GeneralizedMeanPooling",
    "MODEL.HEADS.WITH_BNNECK": True,
    "MODEL.LOSSES.NAME": ("IdentityClassifier", "WeightedTriplet"),
    "MODEL.LOSSES.IDENTITYCLASSIFIER.WEIGHT": ((1, 1.0),),
    "MODEL.LOSSES.IDENTITYCLASSIFIER.SMOOTHING": 0.0,
    "MODEL.LOSSES.WEIGHTEDTRIPLET.WEIGHT": ((1, 1.0),),
    "MODEL.LOSSES.WEIGHTEDTRIPLET.SQUARED": False,
    "MODEL.LOSSES.WEIGHTEDTRIPLET.AS_RELEASED": False,
}
CAJ: dict[str, Any] = {
    **AGW,
    "SOLVER.MAX_EPOCH": 100,
    "INPUT.REA.ENABLED": True,
    "INPUT.REA.PROB": 0.5,
    "INPUT.VIEWS.DAY": ((), ("exchange",)),
    "INPUT.VIEWS.NIGHT": (("channel_or_grey",),),
    "MODEL.LOSSES.WEIGHTEDTRIPLET.SQUARED": True,
}
DCLNET: dict[str, Any] = {
    **AGW,
    "SOLVER.OPT": "Adam",
    "SOLVER.BASE_LR": 3.5e-3,
    "SOLVER.WARMUP_FACTOR": 0.2,
    "SOLVER.STEPS": (15, 27),
    "SOLVER.MAX_EPOCH": 150,
    "INPUT.PADDING.ENABLED": False,
    "INPUT.REA.ENABLED": True,
    "INPUT.REA.PROB": 0.5,
    "INPUT.VIEWS.DAY": (("grey_or_colour",),),
    "MODEL.BACKBONE.WITH_NL": False,
    "MODEL.DUAL_STREAM.MODULES": ("conv1", "bn1", "layer1"),
    "MODEL.LOSSES.NAME": ("IdentityClassifier", "CentreTriplet"),
    "MODEL.LOSSES.CENTRETRIPLET.WEIGHT": ((1, 1.0),),
    "MODEL.LOSSES.CENTRETRIPLET.MARGIN": 0.7,
    "MODEL.LOSSES.CENTRETRIPLET.STRIDE": 0,
}
SUPERVISED_MINI: dict[str, Any] = {
    "LABELS.SOURCE": "Identities",
    "SOLVER.OPT": "Adam",
    "SOLVER.BASE_LR": 2e-4,
    "SOLVER.STEPS": (7,),
    "SOLVER.STAGES": (),
    "SOLVER.MAX_EPOCH": 10,
    "SOLVER.IMS_PER_BATCH": 64,
    "DATALOADER.NUM_INSTANCE": 4,
    "DATALOADER.ITERS_PER_EPOCH": 30,
    "DATALOADER.PAIRED": True,
}
#: The recipe, the length of its warm-up in epochs, and what `as-released` changes.
SUPERVISED: dict[str, tuple[dict[str, Any], int, dict[str, Any]]] = {
    "AGW": (AGW, 10, {"MODEL.LOSSES.WEIGHTEDTRIPLET.AS_RELEASED": True}),
    "CAJ": (
        CAJ,
        10,
        {
            "MODEL.LOSSES.WEIGHTEDTRIPLET.AS_RELEASED": True,
            "INPUT.REA.VALUE": (152.37, 143.82, 129.15),
        },
    ),
    "DCLNet": (DCLNET, 5, {"MODEL.LOSSES.CENTRETRIPLET.STRIDE": 8}),
}
SUPERVISED_SETS = {"dn348": ("DN348", 313), "dnwild": ("DNWild", 2218), "regdb": ("RegDB", 64)}


@pytest.mark.parametrize("system", sorted(SUPERVISED))
@pytest.mark.parametrize("name", [*SUPERVISED_SETS, "as-released"])
def test_full_size_supervised_systems_are_the_released_codes(system: str, name: str) -> None:
    recipe, warmup, released = SUPERVISED[system]
    data, iterations = SUPERVISED_SETS.get(name, SUPERVISED_SETS["dn348"])
    own = {
        "DATASETS.NAMES": (data,),
        "DATASETS.TESTS": (data,),
        "DATALOADER.ITERS_PER_EPOCH": iterations,
        "SOLVER.WARMUP_ITERS": iterations * warmup,
        **(released if name == "as-released" else {}),
    }
    assert differences(f"{system}/{name}", {**recipe, **own}) == {}


@pytest.mark.parametrize("system", sorted(SUPERVISED))
def test_supervised_systems_on_the_embedded_data(system: str) -> None:
    method = {key: value for key, value in SUPERVISED[system][0].items() if key.startswith("MODEL.LOSSES.")}
    views = {"INPUT.VIEWS.DAY": ((), ("exchange",)) if system == "CAJ" else ((),)}
    assert differences(f"{system}/dnmini", {**SUPERVISED_MINI, **method, **views}) == {}


@pytest.mark.parametrize("name", ["dn348", "dnwild"])
def test_base_on_the_network_with_non_local_blocks_is_unsupervised(name: str) -> None:
    expected = {
        "MODEL.BACKBONE.WITH_NL": True,
        "MODEL.DUAL_STREAM.MODULES": ("conv1", "bn1"),
        "MODEL.LOSSES.NAME": ("ClusterNCE",),
        "LABELS.SOURCE": "DomainClusters",
        "DATASETS.NAMES": (SUPERVISED_SETS[name][0],),
    }
    assert differences(f"AGW/base-{name}", expected) == {}
