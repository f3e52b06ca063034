"""The optimizer: fast-reid's ``SOLVER`` keys, few parameter groups, clipping by the norm of all gradients."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim.optimizer import Optimizer

from ...runtime.sections import configured, construct
from .schedule import EpochSchedule

logger = logging.getLogger(__name__)

OPTIMIZERS = (
    "SGD",
    "Adam",
    "AdamW",
    "RAdam",
    "NAdam",
    "Adamax",
    "Adagrad",
    "Adadelta",
    "Adafactor",
    "RMSprop",
    "Lamb",
)
NORMS = (
    nn.modules.batchnorm._NormBase,  # every batch and instance norm
    nn.GroupNorm,
    nn.LayerNorm,
    nn.LocalResponseNorm,
)


@configured("SOLVER")
class RateFactors:
    """Learning rates of single parameters.

    Args:
        lr_factors: Pairs (pattern, factor): the first regular expression that is found in a parameter's full name
            multiplies its rate, e.g. (("^backbone[.]", 0.1),); on top of BIAS_LR_FACTOR and HEADS_LR_FACTOR.

    Raises:
        ValueError: not such pairs, or a factor that is not a number of at least 0.
    """

    def __init__(self, *, lr_factors: Sequence[Sequence[Any]] = ()) -> None:
        try:
            pairs = [(re.compile(pattern), float(factor)) for pattern, factor in lr_factors]
            fits = all(0 <= factor < float("inf") for _, factor in pairs)
        except (TypeError, ValueError, re.error):
            pairs, fits = [], False
        if not fits:
            raise ValueError(
                f"SOLVER.LR_FACTORS is {lr_factors!r}; it holds (pattern, factor) pairs, a regular expression and a "
                'number of at least 0 each, e.g. (("^backbone[.]", 0.1),).'
            )
        self.pairs = pairs

    def of(self, name: str) -> float:
        """The factor of the parameter ``name``."""
        return next((factor for pattern, factor in self.pairs if pattern.search(name)), 1.0)

    def check(self, names: Sequence[str]) -> None:
        """Refuse a pattern that is found in none of ``names``.

        Raises:
            ValueError: there is one.
        """
        for pattern, _ in self.pairs:
            if not any(pattern.search(name) for name in names):
                raise ValueError(
                    f"SOLVER.LR_FACTORS has {pattern.pattern!r}, which is found in the name of no parameter; they are "
                    f"called like {', '.join(names[:: max(len(names) // 3, 1)][:3])}."
                )


def build_optimizer(cfg: Any, model: nn.Module) -> Optimizer:
    """``SOLVER.OPT`` over the trainable parameters of ``model``, one group per learning rate and decay.

    Differs from fast-reid's function where that one is wrong: parameters are never copied into flat
    buffers, equal groups are merged, ``CLIP_GRADIENTS`` with type ``norm`` means the norm over all
    parameters, ``WEIGHT_DECAY`` 0 means no decay at all, ``HEADS_LR_FACTOR`` also reaches heads called
    ``*_head``, and ``Lamb`` works. ``LR_FACTORS`` gives parameters by name a rate of their own.

    Raises:
        ValueError: an unknown optimizer or clip type, a factor for no parameter, or nothing to train.
    """
    solver = cfg.SOLVER
    factors = construct(RateFactors, cfg)
    factors.check([name for name, _ in model.named_parameters()])
    groups = parameter_groups(
        model,
        lr=solver.BASE_LR,
        decay=solver.WEIGHT_DECAY,
        norm_decay=_own_decay(solver, "WEIGHT_DECAY_NORM"),
        bias_decay=_own_decay(solver, "WEIGHT_DECAY_BIAS"),
        bias_factor=solver.BIAS_LR_FACTOR,
        heads_factor=solver.HEADS_LR_FACTOR,
        factor_of=factors.of,
    )
    if not groups:
        raise ValueError(
            "No parameter of the model is trainable; leave a part out of MODEL.FREEZE_LAYERS or unfreeze it."
        )
    extra: dict[str, Any] = {}
    if solver.OPT == "SGD":
        extra = {"momentum": solver.MOMENTUM, "nesterov": solver.NESTEROV}
    optimizer = optimizer_class(solver.OPT)(groups, lr=solver.BASE_LR, **extra)
    if solver.CLIP_GRADIENTS.ENABLED:
        clip = solver.CLIP_GRADIENTS
        add_clipping(optimizer, kind=clip.CLIP_TYPE, limit=clip.CLIP_VALUE, norm_type=clip.NORM_TYPE)
    for group in groups:
        count = sum(p.numel() for p in group["params"])
        text = "%s: %d tensors (%.3f M) with learning rate %g and weight decay %g"
        logger.info(text, solver.OPT, len(group["params"]), count / 1e6, group["lr"], group["weight_decay"])
    return optimizer


def build_lr_scheduler(cfg: Any, optimizer: Optimizer, iters_per_epoch: int) -> EpochSchedule:
    """The learning rate of every iteration, see `EpochSchedule`."""
    return EpochSchedule.from_config(cfg, optimizer, iters_per_epoch)


def optimizer_class(name: str) -> Callable[..., Optimizer]:
    """The class for ``SOLVER.OPT``.

    Raises:
        ValueError: not one of `OPTIMIZERS`.
    """
    if name not in OPTIMIZERS:
        raise ValueError(f"SOLVER.OPT is {name!r}; it must be one of {', '.join(OPTIMIZERS)}.")
    if name == "Lamb":
        from fastreid.solver.optim import Lamb

        return Lamb
    return getattr(torch.optim, name)


def parameter_groups(
    model: nn.Module,
    *,
    lr: float,
    decay: float,
    norm_decay: float,
    bias_decay: float,
    bias_factor: float = 1.0,
    heads_factor: float = 1.0,
    factor_of: Callable[[str], float] = lambda name: 1.0,
) -> list[dict[str, Any]]:
    """Trainable parameters, each once, grouped by learning rate and weight decay in order of appearance.

    fast-reid's rules: norm layers have ``norm_decay``; a parameter called ``bias`` has ``bias_decay`` (also in a
    norm layer) and ``bias_factor``; everything in a head has ``heads_factor`` on top. ``factor_of`` gives a further
    factor by the full name.
    """
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for parameter, path, module, in_head in _trainable(model):
        name = path.rpartition(".")[2]
        rate, own_decay = lr, norm_decay if isinstance(module, NORMS) else decay
        if name == "bias":
            rate, own_decay = lr * bias_factor, bias_decay
        if in_head:
            rate *= heads_factor
        rate *= factor_of(path)
        group = groups.setdefault((rate, own_decay), {"params": [], "lr": rate, "weight_decay": own_decay})
        group["params"].append(parameter)
    return list(groups.values())


def add_clipping(optimizer: Optimizer, *, kind: str, limit: float, norm_type: float = 2.0) -> None:
    """Before each step scale all gradients so that their common norm, or each value, is at most ``limit``.

    Raises:
        ValueError: ``kind`` is neither ``"norm"`` nor ``"value"``.
    """
    if kind not in ("norm", "value"):
        raise ValueError(f"SOLVER.CLIP_GRADIENTS.CLIP_TYPE is {kind!r}; it must be 'norm' or 'value'.")
    parameters = [p for group in optimizer.param_groups for p in group["params"]]

    def clip(*_: Any) -> None:
        if kind == "norm":
            nn.utils.clip_grad_norm_(parameters, limit, norm_type)
        else:
            nn.utils.clip_grad_value_(parameters, limit)

    optimizer.register_step_pre_hook(clip)


def _trainable(model: nn.Module) -> Iterator[tuple[nn.Parameter, str, nn.Module, bool]]:
    seen: set[int] = set()
    for path, module in model.named_modules():
        top = path.split(".")[0]
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad and id(parameter) not in seen:
                seen.add(id(parameter))
                yield (
                    parameter,
                    f"{path}.{name}" if path else name,
                    module,
                    top == "heads" or top.endswith("_head"),
                )


def _own_decay(solver: Any, key: str) -> float:
    """``WEIGHT_DECAY_NORM`` and ``_BIAS`` are copies in fast-reid, so ``WEIGHT_DECAY 0`` leaves both at 5e-4."""
    if solver.WEIGHT_DECAY == 0 and solver[key] != 0:
        logger.warning("SOLVER.WEIGHT_DECAY is 0, so SOLVER.%s (%g) counts as 0 too.", key, solver[key])
        return 0.0
    return solver[key]
