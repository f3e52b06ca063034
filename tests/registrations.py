"""Registries and config sections as they were, after a test that adds to them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fastreid.config import CfgNode
from fastreid.config.defaults import _C

import dnreid_plugins  # noqa: F401  (patches before anything imports fast-reid's data room)
from dnreid_plugins.engine.stages import STAGE_REGISTRY
from dnreid_plugins.labels import LABEL_SOURCE_REGISTRY, REFINER_REGISTRY
from dnreid_plugins.modeling.loss_heads import LOSS_HEAD_REGISTRY
from dnreid_plugins.modeling.matchers import MATCHER_REGISTRY
from dnreid_plugins.runtime.sections import SECTIONS

# isort: split
from fastreid.data.datasets import DATASET_REGISTRY

REGISTRIES = (
    DATASET_REGISTRY,
    LABEL_SOURCE_REGISTRY,
    LOSS_HEAD_REGISTRY,
    MATCHER_REGISTRY,
    REFINER_REGISTRY,
    STAGE_REGISTRY,
)


@contextmanager
def registrations_undone() -> Iterator[None]:
    """What is registered or configured inside is gone afterwards."""
    known = [dict(registry._obj_map) for registry in REGISTRIES]
    sections, defaults = dict(SECTIONS), _C.clone()
    try:
        yield
    finally:
        for registry, before in zip(REGISTRIES, known, strict=True):
            registry._obj_map = before
        SECTIONS.clear()
        SECTIONS.update(sections)
        _drop_added(_C, defaults)


def _drop_added(node: CfgNode, before: CfgNode) -> None:
    for key in list(node):
        if key not in before:
            dict.__delitem__(node, key)
        elif isinstance(node[key], CfgNode):
            _drop_added(node[key], before[key])
