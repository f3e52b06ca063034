"""The encoder of a run for other programs, compared with the run's own features before it is handed over."""

from __future__ import annotations

import copy
import importlib
import json
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data.datasets import configure as configure_datasets
from ..data.items import DomainItem, domain_of
from ..data.loaders import build_inference_loader
from ..data.train_data import read_dataset
from ..evaluation.evaluator import Results, evaluation_set, score_protocol
from ..evaluation.extraction import extract_features
from ..evaluation.scoring import ScoreOptions
from ..functional.types import Domain
from ..modeling.export import single_domain
from ..runtime.files import temporary_folder, write_atomically
from .matcher import Matcher

logger = logging.getLogger(__name__)

Format = Literal["onnx", "torch"]
ENDINGS: dict[Format, str] = {"onnx": ".onnx", "torch": ".pt2"}
#: An export whose features differ by more is refused.
TOLERANCE = 1e-4
#: Training images per domain that are compared where a run has nothing to score.
UNSCORED = 64
Run = Callable[[Tensor], Tensor]


class UnitFeatures(nn.Module):
    """Images ``(B, 3, H, W)`` float32 in 0..255 -> unit features ``(B, D)``; ``flip`` = with the mirror image."""

    def __init__(self, encoder: nn.Module, *, flip: bool) -> None:
        super().__init__()
        self.encoder, self.flip = encoder, flip

    def forward(self, images: Tensor) -> Tensor:
        features = F.normalize(self.encoder(images), dim=1)
        if self.flip:
            features = F.normalize(features + F.normalize(self.encoder(images.flip(-1)), dim=1), dim=1)
        return features


@dataclass(frozen=True)
class Exported:
    """What was written, and how far it is from the run.

    Attributes:
        files: by domain, "day" and "night"; both are the same file where the model has one stream.
        images: how many were compared.
        difference: largest difference of a feature.
        results, expected: percentages of the export and of the run, ``{data set: {direction: {metric: value}}}``.
    """

    files: dict[str, str]
    images: int
    difference: float
    results: dict[str, Results] = field(default_factory=dict)
    expected: dict[str, Results] = field(default_factory=dict)

    @property
    def metric_difference(self) -> float:
        """Largest difference of a percentage; 0 where nothing was scored."""
        pairs = (
            (self.results[name][direction][metric], value)
            for name, directions in self.expected.items()
            for direction, metrics in directions.items()
            for metric, value in metrics.items()
        )
        return max((abs(a - b) for a, b in pairs), default=0.0)


