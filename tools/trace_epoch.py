"""What a run does, in its order, recorded from a tiny training on the tests' data."""

from __future__ import annotations

import inspect
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, NamedTuple
from unittest import mock

from made_page import ROOT

sys.path.insert(0, str(ROOT / "tests"))

import tiny_run
from fastreid.engine.train_loop import HookBase

from dnreid_plugins.engine.label_phase import LabelPhase
from dnreid_plugins.engine.stages import Stage
from dnreid_plugins.engine.trainer import CrossDomainTrainer
from dnreid_plugins.evaluation.extraction import extract_features
from dnreid_plugins.labels import LabelSource, Refiner
from dnreid_plugins.modeling.loss_heads import LossHead
from dnreid_plugins.modeling.matchers import Matcher
from dnreid_plugins.modeling.memories import ClusterMemory
from dnreid_plugins.modeling.meta_arch import CrossDomainBaseline
from dnreid_plugins.modeling.teachers import Teacher

#: The trainer's methods that are the moments of a run.
MOMENTS = (
    "before_train",
    "before_epoch",
    "before_step",
    "run_step",
    "after_step",
    "after_epoch",
    "after_train",
)
#: Per kind the methods of its contract.
CONTRACTS: dict[type, tuple[str, ...]] = {
    Stage: ("prepare", "run_epoch", "hand_over"),
    LabelSource: ("__call__",),
    Refiner: ("__call__",),
    Matcher: ("match",),
    **dict.fromkeys((LossHead, ClusterMemory, Teacher), ("begin_epoch", "forward", "after_step")),
    CrossDomainBaseline: ("forward",),
}


class What(NamedTuple):
    """A method: its name in the picture, what it says it does, and whether it is a hook of the trainer."""

    title: str
    sentence: str
    hook: bool = False


class Call(NamedTuple):
    """A call of `What`, and in which of `MOMENTS`."""

    moment: str
    title: str
    sentence: str
    hook: bool


class KeepsLabels(Refiner):
    """Stands for any refiner."""

    def __call__(self, epoch: Any, features: Any, images: Any) -> Any:
        return epoch


def trace() -> list[Call]:
    """The calls of a tiny run of one epoch with every kind of part, each once per moment, in their order."""
    seen: dict[Call, None] = {}
    with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, FASTREID_DATASETS=folder):
        parts = tiny_run.register_tiny_backbone()
        parts.write_tiny_dn348(Path(folder))
        opts = ["tiny_bridging.yml", "OUTPUT_DIR", f"{folder}/out", "MODEL.TEACHER.ENABLED", True]
        opts += ["SOLVER.MAX_EPOCH", 1, "SOLVER.STEPS", (), "TEST.EVAL_START", False]
        trainer = CrossDomainTrainer(tiny_run.tiny_config(opts))
        phase = next(hook for hook in trainer._hooks if isinstance(hook, LabelPhase))
        phase.labels.refiners = (KeepsLabels(),)
        trainer.resume_or_load()
        sys.setprofile(_recorder(_watched(trainer), seen))
        try:
            trainer.train()
        finally:
            sys.setprofile(None)
    return list(seen)


def _recorder(watched: dict[CodeType, What], seen: dict[Call, None]) -> Callable[..., None]:
    moments = {getattr(CrossDomainTrainer, name).__code__: name for name in MOMENTS}
    running: list[str] = []

    def record(frame: FrameType, event: str, argument: Any) -> None:
        code = frame.f_code
        if code in moments and event in ("call", "return"):
            running.append(moments[code]) if event == "call" else running.pop()
        elif event == "call" and code in watched and running:
            seen.setdefault(Call(running[-1], *watched[code]))

    return record


def _watched(trainer: Any) -> dict[CodeType, What]:
    """Code of every method that a contract names, or that is a hook's -> what it is."""
    found: dict[CodeType, What] = {}
    for kind, methods in CONTRACTS.items():
        for cls, method in ((cls, method) for cls in _family(kind) for method in methods):
            if method in vars(cls):
                found[_code(vars(cls)[method])] = What(f"{kind.__name__}.{method}", _sentence(kind, method))
    hooks = [hook for hook in trainer._hooks if type(hook).__module__.startswith("dnreid_plugins.")]
    for cls, method in ((type(hook), method) for hook in hooks for method in MOMENTS):
        if not issubclass(cls, Stage) and getattr(cls, method, None) is not getattr(HookBase, method, None):
            found[_code(getattr(cls, method))] = What(cls.__name__.lstrip("_"), _sentence(cls, method), True)
    for function in (extract_features, CrossDomainTrainer.use_labels, CrossDomainTrainer.test):
        found[_code(function)] = What(function.__name__, first_sentence(function.__doc__ or ""))
    found[_code(type(trainer.optimizer).step)] = What("Optimizer.step", "Move the weights")
    return found


def _family(kind: type) -> Iterator[type]:
    yield kind
    for cls in kind.__subclasses__():
        yield from _family(cls)


def _code(function: Any) -> CodeType:
    function = inspect.unwrap(getattr(function, "__func__", function))
    code: CodeType = function.__code__
    return code


def _sentence(cls: type, method: str) -> str:
    """What the method says of itself, or else its class, up to the end of the sentence."""
    texts = [cls.__doc__]
    if method != "__call__":
        ours = [base for base in cls.__mro__ if base.__module__.startswith("dnreid_plugins.")]
        texts = [vars(base)[method].__doc__ for base in ours if method in vars(base)] + texts
    return first_sentence(next((text for text in texts if text), ""))


def first_sentence(text: str) -> str:
    """Up to the first full stop or semicolon, as plain text."""
    plain = " ".join(inspect.cleandoc(text).split("\n\n")[0].replace("`", "").split())
    return re.split(r"(?<=\w|\))[.;](?= |$)", plain)[0]
