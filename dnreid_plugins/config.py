"""Every key that we add to fast-reid's config.

A part, label source or stage keeps its keys as its constructor's signature (`runtime.sections`); all other keys are
here, each with its default, its allowed values and a sentence. docs/configuration.md is generated from both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fastreid.config import CfgNode

from .runtime.sections import Count, CountOrNone, Key, NotNegative, Range, Share, add_sections

#: A list of whole numbers, such as the first epochs of stages.
Epochs = Sequence[int]

#: ``(path, Key)`` of every key that does not belong to a constructor.
KEYS: list[tuple[str, Key]] = []


def _keys(path: str, *keys: tuple[str, Any, Any, str]) -> None:
    KEYS.extend((path, Key(*key)) for key in keys)


_keys(
    "",
    (
        "PLUGINS",
        (),
        Sequence[str],
        "Modules of your own, as `import` names them: beside the config, in the current folder or installed. They are "
        "imported before any other key is read, in workers too, so that a config names what they register like ours.",
    ),
    (
        "SEED",
        0,
        Annotated[int, Range(0)],
        "One seed for weights, sampling and augmentation. Same seed, machine and thread count: bit-identical results.",
    ),
    (
        "DETERMINISTIC",
        True,
        bool,
        "Use deterministic kernels on a GPU, at some cost in speed; operations without one give a warning. A CPU "
        "is always deterministic. CUDNN_BENCHMARK must stay False, since it chooses kernels by their measured time.",
    ),
)
_keys(
    "MODEL",
    (
        "CHANNELS_LAST",
        False,
        bool,
        "Keep images and convolution weights in channels-last order; often faster, same values up to rounding.",
    ),
    (
        "SYNC_BN",
        True,
        bool,
        "With several processes batch norm uses the statistics of the global batch, as in a single process. False: "
        "each process uses its own images, which is faster but gives different results.",
    ),
)
_keys(
    "MODEL.DUAL_STREAM",
    (
        "MODULES",
        (),
        Sequence[str],
        'Sub-modules of the backbone that each domain gets its own copy of, e.g. ("conv1", "bn1", "layer1"); '
        "(papers differ, U26). Empty: both domains share the whole "
        "backbone.",
    ),
    (
        "SHARED_BN",
        "joint",
        Literal["joint", "separate", "frozen"],
        'How batch norm of the shared part treats the two domains: "joint" (one concatenated pass), "separate" (one '
        'pass per domain, running statistics mixed) or "frozen" (the initial running statistics are kept).',
    ),
    (
        "ASSUME_DOMAIN",
        "",
        Literal["", "day", "night"],
        "Domain of images that come without one, as in fast-reid's demo.py and onnx_export.py; a model with two "
        'streams refuses such images if this is "".',
    ),
)
_keys(
    "MODEL.BLOCKS",
    (
        "NAME",
        (),
        Sequence[str],
        "Blocks that are put into the backbone, each behind the sub-modules that its section names in AFTER.",
    ),
)
_keys(
    "DATALOADER",
    (
        "ITERS_PER_EPOCH",
        0,
        CountOrNone,
        "Optimizer steps per epoch; 0 = training images // IMS_PER_BATCH, as in fast-reid; papers: not given (U25).",
    ),
    (
        "STREAMS",
        ("domains",),
        Sequence[str],
        'Batches of an iteration, a step of the optimizer for each: "domains" (clusters of each domain), "joint" '
        '(clusters "joint" with images of both domains, as many of either), "union" (clusters "joint" as they '
        "are). A loss head belongs to one of them. A stream whose clusters a refiner makes later begins then.",
    ),
    (
        "CACHE",
        "ram",
        Literal["ram", "disk", "off"],
        "Keep the resized images, so that each file is decoded once, with the same pixels: in memory (at most a "
        "quarter of what is free), in files of $DNREID_CACHE (~/.cache/dnreid) for later runs too, or not.",
    ),
    (
        "PAIRED",
        False,
        bool,
        "Draw matched day and night clusters into the same batch once a matching exists; papers: not given (U23).",
    ),
)
_keys(
    "DATASETS",
    (
        "DIGEST",
        "list",
        Literal["list", "content"],
        'What a resume, an evaluation and the processes of a job compare of the data: "list" = paths, labels '
        'and sizes of all files, "content" = their bytes as well, which reads every file once.',
    ),
)
_keys(
    "SOLVER",
    (
        "STAGES",
        (),
        Epochs,
        "Epochs (counted from 1) at which optimizer and learning-rate schedule are reset; () = one schedule; "
        "not given in the papers (U1).",
    ),
    ("CHECKPOINT_KEEP", 2, Count, "Newest periodic checkpoints that are kept."),
    (
        "CHECKPOINT_MINUTES",
        0.0,
        NotNegative,
        "Write a checkpoint at least every so many minutes, also within an epoch; 0 = at epoch ends only.",
    ),
)
_keys(
    "SOLVER.AMP",
    (
        "DTYPE",
        "float16",
        Literal["float16", "bfloat16"],
        'Number format of automatic mixed precision: "float16" (with loss scaling) or "bfloat16".',
    ),
)
_keys(
    "SOLVER.SWA",
    (
        "ENABLED",
        False,
        bool,
        "Average the weights after each of the last epochs (SWA); the average is evaluated and saved at the end.",
    ),
    ("START_EPOCH", 1, Count, "First epoch (counted from 1) that is included in the average."),
)
_keys(
    "TEST",
    (
        "WITHIN_DOMAIN",
        False,
        bool,
        "Also report day-in-day and night-in-night retrieval (the image itself removed).",
    ),
    ("EVAL_START", True, bool, "Evaluate the initial model before the first epoch."),
    (
        "SET_ANYWAY",
        False,
        bool,
        "Evaluate a checkpoint although this config makes other features than that of its run, or although the test "
        "images are others; the differences are written into the result.",
    ),
    (
        "KEEP_BEST",
        True,
        bool,
        "With EVAL_PERIOD above 0 keep the weights of the best test score as model_best.pth; chosen by test labels, "
        "they are not a result.",
    ),
)
_keys(
    "AUDIT",
    (
        "PERIOD",
        50,
        CountOrNone,
        "Every so many iterations log each loss head's gradient norm at the features; 0 = never.",
    ),
)
_keys(
    "REPORT",
    (
        "ENABLED",
        True,
        bool,
        "Write OUTPUT_DIR/report.html at the end of a run; `dnreid report OUTPUT_DIR` does so at any time.",
    ),
)
_keys(
    "PROFILE",
    (
        "STEPS",
        0,
        CountOrNone,
        "Iterations to profile into OUTPUT_DIR/profile-<iteration>.json (chrome://tracing); 0 = none.",
    ),
    (
        "START",
        10,
        CountOrNone,
        "Iteration at which profiling starts; the first few are slower than the rest.",
    ),
)
_keys(
    "INPUT.CHANNEL_AUG",
    (
        "ENABLED",
        False,
        bool,
        "Replace day images at random by one of their channels or their grey value.",
    ),
    ("PROB", 0.5, Share, "How often."),
)
_keys(
    "INPUT.VIEWS",
    (
        "DAY",
        ((),),
        Any,
        "Views of a day image in a training batch, each with its own augmentation and a list of further steps: "
        '"exchange" (one random channel in all three), "grey", "grey_or_colour" (1/2 each), "grey_or_channel" (1/2 as '
        'it is, else grey or a channel), "channel_or_grey" (channel 3/4, grey 1/8). ((), ("exchange",)) is what most '
        "released baselines train on. SOLVER.IMS_PER_BATCH counts images, not views.",
    ),
    ("NIGHT", ((),), Any, "Views of a night image."),
)
_keys(
    "INPUT.REA",
    (
        "MODE",
        "constant",
        str,
        'What random erasing fills in: "constant" (INPUT.REA.VALUE, as fast-reid) or "noise" (normal, per pixel).',
    ),
)


def extend_defaults() -> None:
    """Add our keys to the defaults that ``fastreid.config.get_cfg()`` returns. Calling it twice is harmless."""
    from fastreid.config.defaults import _C

    if "CLUSTER" not in _C:
        add_config(_C)


def add_config(cfg: CfgNode) -> None:
    """Add our keys with their defaults to ``cfg``."""
    for path, key in KEYS:
        node = cfg
        for name in path.split(".") if path else ():
            if name not in node:
                dict.__setitem__(node, name, CfgNode())
            node = node[name]
        dict.__setitem__(node, key.name, key.default)
    add_sections(cfg)


def objections(cfg: CfgNode) -> list[str]:
    """A sentence for every key of this file whose value is not allowed."""
    found = []
    for path, key in KEYS:
        node = cfg
        for name in path.split(".") if path else ():
            node = node[name]
        if text := key.objection(node[key.name]):
            full = f"{path}.{key.name}" if path else key.name
            found.append(f"{full} is {node[key.name]!r}; it must be {text}.")
    return found
