"""A method is a list of parts: objects with state that live through all epochs and take part in each of them.

The trainer knows this life cycle and no method's name::

    before an epoch   labels -> matchers -> Epoch; then every part's begin_epoch(epoch, parts)
    in a step         loss heads: forward(batch, parts); the optimizer; every part's after_step(batch, parts);
                      an iteration has one step for every stream of batches (``DATALOADER.STREAMS``)
    a checkpoint      state_dict of the model including its parts, whatever size their state has

With several processes the parts see the batch of all of them, so each process computes the same loss, the same
gradient of the parts' own parameters and the same new state: the state of parts is not exchanged.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from fastreid.utils.registry import Registry
from torch import Tensor, nn

from ..functional.types import Assignment, Epoch, StreamName
from ..runtime.sections import configured, construct
from .batch import BatchFeatures

if TYPE_CHECKING:
    from .loss_heads.base import LossHead
    from .memories.cluster_memory import ClusterMemory


logger = logging.getLogger(__name__)


class PartRegistry(Registry):
    """Parts by their name in the config; registering one makes its constructor a config section."""

    def __init__(self, name: str, section: str) -> None:
        super().__init__(name)
        self.section = section

    def register(self, obj: Any = None) -> Any:
        """Class decorator, as fast-reid's; the section is the registry's and the class's name in capitals."""
        if obj is None:
            return self.register
        self._do_register(obj.__name__, configured(f"{self.section}.{obj.__name__.upper()}")(obj))
        return obj

    def names(self) -> list[str]:
        return sorted(self._obj_map)


