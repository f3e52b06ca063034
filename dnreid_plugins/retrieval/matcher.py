"""A trained model as its user sees it: images in, unit features out, matches from a gallery."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fastreid.config import get_cfg
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ..data.domain_images import as_domains
from ..data.errors import DataError
from ..data.images import read_image
from ..data.items import DomainItem
from ..data.loaders import SentenceLoader, build_inference_loader
from ..engine.evaluation_file import feature_fingerprint
from ..engine.predictor import Predictor
from ..evaluation.extraction import extract_features
from ..functional.types import Domain
from ..runtime.config_files import ConfigError, merge_with_suggestions
from ..runtime.devices import use_device
from ..runtime.run_folder import CONFIG
from ..runtime.shipped import find_config
from .index import Index
from .pictures import Picture, PictureLoader
from .results import Result, results_of

logger = logging.getLogger(__name__)

#: The checkpoint that is the result of a run.
FINAL = "model_final.pth"
#: Images per block of `Matcher.blocks`: what is in memory at once, as features.
BLOCK = 4096
Domains = str | int | Sequence[str | int] | Tensor


class Matcher:
    """The encoder of a run with its test transform, pixel statistics and ``TEST.FLIP``: what the evaluation uses.

    Attributes:
        fingerprint: names what makes the features: weights and settings. Features with different fingerprints
            cannot be compared.
        dim: ``D``.
        run: folder of the run; None for a config by name.
        weights: the checkpoint.
    """

    def __init__(self, cfg: Any, *, run: Path | None = None) -> None:
        self.predictor = Predictor(cfg)
        self.cfg, self.model, self.run = self.predictor.cfg, self.predictor.model, run
        self.weights = Path(self.cfg.MODEL.WEIGHTS)
        self.fingerprint = feature_fingerprint(self.cfg, self.model)
        self.dim = int(self.embed([Image.new("RGB", (64, 64))], Domain.DAY).shape[1])

    @classmethod
    def load(
        cls, run: str | Path, *, weights: str | Path | None = None, device: str | None = None
    ) -> Matcher:
        """A run by its folder, or a config by name or path with the weights to it.

        Args:
            run: folder with ``config.yaml`` and checkpoints, or a config.
            weights: a path, or the name of a file in the folder; default: its ``model_final.pth``.
            device: such as "cuda:1"; default: that of the config, or the CPU where there is no such device.

        Raises:
            ValueError: no config, no weights, weights of another model, or a device that is not there.
        """
        folder = Path(run) if Path(run).is_dir() else None
        if folder is not None and not (folder / CONFIG).is_file():
            raise ConfigError(
                f"{folder} has no {CONFIG}, so it is no run; name the OUTPUT_DIR of a training."
            )
        cfg = get_cfg()
        merge_with_suggestions(cfg, find_config(folder / CONFIG if folder else run))
        cfg.MODEL.WEIGHTS = str(_weights(folder, run, weights))
        cfg.MODEL.DEVICE = _device(device, cfg.MODEL.DEVICE)
        if folder is not None:
            cfg.OUTPUT_DIR = str(folder)
        use_device(cfg.MODEL.DEVICE)
        return cls(cfg, run=folder)

    @classmethod
    def of(cls, index: Index, *, run: str | Path | None = None, device: str | None = None) -> Matcher:
        """The model that made a gallery.

        Args:
            run: where its run is now; default: where it was.

        Raises:
            ValueError: it is not there any more, or is another model.
        """
        if run is None and (index.run is None or not index.run.is_dir()):
            was = f"its run was {index.run}" if index.run else "it was made with a config by its name"
            raise ConfigError(
                f"The gallery {index.folder} needs its model, and {was}; say with --run where it is."
            )
        place = Path(run or index.run or "")
        inside = place / Path(index.weights).name
        matcher = cls.load(
            place, weights=inside if inside.is_file() else index.weights or None, device=device
        )
        index.refuse_another(matcher)
        return matcher

    def embed(
        self,
        images: Sequence[Picture],
        domain: Domains,
        *,
        batch: int = 64,
        progress: bool = False,
    ) -> Tensor:
        """Features ``(N, D)`` float32 on the CPU, rows of length 1; the same as in the evaluation.

        Args:
            images: paths or pictures; may be empty.
            domain: ``"day"`` (0) or ``"night"`` (1), of all images or one of each.
            batch: images in the model at once.
            progress: whether a long computation says how far it is.

        Raises:
            DataError: an image cannot be read.
            ValueError: an unknown domain, or another number of them.
        """
        domains = as_domains(domain, len(images)).tolist()
        if not images:
            return torch.empty(0, self.dim)
        text = "embed images" if progress else None
        flip = self.cfg.TEST.FLIP.ENABLED
        return extract_features(self.model, self._loader(images, domains, batch), flip=flip, progress=text)

    def _loader(self, images: Sequence[Picture], domains: list[int], batch: int) -> SentenceLoader:
        cfg = self.cfg.clone()
        cfg.TEST.IMS_PER_BATCH = batch
        if len(images) <= 2 * batch:
            cfg.DATALOADER.NUM_WORKERS = 0  # starting processes would take longer than reading
        if any(isinstance(image, Image.Image) for image in images):
            return PictureLoader(cfg, images, domains)
        return build_inference_loader(cfg, [DomainItem(str(i), 0, d, d) for i, d in zip(images, domains)])

    def blocks(
        self, paths: Sequence[str], domains: Sequence[int], *, skip_bad: bool = False, size: int = BLOCK
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Features of any number of images, ``size`` at a time: positions ``(b,)`` in ``paths`` and rows ``(b, D)``.

        Raises:
            DataError: an image cannot be read; with ``skip_bad`` it is left out instead.
        """
        for start in range(0, len(paths), size):
            chosen = list(range(start, min(start + size, len(paths))))
            try:
                rows = self._rows(paths, domains, chosen)
            except DataError:
                if not skip_bad:
                    raise
                chosen = [place for place in chosen if _is_readable(paths[place])]
                rows = self._rows(paths, domains, chosen)
            yield np.array(chosen, dtype=np.int64), rows.numpy()

    def _rows(self, paths: Sequence[str], domains: Sequence[int], chosen: list[int]) -> Tensor:
        return self.embed([paths[p] for p in chosen], [domains[p] for p in chosen], progress=True)

    def search(
        self,
        images: Sequence[Picture],
        domain: Domains,
        index: Index,
        k: int = 10,
        *,
        among: str | int | None = None,
    ) -> list[Result]:
        """The ``k`` most similar images of a gallery for each image, best first.

        Args:
            domain: of the images.
            among: only matches of this domain.

        Raises:
            ValueError: the gallery is of another model, or ``k`` is below 1.
        """
        index.refuse_another(self)
        features = self.embed(images, domain, progress=True).numpy()
        found = index.search(features, k, domain=among)
        domains = as_domains(domain, len(images)).tolist()
        names = ["" if isinstance(image, Image.Image) else str(image) for image in images]
        return results_of(index, names, domains, *found)


def _weights(folder: Path | None, run: str | Path, weights: str | Path | None) -> Path:
    if weights is None and folder is None:
        raise ConfigError(f"{run} is a config, not the folder of a run; say with weights which model to use.")
    inside = folder / (weights or FINAL) if folder is not None else None
    path = inside if inside is not None and inside.is_file() else Path(weights or inside or "")
    if not path.is_file():
        there = sorted(one.name for one in folder.glob("*.pth")) if folder is not None else []
        hint = (
            f"name another, e.g. {there[0]}" if there else "wait for the end of the training, or name a file"
        )
        raise ConfigError(f"There are no weights {path}; {hint}.")
    return path


def _device(wanted: str | None, configured: str) -> str:
    if torch.device(wanted or configured).type != "cuda" or torch.cuda.is_available():
        return wanted or configured
    if wanted is not None:
        raise ConfigError(f"The device is {wanted!r}, but PyTorch finds no GPU here; take 'cpu'.")
    logger.info("The run was trained on %r; without a GPU its features are computed on the CPU.", configured)
    return "cpu"


def _is_readable(path: str) -> bool:
    try:
        read_image(path)
    except DataError as error:
        logger.warning("Left out: %s", error)
        return False
    return True
