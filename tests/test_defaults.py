"""A default that stands in a pure function and in the part that calls it must not drift apart."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest

from dnreid_plugins.functional.losses import adaptive_alignment, contrast, cpml, mmd
from dnreid_plugins.functional.matching import dictionary, graphs, pair_count, transport
from dnreid_plugins.functional.neighbours import clustering, radius
from dnreid_plugins.labels import DomainClusters
from dnreid_plugins.modeling.loss_heads import CMA, CPML, DGM, MAA, MMD, PGM, ClusterNCE, MarginMMD
from dnreid_plugins.modeling.matchers import DictionaryMatcher, PairCountMatcher, SinkhornMatcher
from dnreid_plugins.runtime.sections import keys_of

CALLS: list[tuple[type, Callable[..., Any]]] = [
    (ClusterNCE, contrast.cluster_nce),
    (DGM, contrast.mutual_mapping_loss),
    (PGM, contrast.mutual_mapping_loss),
    (CPML, cpml.instance_cpml),
    (CPML, cpml.batch_centroid_cpml),
    (CPML, cpml.row_cpml),
    (DictionaryMatcher, graphs.dictionary_graph_matching),
    (DictionaryMatcher, dictionary.mutual_information),
    (MAA, adaptive_alignment.maa_loss),
    (MAA, adaptive_alignment.multi_factor_weights),
    (MAA, mmd.gaussian_kernels),
    (MMD, mmd.mmd2),
    (MarginMMD, mmd.margin_mmd),
    (PairCountMatcher, pair_count.pair_count_matching),
    (SinkhornMatcher, transport.sinkhorn_argmax),
    (CMA, pair_count.merge_rows),
    (DomainClusters, clustering.jaccard_dbscan),
    (DomainClusters, radius.jaccard_dbscan_auto),
    (DomainClusters, radius.dbscan_auto),
]
#: What a function calls otherwise than its part.
OTHER_NAMES = {"similarity_threshold": "threshold"}


@pytest.mark.parametrize(("part", "function"), CALLS, ids=lambda one: one.__name__)
def test_part_and_function_agree(part: type, function: Callable[..., Any]) -> None:
    parameters = inspect.signature(inspect.unwrap(function)).parameters
    compared = 0
    for key in keys_of(part):
        name = key.name.lower()
        parameter = parameters.get(name) or parameters.get(OTHER_NAMES.get(name, ""))
        if parameter is not None and parameter.default is not inspect.Parameter.empty:
            compared += 1
            assert parameter.default == key.default, name
    assert compared or function is contrast.mutual_mapping_loss