class Part(nn.Module):
    """Base of everything that a method consists of besides the encoder: memory, matcher, loss head, teacher.

    Its state is its parameters and buffers and nothing else; their sizes may follow the clusters. What
    `begin_epoch` derives from the epoch alone need not be state, since it is called again on a resume.
    """

    #: Stages (`engine.stages`) that must be finished before the first epoch.
    stages: ClassVar[tuple[str, ...]] = ()
    #: Names of clusters beside ``"day"`` and ``"night"`` that it reads; a label source or a refiner must make them.
    reads: ClassVar[tuple[str, ...]] = ()
    #: Names of outputs of the encoder that it reads from `BatchFeatures.extra`; its head or a block must give them.
    needs: ClassVar[tuple[str, ...]] = ()
    #: It reads features of the epoch's start: centroids, rows of the memory made from them, or features of images.
    reads_features: ClassVar[bool] = True
    #: `begin_epoch` sets the parameters anew, so the optimizer forgets what it knew of them.
    fresh_each_epoch: ClassVar[bool] = False

    @classmethod
    def from_config(cls, cfg: Any) -> Part:
        """Build from the section of the class; may refuse a combination with other sections.

        Raises:
            ValueError: a value that the signature does not allow.
        """
        return construct(cls, cfg)

    def begin_epoch(self, epoch: Epoch, parts: Parts) -> dict[str, float]:
        """Rebuild what depends on the clusters; returns figures for the health line. Deterministic."""
        return {}

    def after_step(self, batch: BatchFeatures, parts: Parts) -> None:
        """Called after an optimizer step; ``batch`` is detached and holds the images of all processes."""

    def for_encoder(self) -> dict[str, Tensor]:
        """Tensors by name that blocks inside the encoder read, with their gradient, such as a classifier's rows."""
        return {}

    def forget(self) -> None:
        """Drop the state of another run's epochs, for a run that starts from that run's weights."""
        for name, buffer in self.named_buffers(recurse=False):
            setattr(self, name, buffer.new_empty((0,) * buffer.ndim))

    def replay_state(self, indices: Tensor) -> dict[str, Any]:
        """What a replay of the batch of images ``indices`` ``(B,)`` needs beyond `state_dict`; plain tensors."""
        return {}

    def load_replay_state(self, states: list[dict[str, Any]], cfg: Any) -> None:
        """Counterpart of `replay_state`, from the files of all processes."""

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Adopt the sizes of a checkpoint, which are those of its epoch."""
        own = [*self.named_parameters(recurse=False), *self.named_buffers(recurse=False)]
        for name, tensor in own:
            saved = state_dict.get(prefix + name)
            if saved is not None and saved.shape != tensor.shape:
                tensor.data = tensor.data.new_empty(saved.shape)
        super()._load_from_state_dict(state_dict, prefix, *args)


class Parts(nn.Module):
    """The parts of a model, by role.

    Args:
        memory: cluster prototypes.
        losses: loss heads by name, in the order of ``MODEL.LOSSES.NAME``.
        teacher: an average of the encoder, or None.
        streams: the batches of an iteration, in their order.

    Attributes:
        epoch: the running epoch, None before the first one.
        streams_now: the streams of the running epoch: those that have batches and a loss head with a weight above 0.
    """

    def __init__(
        self,
        *,
        memory: ClusterMemory,
        losses: Mapping[str, LossHead],
        teacher: Part | None = None,
        streams: tuple[StreamName, ...] = ("domains",),
    ) -> None:
        super().__init__()
        self.streams = self.streams_now = streams
        self.memory = memory
        self.losses = nn.ModuleDict(dict(losses))
        self.teacher = teacher
        self.epoch: Epoch | None = None

    def named(self) -> Iterator[tuple[str, Any]]:
        """All parts, in the order in which they are called."""
        yield "memory", self.memory
        yield from self.losses.items()
        if self.teacher is not None:
            yield "teacher", self.teacher

    def heads(self) -> Iterator[tuple[str, Any]]:
        """The loss heads by name."""
        yield from self.losses.items()

    def active(self) -> Iterator[tuple[str, Any]]:
        """All parts that take part in the running epoch: loss heads with a weight above 0 or `always_active`."""
        training = dict(self.active_heads())
        for name, part in self.named():
            if name not in self.losses or name in training or part.always_active:
                yield name, part

    def active_heads(self) -> Iterator[tuple[str, Any]]:
        """The loss heads whose weight in the running epoch is above 0."""
        number = self.epoch.number if self.epoch is not None else 1
        return ((name, head) for name, head in self.heads() if head.weight_at(number) > 0)

    def stages(self) -> list[str]:
        """The stages that the parts need, without repetition."""
        return list(dict.fromkeys(stage for _, part in self.named() for stage in part.stages))

    @torch.no_grad()
    def begin_epoch(self, epoch: Epoch) -> dict[str, dict[str, float]]:
        """Match, then call the `begin_epoch` of every active part; returns the figures of each. Deterministic."""
        figures: dict[str, dict[str, float]] = {}
        for name, head in self.heads():
            if head.matcher is not None and head.matches_in(epoch.number):
                assignment, figures[name] = head.matcher.match(epoch, first=head.first_epoch)
                if epoch.known is not None:
                    assignment = assignment.with_known(epoch.known)
                epoch = replace(epoch, matchings={**epoch.matchings, name: assignment})
        self.epoch = epoch
        self.streams_now = self._streams_of(epoch)
        for name, part in self.active():
            figures[name] = {**figures.get(name, {}), **part.begin_epoch(epoch, self)}
        return {name: own for name, own in figures.items() if own or name in self.losses}

    def after_step(self, batch: BatchFeatures) -> None:
        """Call the `after_step` of every active part, of loss heads only those of the batch's stream."""
        for name, part in self.active():
            if name not in self.losses or part.stream == batch.stream:
                part.after_step(batch, self)

    def _streams_of(self, epoch: Epoch) -> tuple[StreamName, ...]:
        wanted = {head.stream for _, head in self.active_heads()}
        found = tuple(name for name in self.streams if name in wanted and epoch.has_batches(name))
        for name in self.streams:
            if name in wanted and name not in found:
                text = "Epoch %d has no cluster for the stream %r: it is left out."
                logger.warning(text, epoch.number, name)
        return found or self.streams[:1]

    def forget(self) -> None:
        """See `Part.forget`."""
        for module in self.modules():
            if isinstance(module, Part):
                module.forget()

    def for_encoder(self) -> dict[str, Tensor]:
        """What all parts have for the encoder, see `Part.for_encoder`."""
        return {key: tensor for _, part in self.named() for key, tensor in part.for_encoder().items()}

    def joint_targets(self, targets: Tensor, domains: Tensor, indices: Tensor) -> Tensor:
        """``(B,)`` int64 labels that mean the same in both domains; -1 = none.

        Those of the clusters called "joint" where the label source makes them; else a day and a night cluster are
        never the same, so night clusters are numbered after the day clusters.
        """
        if self.epoch is not None and "joint" in self.epoch.clusters:
            return self.epoch.targets("joint", indices)
        shift = self.memory.num_clusters("day") * (domains == 1)
        return torch.where(targets >= 0, targets + shift, -1)

    def features_are_read(self) -> bool:
        """Whether a loss head or matcher reads features of the epoch's start; the memory only keeps them for these."""
        readers = [one for _, head in self.heads() for one in (head, head.matcher) if one is not None]
        return any(one.reads_features for one in readers)

    def matching(self, name: str) -> Assignment | None:
        """The matching that head ``name`` made for the running epoch."""
        return None if self.epoch is None else self.epoch.matchings.get(name)


def names_of_parts(model: nn.Module) -> set[str]:
    """Names in ``model.state_dict()`` and ``named_parameters()`` of everything that belongs to a part."""
    return {
        f"{name}.{key}"
        for name, module in model.named_modules()
        if isinstance(module, Part)
        for key in (*module.state_dict(), *dict(module.named_buffers()))
    }
