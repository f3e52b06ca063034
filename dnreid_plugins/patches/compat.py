"""The only file that depends on fast-reid's version.

fast-reid 1.4.0 was written for Python 3.8, PyTorch 1.13 and CUDA. Each patch below names the fast-reid symbol that it
replaces; ``tests/test_compat.py`` has one test per patch, which fails when fast-reid no longer needs it. Patches
change objects in memory; nothing is written into site-packages.
"""

from __future__ import annotations

import copy
import functools
import importlib
import importlib.metadata
import sys
from pathlib import Path
from typing import Any

import torch

from . import old_names

INSTALL_COMMAND = "pip install --no-deps fastreid==1.4.0"
#: Newest values of a scalar that stay in memory; the mean over all of them is kept separately.
KEPT_VALUES = 1000


def import_fastreid() -> None:
    """Import every fast-reid package once; the two names that it misses exist only meanwhile.

    Patches ``fastreid.data.build`` (``torch._six.string_classes``, ``collections.Mapping``) and
    ``fastreid.evaluation.testing`` (``collections.Mapping``).

    Raises:
        ImportError: fast-reid is not installed.
    """
    try:
        importlib.metadata.version("fastreid")
    except importlib.metadata.PackageNotFoundError:
        raise ImportError(
            f"dnreid_plugins needs fast-reid 1.4.0, which is not installed; run: {INSTALL_COMMAND}"
        ) from None
    with old_names.in_place():
        for name in ("config", "data", "evaluation", "modeling", "solver", "utils", "engine"):
            importlib.import_module(f"fastreid.{name}")


def _preprocess_image(self: Any, batched_inputs: Any) -> Any:
    """Normalise out of place and on the model's device; accepts a batch dict or an image tensor (B, 3, H, W).

    The ``targets`` of a dict go to that device too: fast-reid's ``forward`` reads them after this call and its
    heads index with them where the features are, while our loader leaves batches on the CPU.
    """
    device = self.pixel_mean.device
    images = batched_inputs["images"] if isinstance(batched_inputs, dict) else batched_inputs
    if isinstance(batched_inputs, dict) and isinstance(batched_inputs.get("targets"), torch.Tensor):
        batched_inputs["targets"] = batched_inputs["targets"].to(device)
    images = images.to(device=device, dtype=self.pixel_mean.dtype)
    return (images - self.pixel_mean) / self.pixel_std


def _in_order(init: Any) -> Any:
    """A data set's constructor that sorts its three lists; lists that are set later are sorted then."""

    def ordered(items: Any) -> Any:
        return (lambda: sorted(items())) if callable(items) else sorted(items)

    @functools.wraps(init)
    def sorted_init(self: Any, train: Any, query: Any, gallery: Any, *args: Any, **kwargs: Any) -> None:
        init(self, ordered(train), ordered(query), ordered(gallery), *args, **kwargs)

    return sorted_init


class _PackageConfig:
    """RegNet's and EffNet's global config, independent of the working directory and of earlier builds.

    The yaml files are found next to fast-reid's code, and each build starts from the defaults (a RegNetY left its
    options set for every RegNetX).
    """

    def __init__(self, cfg: Any, home: Path) -> None:
        self._cfg = cfg
        self._home = home
        self._defaults = copy.deepcopy(dict(cfg))

    def merge_from_file(self, cfg_filename: str) -> None:
        for key, value in self._defaults.items():
            self._cfg[key] = copy.deepcopy(value)
        self._cfg.merge_from_file(str(self._home / cfg_filename))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cfg, name)


