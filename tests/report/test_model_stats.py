"""Counted multiply-adds and parameters against closed forms."""

from __future__ import annotations

import torch
from torch import nn

import dnreid_plugins  # noqa: F401
from dnreid_plugins.report.model_stats import count, prompted_clip_stats, table
from tools.model_stats import PAPER_BRIDGING


def test_linear_and_convolution_are_exact() -> None:
    module = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.Flatten(), nn.Linear(5 * 6 * 4, 7, bias=False))
    stats = count("toy", module, lambda: module(torch.randn(1, 3, 6, 4)), uncounted=("2.",))
    expected = 3 * 5 * 9 * 24 + 120 * 7
    assert stats.macs == stats.layer_macs == expected
    assert stats.parameters == 3 * 5 * 9 + 5 + 120 * 7
    assert stats.layer_parameters == 3 * 5 * 9 + 5


def test_attention_is_counted_in_full_but_not_layer_by_layer() -> None:
    attention = nn.MultiheadAttention(8, 2, batch_first=True).eval()
    tokens = torch.randn(1, 5, 8)
    stats = count("attention", attention, lambda: attention(tokens, tokens, tokens, need_weights=False))
    assert stats.macs == 4 * 5 * 8 * 8 + 2 * 5 * 5 * 8  # four projections, two products
    assert stats.layer_macs == 0


def test_vit_b_16_matches_the_papers_table() -> None:
    """The paper's numbers are those of a per-layer counter: attention is not in them."""
    rows = {row.name: row for row in prompted_clip_stats()}
    for name, (macs, parameters) in PAPER_BRIDGING.items():
        assert abs(rows[name].layer_macs / macs - 1) < 0.002
        assert abs(rows[name].layer_parameters / parameters - 1) < (0.04 if "bias" in name else 0.001)
    tokens, width, layers = 257, 768, 12
    full = layers * (12 * width**2 * tokens + 2 * tokens**2 * width) + 256 * width**2 + width * 512
    assert rows["image encoder"].macs == full
    text = 12 * (12 * 512**2 * 77 + 2 * 77**2 * 512) + 512 * 512
    assert rows["text encoder"].macs == text
    assert rows["text encoder"].macs / rows["text encoder, cut"].macs > 77 / 13


def test_table_shows_the_papers_numbers_where_there_are_any() -> None:
    module = nn.Linear(1000, 80)
    row = count("dynamic-bias net", module, lambda: module(torch.randn(1, 1000)))
    lines = table([row], PAPER_BRIDGING).splitlines()
    assert lines[2] == "| dynamic-bias net | 80.08 K | 80.08 K | 139.00 K | 80.00 K | 80.00 K | 143.36 K |"
    assert table([row]).splitlines()[2].count("|  |") == 2
