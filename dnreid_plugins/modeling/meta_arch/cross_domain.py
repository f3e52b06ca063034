"""The encoder and loss heads of unsupervised cross-domain re-identification."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from fastreid.config import configurable
from fastreid.modeling.heads import build_heads
from fastreid.modeling.meta_arch import META_ARCH_REGISTRY
from torch import Tensor, nn

from ...functional.types import Domain
from ...runtime.sections import construct
from ..backbone import build_backbone
from ..batch import BatchFeatures
from ..blocks import Block, build_blocks
from ..clip.image_tower import unit_parts
from ..dual_stream import DualStream
from ..encoder_pass import Context
from ..gather import check_composition, gather_batch, in_every_process
from ..loss_heads import build_loss_heads
from ..memories import ClusterMemory
from ..parts import Parts
from ..teachers import Teacher, TeacherOptions

SHARED_BN_MODES = ("joint", "separate", "frozen")


@META_ARCH_REGISTRY.register()
class CrossDomainBaseline(nn.Module):
    """Any fast-reid backbone behind `DualStream`, a neck, and the parts of a method.

    In eval mode ``model(batch)`` returns features ``(B, D)`` as fast-reid's own architectures do; a model with two
    streams refuses a batch without ``domains`` unless ``assume_domain`` is set. In train mode it
    returns ``{"loss_<head>": scalar}``, each already weighted, and keeps the batch's detached features in
    `last_batch` for the memory update and what the losses are made of (features after and before the neck, extras)
    in `last_outputs` for the loss audit. With several processes all of these, losses included, are those of the
    global batch, and equal in every process.

    Args:
        backbone, heads: as fast-reid builds them.
        parts: memory and loss heads, see `Parts`.
        teacher: whether there is one; it becomes one of the parts.
        pixel_mean, pixel_std: 3 values each, in 0..255.
        blocks: put into the backbone, see `build_blocks`.
        stream_modules: ``MODEL.DUAL_STREAM.MODULES``.
        shared_bn: ``MODEL.DUAL_STREAM.SHARED_BN``.
        assume_domain: ``MODEL.DUAL_STREAM.ASSUME_DOMAIN``.
        channels_last: ``MODEL.CHANNELS_LAST``.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    # The trainer runs a label phase before each epoch for architectures with this attribute.
    needs_clusters = True

    @configurable
    def __init__(
        self,
        *,
        backbone: nn.Module,
        heads: nn.Module,
        parts: Parts,
        teacher: TeacherOptions | None = None,
        pixel_mean: list[float],
        pixel_std: list[float],
        blocks: Sequence[tuple[str, Block]] = (),
        stream_modules: tuple[str, ...] = (),
        shared_bn: str = "joint",
        assume_domain: str = "",
        channels_last: bool = False,
    ) -> None:
        super().__init__()
        if shared_bn not in SHARED_BN_MODES:
            raise ValueError(f"MODEL.DUAL_STREAM.SHARED_BN is {shared_bn!r}; it is one of {SHARED_BN_MODES}.")
        self.backbone = DualStream(
            backbone, stream_modules, freeze_shared_statistics=shared_bn == "frozen", blocks=blocks
        )
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.backbone.to(memory_format=self.memory_format)
        self.heads = heads
        self.shared_bn = shared_bn
        self.assume_domain = Domain.named(assume_domain) if assume_domain else None
        self.last_batch: BatchFeatures | None = None
        self.last_outputs: tuple[Tensor, ...] = ()
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(1, -1, 1, 1), persistent=False)
        self.parts = parts
        if teacher is not None and teacher.enabled:
            student = {"backbone": self.backbone, "heads": self.heads}
            parts.teacher = Teacher(student, decay=teacher.decay, evaluate=teacher.evaluate)

    @classmethod
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        backbone = build_backbone(cfg)
        return {
            "backbone": backbone,
            "blocks": build_blocks(cfg, backbone),
            "heads": build_heads(cfg),
            "parts": build_parts(cfg),
            "teacher": construct(TeacherOptions, cfg),
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
            "stream_modules": tuple(cfg.MODEL.DUAL_STREAM.MODULES),
            "shared_bn": cfg.MODEL.DUAL_STREAM.SHARED_BN,
            "assume_domain": cfg.MODEL.DUAL_STREAM.ASSUME_DOMAIN,
            "channels_last": cfg.MODEL.CHANNELS_LAST,
        }

    @property
    def device(self) -> torch.device:
        return self.pixel_mean.device

    def forward(self, batch: dict[str, Any] | Tensor) -> Tensor | dict[str, Tensor]:
        if not isinstance(batch, dict):
            batch = {"images": batch}
        images, domains = self.preprocess_image(batch), self._domains(batch)
        if not self.training:
            backbone, heads = self.answering()
            return heads(backbone(images, domains, self.context(batch)))
        if isinstance(domains, Domain):
            domains = torch.full((len(images),), int(domains), device=self.device)
        if self.backbone.two_streams or self.shared_bn == "separate":
            check_composition(domains)
        targets, indices = batch["targets"].to(self.device), batch["indices"].to(self.device)
        labels = self.parts.joint_targets(targets, domains, indices) if self.backbone.has_blocks else None
        outputs = self._encode(images, domains, self.context(batch, labels))
        own = BatchFeatures(
            features=outputs.pop("features"),
            pooled=outputs.pop("pooled"),
            targets=targets,
            domains=domains,
            indices=indices,
            **{
                name: torch.as_tensor(batch[key]).to(self.device)
                for name, key in (("cams", "camids"), ("views", "views"))
                if key in batch
            },
            stream=batch.get("stream", "domains"),
            extra={
                **{name: outputs[name] for name in self._extras()},
                **self._taught(batch, images, domains),
            },
        )
        features = gather_batch(own)
        known = (features.features, features.pooled, *features.extra.values())
        self.last_outputs = tuple(output for output in known if output.requires_grad)
        self.last_batch = features.detach()
        return self.losses(features)

    def encode(self, batch: dict[str, Any], *, feature: str = "after") -> Tensor:
        """Features of the trained encoder, in eval mode, also if a teacher is evaluated in its place.

        ``"after"`` the neck: ``(B, D)``. ``"before"`` it: ``(B, P)`` unit rows; a head with ``split`` has each part at
        unit length first.
        """
        images, domains = self.preprocess_image(batch), self._domains(batch)
        features = self.backbone(images, domains, self.context(batch))
        if feature == "after":
            return self.heads(features)
        heads: Any = self.heads
        pooled = heads.pool_layer(features)
        return unit_parts(pooled[..., 0, 0], getattr(heads, "split", (pooled.shape[1],)))

    def losses(self, batch: BatchFeatures) -> dict[str, Tensor]:
        """The weighted losses of the heads of the batch's stream whose weight in the running epoch is above 0."""
        number = self.parts.epoch.number if self.parts.epoch is not None else 1
        return {
            f"loss_{name.lower()}": head.weight_at(number) * head(batch, self.parts)
            for name, head in self.parts.active_heads()
            if head.has_loss and head.stream == batch.stream
        }

    def context(self, batch: dict[str, Any], labels: Tensor | None = None) -> Context | None:
        """What blocks inside the backbone may ask for; None if there is no block."""
        if not self.backbone.has_blocks:
            return None
        images = batch["images"].to(device=self.device, dtype=torch.float32).as_subclass(Tensor)
        known = {name: in_every_process(tensor) for name, tensor in self.parts.for_encoder().items()}
        return Context(images, labels, known)

    def preprocess_image(self, batch: dict[str, Any]) -> Tensor:
        """``(B, 3, H, W)`` images in 0..255 -> normalised, on the model's device; the input is not changed."""
        images = batch["images"].to(device=self.device, dtype=torch.float32)
        images = (images - self.pixel_mean) / self.pixel_std
        return images.contiguous(memory_format=self.memory_format)

    def _domains(self, batch: dict[str, Any]) -> Tensor | Domain:
        """``(B,)`` int64 from the batch or its images (`DomainImages`), else the assumed domain of all of them."""
        domains = batch.get("domains", getattr(batch["images"], "domains", None))
        if domains is not None:
            return torch.as_tensor(domains).to(self.device)
        if self.assume_domain is None and self.backbone.two_streams:
            raise ValueError(
                f"{len(batch['images'])} images came without `domains` to a model with two streams; give them, or "
                "say with MODEL.DUAL_STREAM.ASSUME_DOMAIN whether all such images are 'day' or 'night'."
            )
        return self.assume_domain or Domain.DAY

    def answering(self) -> tuple[nn.Module, nn.Module]:
        """Backbone and heads that are used in eval mode."""
        teacher: Any = self.parts.teacher
        if teacher is not None and teacher.evaluate:
            return teacher.encoder["backbone"], teacher.encoder["heads"]
        return self.backbone, self.heads

    @torch.no_grad()
    def _taught(self, batch: dict[str, Any], images: Tensor, domains: Tensor) -> dict[str, Tensor]:
        """``{"teacher": (B, D)}`` features of the teacher in eval mode, if an active head of the stream asks."""
        stream = batch.get("stream", "domains")
        if not any(head.asks_teacher and head.stream == stream for _, head in self.parts.active_heads()):
            return {}
        encoder: Any = self.parts.teacher
        backbone, heads = encoder.encoder["backbone"], encoder.encoder["heads"]
        return {"teacher": heads(backbone(images, domains, self.context(batch)))}

    def _extras(self) -> tuple[str, ...]:
        """Names of the further outputs of head and blocks."""
        return (*getattr(self.heads, "extras", ()), *self.backbone.extras)

    def _encode(self, images: Tensor, domains: Tensor, context: Context | None) -> Any:
        if self.shared_bn != "separate":
            return self._one_pass(images, domains, context)
        # One pass per domain: batch norm, also in the neck, normalises each domain by its own statistics.
        parts = [(domains == d).nonzero().flatten() for d in (0, 1)]
        outputs = [
            self._one_pass(images[part], domains[part], None if context is None else context.where(part))
            for part in parts
            if len(part) > 0
        ]
        back = torch.argsort(torch.cat(parts))
        return {key: torch.cat([output[key] for output in outputs])[back] for key in outputs[0]}

    def _one_pass(self, images: Tensor, domains: Tensor, context: Context | None) -> dict[str, Tensor]:
        outputs = self.heads(self.backbone(images, domains, context))
        return {**outputs, **self.backbone.take_outputs()}


class StudentFeatures(nn.Module):
    """A `CrossDomainBaseline` that returns features of the trained encoder, see `CrossDomainBaseline.encode`."""

    def __init__(self, model: nn.Module, *, feature: str = "after") -> None:
        super().__init__()
        self.model = model
        self.feature = feature

    def forward(self, batch: dict[str, Any]) -> Tensor:
        model: Any = self.model
        return model.encode(batch, feature=self.feature)


def build_parts(cfg: Any) -> Parts:
    """Memory and loss heads as the config names them.

    Raises:
        ValueError: an invalid name or value.
    """
    return Parts(
        memory=construct(ClusterMemory, cfg),
        losses=build_loss_heads(cfg),
        streams=tuple(cfg.DATALOADER.STREAMS),
    )