def patch_fastreid() -> None:
    """Replace the fast-reid symbols that cannot work, or work wrongly, on today's machines."""
    import fastreid.data
    import fastreid.data.build as build
    import fastreid.data.common as common
    import fastreid.data.data_utils as data_utils
    import fastreid.data.datasets.bases as bases
    import fastreid.data.transforms as transforms
    import fastreid.engine.defaults as defaults
    import fastreid.evaluation
    import fastreid.evaluation.rank as rank
    import fastreid.evaluation.reid_evaluation as reid_evaluation
    from fastreid.layers import any_softmax
    from fastreid.modeling import meta_arch
    from fastreid.modeling.meta_arch import META_ARCH_REGISTRY, baseline, mgn, moco
    from fastreid.utils import history_buffer

    from ..data.dataset import DomainCommDataset
    from ..data.images import read_image
    from ..data.loaders import CpuGpuLoader, collate
    from ..data.transforms import build_transforms
    from ..modeling.backbone import build_backbone
    from .distiller import Distiller
    from .losses import QueueMemory, SafeArcSoftmax, cross_entropy_loss
    from .reid_evaluator import DomainReidEvaluator

    effnet = sys.modules["fastreid.modeling.backbones.regnet.effnet"]
    regnet = sys.modules["fastreid.modeling.backbones.regnet.regnet"]

    # Baseline/MGN.preprocess_image: normalised the caller's tensor in place (flip test, predictor wrong).
    baseline.Baseline.preprocess_image = _preprocess_image
    mgn.MGN.preprocess_image = _preprocess_image
    # build_backbone: wrapped or prefixed weight files silently loaded nothing; PRETRAIN needs gdown.
    baseline.build_backbone = mgn.build_backbone = build_backbone
    # any_softmax.ArcSoftmax: NaN where a feature meets its class centre.
    any_softmax.ArcSoftmax = SafeArcSoftmax
    # cross_entropy_loss: the mean left out images whose loss is exactly 0; one class divided by zero.
    baseline.cross_entropy_loss = mgn.cross_entropy_loss = cross_entropy_loss
    # moco.Memory: an image was its own positive, empty rows counted as class 0.
    moco.Memory = QueueMemory
    # Distiller: the EMA teacher was in no checkpoint, teachers used batch statistics.
    META_ARCH_REGISTRY._obj_map["Distiller"] = meta_arch.Distiller = Distiller
    # Dataset: readers list images in the file system's order.
    bases.Dataset.__init__ = _in_order(bases.Dataset.__init__)
    # data.build.DataLoaderX: opened a CUDA stream even without CUDA; its thread hung after a data set error.
    build.DataLoaderX = CpuGpuLoader
    # CommDataset: dropped the domain of our images.
    fastreid.data.CommDataset = common.CommDataset = build.CommDataset = DomainCommDataset
    # data.build.fast_batch_collator: turned unknown types into None.
    build.fast_batch_collator = collate
    # data.data_utils.read_image: palette indices became colours, other modes kept 2 or 4 channels.
    common.read_image = data_utils.read_image = read_image
    # data.transforms.build_transforms: AFFINE raised, the patch pool held 18 GiB per worker.
    build.build_transforms = transforms.build_transforms = build_transforms
    # ReidEvaluator: wrong ROC, stale rows on small galleries, NaN silently ranked, CUDA for re-ranking.
    fastreid.evaluation.ReidEvaluator = defaults.ReidEvaluator = DomainReidEvaluator
    # evaluation.evaluate_rank: visualize_result.py imports it from there, where it does not exist.
    fastreid.evaluation.evaluate_rank = rank.evaluate_rank
    # HistoryBuffer: kept a million values of every scalar, 100 MB after 40,000 steps; its readers use 20.
    history_buffer.HistoryBuffer.__init__.__defaults__ = (KEPT_VALUES,)
    # ReidEvaluator._compile_dependencies: ran make inside site-packages.
    reid_evaluation.ReidEvaluator._compile_dependencies = lambda self: None
    # regnet.build_regnet_backbone, effnet.build_effnet_backbone: worked inside the source tree only.
    home = Path(build.__file__).parents[2]
    regnet.regnet_cfg = _PackageConfig(regnet.regnet_cfg, home)  # type: ignore[attr-defined]
    effnet.effnet_cfg = _PackageConfig(effnet.effnet_cfg, home)  # type: ignore[attr-defined]
