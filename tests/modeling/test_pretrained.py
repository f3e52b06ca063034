from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from dnreid_plugins.modeling.pretrained import best_prefix, load_backbone_weights
from dnreid_plugins.runtime.weight_files import WeightFileError


class _Backbone(nn.Module):
    def __init__(self, width: int, *, non_local: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = nn.Sequential(nn.Conv2d(width, width, 1), nn.BatchNorm2d(width))
        if non_local:
            self.NL_2 = nn.ModuleList([nn.Conv2d(width, width, 1)])


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    return {
        key: torch.randn_like(v) if v.is_floating_point() else v for key, v in module.state_dict().items()
    }


def same(module: nn.Module, weights: dict[str, Tensor]) -> bool:
    own = module.state_dict()
    return all(torch.equal(own[key], value) for key, value in weights.items())


@pytest.mark.parametrize(
    "prefix", ["", "module.", "backbone.", "module.backbone.", "module.features.", "a.b.c."]
)
@pytest.mark.parametrize("wrapper", [None, "model", "state_dict", "model_state"])
def test_any_wrapping_and_prefix_loads_completely(
    tmp_path: Path, prefix: str, wrapper: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    weights = weights_of(_Backbone(4))
    content: dict[str, object] = {prefix + key: value for key, value in weights.items()}
    content["fc.weight"] = torch.randn(10, 4)
    torch.save({wrapper: content} if wrapper else content, tmp_path / "w.pth")
    module = _Backbone(4)
    with caplog.at_level(logging.INFO):
        load_backbone_weights(module, tmp_path / "w.pth")
    assert same(module, weights)
    assert "12 of 12 backbone tensors loaded, 1 in the file unused" in caplog.text


def test_safetensors_and_missing_batch_counters(tmp_path: Path) -> None:
    weights = {k: v for k, v in weights_of(_Backbone(4)).items() if not k.endswith("num_batches_tracked")}
    save_file(weights, str(tmp_path / "w.safetensors"))
    module = _Backbone(4)
    load_backbone_weights(module, tmp_path / "w.safetensors")
    assert same(module, weights)


def test_a_missing_tensor_is_refused_and_nothing_is_loaded(tmp_path: Path) -> None:
    weights = weights_of(_Backbone(4))
    del weights["layer1.0.weight"]
    torch.save(weights, tmp_path / "w.pth")
    module = _Backbone(4)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    with pytest.raises(WeightFileError, match=r"1 of 12 backbone tensors are missing \(layer1\.0\.weight"):
        load_backbone_weights(module, tmp_path / "w.pth")
    assert same(module, before)


def test_other_shapes_are_listed(tmp_path: Path) -> None:
    torch.save(weights_of(_Backbone(8)), tmp_path / "w.pth")
    with pytest.raises(
        WeightFileError, match=r"conv1\.weight is \(8, 3, 3, 3\) in the file and \(4, 3, 3, 3\)"
    ):
        load_backbone_weights(_Backbone(4), tmp_path / "w.pth")


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    torch.save({"encoder.0.weight": torch.zeros(3)}, tmp_path / "w.pth")
    with pytest.raises(WeightFileError, match="12 of 12 backbone tensors are missing"):
        load_backbone_weights(_Backbone(4), tmp_path / "w.pth")


def test_blocks_that_reid_adds_may_start_from_random(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torch.save(weights_of(_Backbone(4)), tmp_path / "w.pth")
    with caplog.at_level(logging.WARNING):
        load_backbone_weights(_Backbone(4, non_local=True), tmp_path / "w.pth")
    assert "2 tensors start from random, e.g. NL_2.0.weight" in caplog.text


class _Transformer(nn.Module):
    """The parts of a vision transformer that the position embedding depends on."""

    def __init__(self, rows: int, columns: int) -> None:
        super().__init__()
        self.patch_embed = nn.Module()
        self.patch_embed.num_y, self.patch_embed.num_x = rows, columns
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + rows * columns, 5))


def test_a_square_position_embedding_is_resized(tmp_path: Path) -> None:
    stored = torch.randn(1, 1 + 16, 5)
    torch.save({"pos_embed": stored}, tmp_path / "w.pth")
    model = _Transformer(8, 4)
    load_backbone_weights(model, tmp_path / "w.pth")
    assert torch.equal(model.pos_embed[:, :1], stored[:, :1])
    # Resizing from 4 x 4 to 8 x 4 leaves the columns alone; row 3 lies a quarter of the way from row 1 to 2.
    grid, old = model.pos_embed[0, 1:].reshape(8, 4, 5), stored[0, 1:].reshape(4, 4, 5)
    torch.testing.assert_close(grid[3], 0.75 * old[1] + 0.25 * old[2])


def test_a_position_embedding_that_is_not_square_is_refused(tmp_path: Path) -> None:
    torch.save({"pos_embed": torch.randn(1, 1 + 15, 5)}, tmp_path / "w.pth")
    with pytest.raises(WeightFileError, match="have another shape"):
        load_backbone_weights(_Transformer(8, 4), tmp_path / "w.pth")


@pytest.mark.parametrize(
    ("stored", "wanted", "prefix"),
    [
        (["a.b"], ["a.b"], ""),
        (["m.a.b", "m.a.c", "a.b"], ["a.b", "a.c"], "m."),
        ([], ["a"], ""),
        (["x"], [], ""),
        (["a", "m.a"], ["a"], ""),
    ],
)
def test_the_prefix_that_fits_most_wins_and_ties_go_to_the_shortest(
    stored: list[str], wanted: list[str], prefix: str
) -> None:
    assert best_prefix(stored, wanted) == prefix