def export(
    matcher: Matcher, folder: str | Path, *, to: Format, sets: Sequence[str] | None = None
) -> Exported:
    """Write the encoder into a new folder with ``export.json``, which says what goes in and what comes out.

    Args:
        sets: registered data sets to compare on; default: ``DATASETS.TESTS`` of the run.

    Raises:
        ValueError: the folder is in use, the images have no one size, a library is missing, or the features differ by
            more than `TOLERANCE`; then there is no folder.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} exists; name a new or an empty folder.")
    if matcher.predictor.size is None:
        raise ValueError(
            "INPUT.SIZE_TEST is one number, so images have no one size, which an export needs; give two."
        )
    if to == "onnx":
        _need_onnx()
    matcher.model.cpu()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with temporary_folder(folder) as part:
        files: dict[str, str] = {}
        runs: dict[str, Run] = {}
        for names, encoder in _encoders(matcher):
            path = part / f"{names[0] if len(names) == 1 else 'encoder'}{ENDINGS[to]}"
            run = _write(encoder, path, matcher.predictor.size, to)
            files |= dict.fromkeys(names, path.name)
            runs |= dict.fromkeys(names, run)
        found = _compared(matcher, runs, files, sets)
        if not found.difference <= TOLERANCE:
            raise ValueError(
                f"The exported features differ by up to {found.difference:.1e} from those of the run (limit "
                f"{TOLERANCE:g}), so nothing was written; try the other format of --to."
            )
        text = json.dumps(_about(matcher, found), indent=1)
        write_atomically(part / "export.json", lambda file: file.write(text.encode()))
        os.replace(part, folder)
    return found


def _encoders(matcher: Matcher) -> list[tuple[list[str], nn.Module]]:
    """The domains of each encoder and the encoder on the CPU."""
    model: Any = matcher.model
    flip = bool(matcher.cfg.TEST.FLIP.ENABLED)
    words = [domain.word for domain in Domain]
    if not hasattr(model, "parts"):  # one of fast-reid's own architectures
        alone = copy.deepcopy(model).requires_grad_(False).eval()
        return [(words, UnitFeatures(alone, flip=flip))]
    if not model.backbone.two_streams:
        return [(words, UnitFeatures(single_domain(model, Domain.DAY), flip=flip))]
    return [([word], UnitFeatures(single_domain(model, word), flip=flip)) for word in words]


def _write(encoder: nn.Module, path: Path, size: tuple[int, int], to: Format) -> Run:
    """Write one encoder and open the file again: what is compared is what a user gets."""
    images = 255 * torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    shapes = {"images": {0: torch.export.Dim("batch", min=1)}}
    encoder.eval()
    if to == "torch":
        torch.export.save(torch.export.export(encoder, (images,), dynamic_shapes=shapes), path)
        module = torch.export.load(path).module()
        return lambda batch: module(batch)
    program = torch.onnx.export(
        encoder,
        (images,),
        dynamic_shapes=shapes,
        input_names=["images"],
        output_names=["features"],
        verbose=False,
    )
    assert program is not None
    program.save(str(path))
    runtime: Any = importlib.import_module("onnxruntime")
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda batch: torch.from_numpy(session.run(["features"], {"images": batch.numpy()})[0])


def _need_onnx() -> None:
    for name in ("onnx", "onnxscript", "onnxruntime"):
        try:
            importlib.import_module(name)
        except ImportError:
            raise ValueError(f"ONNX needs {name}; run pip install 'dnreid_plugins[export]'.") from None


class _ByDomain(nn.Module):
    """The exported encoders as a model of batches."""

    def __init__(self, runs: dict[str, Run]) -> None:
        super().__init__()
        self.runs = [runs[domain.word] for domain in Domain]

    def forward(self, batch: dict[str, Any]) -> Tensor:
        images = batch["images"].float()
        domains = batch.get("domains", torch.zeros(len(images), dtype=torch.int64))
        rows: Tensor | None = None
        for domain in Domain:
            mine = domains == int(domain)
            if bool(mine.any()):
                found = self.runs[domain](images[mine].contiguous())
                rows = found.new_empty(len(images), found.shape[1]) if rows is None else rows
                rows[mine] = found
        assert rows is not None
        return rows


def _compared(
    matcher: Matcher, runs: dict[str, Run], files: dict[str, str], sets: Sequence[str] | None
) -> Exported:
    cfg, flip = matcher.cfg, bool(matcher.cfg.TEST.FLIP.ENABLED)
    configure_datasets(cfg)
    results, expected, images, worst = {}, {}, 0, 0.0
    for name in sets if sets is not None else cfg.DATASETS.TESTS:
        items, protocol = _items(name)
        text = f"compare on {name}"
        own = extract_features(matcher.model, build_inference_loader(cfg, items), flip=flip, progress=text)
        other = extract_features(
            _ByDomain(runs), build_inference_loader(cfg, items), normalize=False, progress=text
        )
        images, worst = images + len(items), max(worst, float((own - other).abs().max()))
        if protocol is not None:
            options = ScoreOptions(metric=cfg.TEST.METRIC)
            expected[name] = score_protocol(own, items, protocol, options=options)
            results[name] = score_protocol(other, items, protocol, options=options)
    return Exported(files, images, worst, results, expected)


def _items(name: str) -> tuple[list[tuple[Any, ...]], Any]:
    """The test images of a set and its protocol, or some training images and None if it cannot be scored."""
    dataset = read_dataset(name)
    if getattr(dataset, "protocol", True) is not None:
        return evaluation_set(dataset)
    train: list[DomainItem] = list(dataset.train)
    some = [item for d in Domain for item in [one for one in train if domain_of(one) == d][:UNSCORED]]
    return [DomainItem(item[0], 0, 0, domain_of(item)) for item in some], None


def _about(matcher: Matcher, found: Exported) -> dict[str, Any]:
    assert matcher.predictor.size is not None
    return {
        "files": found.files,
        "input": {
            "name": "images",
            "shape": ["batch", 3, *matcher.predictor.size],
            "type": "float32",
            "pixels": "RGB in 0..255, resized to this height and width (bicubic); statistics are applied inside",
        },
        "output": {
            "name": "features",
            "shape": ["batch", matcher.dim],
            "type": "float32",
            "rows": "of length 1",
        },
        "fingerprint": matcher.fingerprint,
        "compared": {
            "images": found.images,
            "largest_feature_difference": found.difference,
            "largest_metric_difference": found.metric_difference,
            "results": found.results,
        },
    }
