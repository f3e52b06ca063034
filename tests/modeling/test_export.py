"""One domain's encoder runs in ONNX, ``torch.export`` and TorchScript, with the features of the whole model."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import onnxruntime
import pytest
import torch
from fastreid.config import get_cfg
from fastreid.modeling.meta_arch import build_model
from torch import Tensor, nn

from dnreid_plugins.functional.types import Domain
from dnreid_plugins.modeling.export import single_domain

TOLERANCE = 1e-4
Run = Callable[[Tensor], Tensor]

# backbone -> (depth, feature dimension, two streams, head, height and width, start weights)
ENCODERS = {
    "build_tiny_backbone": ("", 16, ("conv1", "bn1"), "EmbeddingHead", (24, 24), ""),
    "build_shufflenetv2_backbone": (
        "0.5x",
        1024,
        ("first_conv",),
        "NeckHead",
        (80, 128),
        "shipped:shufflenetv2_0.5x",
    ),
    "build_clip_vit_backbone": ("", 192, ("embed", "blocks.0"), "ClipNeckHead", (80, 128), ""),
}


def encoder(backbone: str, **dual_stream: Any) -> Any:
    """A model whose streams differ, with batch-norm statistics of its own."""
    depth, dim, modules, head, size, weights = ENCODERS[backbone]
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.META_ARCHITECTURE = "CrossDomainBaseline"
    cfg.MODEL.BACKBONE.NAME, cfg.MODEL.BACKBONE.DEPTH, cfg.MODEL.BACKBONE.FEAT_DIM = backbone, depth, dim
    cfg.MODEL.BACKBONE.PRETRAIN, cfg.MODEL.BACKBONE.PRETRAIN_PATH = bool(weights), weights
    cfg.MODEL.BACKBONE.CLIP.MODEL = "miniclip"
    cfg.MODEL.HEADS.NAME, cfg.MODEL.HEADS.WITH_BNNECK = head, True
    cfg.MODEL.LOSSES.NAME = ("ClusterNCE",)
    cfg.MODEL.DUAL_STREAM.MODULES = modules
    cfg.INPUT.SIZE_TRAIN = cfg.INPUT.SIZE_TEST = list(size)
    for key, value in dual_stream.items():
        cfg.MODEL.DUAL_STREAM[key] = value
    torch.manual_seed(0)
    model: Any = build_model(cfg)
    with torch.no_grad():
        for name, parameter in model.backbone.named_parameters():
            if ".night." in name:
                parameter.add_(0.2 * torch.randn_like(parameter))
        model.backbone.train()
        model.backbone(255 * torch.rand(16, 3, *size), torch.arange(16) % 2)
    model.size = size
    return model.eval()


def images_of(model: Any) -> Tensor:
    return 255 * torch.rand(3, 3, *model.size, generator=torch.Generator().manual_seed(4))


@pytest.fixture(scope="module")
def tiny() -> Any:
    return encoder("build_tiny_backbone")


def by_trace(view: nn.Module, images: Tensor) -> Run:
    file = io.BytesIO()
    torch.jit.save(torch.jit.trace(view, images), file)
    file.seek(0)
    return torch.jit.load(file)


def by_export(view: nn.Module, images: Tensor) -> Run:
    shapes = {"images": {0: torch.export.Dim("batch")}}
    return torch.export.export(view, (images,), dynamic_shapes=shapes).module()


def by_onnx(view: nn.Module, images: Tensor) -> Run:
    shapes = {"images": {0: torch.export.Dim("batch")}}
    program = torch.onnx.export(view, (images,), dynamic_shapes=shapes, verbose=False)
    assert program is not None
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString())
    name = session.get_inputs()[0].name
    return lambda batch: torch.from_numpy(session.run(None, {name: batch.numpy()})[0])


ROUTES = {"jit.trace": by_trace, "torch.export": by_export, "onnx": by_onnx}
quiet = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::torch.jit.TracerWarning")


def largest_difference(model: Any, domain: Domain, route: str) -> float:
    """Between the export and the model, at two batch sizes where the export has none of its own."""
    images = images_of(model)
    sizes = (3,) if route == "jit.trace" else (3, 2)
    run = ROUTES[route](single_domain(model, domain), images)
    with torch.no_grad():
        own, other = (
            model({"images": images, "domains": torch.full((3,), d)}) for d in (domain, domain.other)
        )
        worst = max(float((run(images[:count]) - own[:count]).abs().max()) for count in sizes)
    assert float((own - other).abs().max()) > 100 * TOLERANCE, (
        "the streams are alike: the test proves nothing"
    )
    return worst


@quiet
@pytest.mark.parametrize("domain", Domain)
@pytest.mark.parametrize("route", ROUTES)
def test_an_export_has_the_features_of_its_domain(
    tiny: Any, route: str, domain: Domain, capsys: pytest.CaptureFixture[str]
) -> None:
    worst = largest_difference(tiny, domain, route)
    with capsys.disabled():
        print(f"\n{route}, {domain.name.lower()}: largest difference {worst:.1e}")
    assert worst <= TOLERANCE


@quiet
@pytest.mark.slow
@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("name", ["build_clip_vit_backbone", "build_shufflenetv2_backbone"])
def test_the_backbones_of_the_shipped_configs_are_exported(name: str, route: str) -> None:
    assert largest_difference(encoder(name), Domain.NIGHT, route) <= TOLERANCE


def test_the_view_holds_one_stream_and_no_memory_of_the_model() -> None:
    model = encoder("build_tiny_backbone")
    view = single_domain(model, "night")
    other = [name for name, _ in model.named_parameters() if ".day." in name]
    own = [name for name in (*model.backbone.state_dict(), *model.heads.state_dict()) if ".day." not in name]
    assert other and len(view.state_dict()) == len(own) + len(("pixel_mean", "pixel_std"))
    assert not any(".day" in name or ".night" in name for name in view.state_dict())
    assert not any(p.requires_grad for p in view.parameters()) and not view.training
    images = images_of(model)
    before = view(images)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert torch.equal(view(images), before)


def test_a_single_stream_is_exported_for_either_domain() -> None:
    model = encoder("build_tiny_backbone", MODULES=())
    images = images_of(model)
    assert torch.equal(single_domain(model, "day")(images), single_domain(model, "night")(images))


def test_a_model_told_its_domain_is_exported_as_it_is() -> None:
    """fast-reid's onnx_export.py gives the whole model a bare image tensor."""
    model = encoder("build_tiny_backbone", ASSUME_DOMAIN="night")
    images = images_of(model)
    with torch.no_grad():
        expected = model({"images": images, "domains": torch.ones(len(images), dtype=torch.int64)})
        exported = torch.export.export(model, (images,)).module()
        torch.testing.assert_close(exported(images), expected, rtol=0, atol=TOLERANCE)
        torch.testing.assert_close(model(images), expected, rtol=0, atol=TOLERANCE)
