"""The blocks of DNDM in the encoders that the configs name: what they compute, of whom, in which backbone."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from fastreid.config import CfgNode, get_cfg
from fastreid.modeling.meta_arch import build_model
from torch import Tensor, nn

from dnreid_plugins.engine.preflight.model import _dual_stream
from dnreid_plugins.engine.trainer import CrossDomainTrainer
from dnreid_plugins.functional.modulation import enhance_structure, glare_mask, pooled_to
from dnreid_plugins.functional.types import Domain, Epoch
from dnreid_plugins.labels.base import make_clusters
from dnreid_plugins.modeling.blocks import ClassAttention, GlareSuppression, StructureEnhancement, base
from dnreid_plugins.modeling.dual_stream import DualStream
from dnreid_plugins.modeling.export import single_domain
from dnreid_plugins.runtime.config_files import ConfigError

# backbone -> (depth, width of the feature, parts per domain, the stem's last layer, the stages' last layers, image)
ENCODERS: dict[str, Any] = {
    "build_tiny_backbone": ("", 16, ("conv1", "bn1"), ("bn1",), ("bn1", "bn2"), (24, 32)),
    "build_resnet_backbone": (
        "50x",
        2048,
        ("conv1", "bn1"),
        ("maxpool",),
        ("layer1.2", "NL_2.1", "NL_3.2", "layer4.2"),
        (72, 56),
    ),
    "build_shufflenetv2_backbone": (
        "0.5x",
        1024,
        ("first_conv",),
        ("maxpool",),
        ("features.3", "features.11"),
        (80, 128),
    ),
}


def config(backbone: str = "build_tiny_backbone") -> CfgNode:
    depth, width, modules, stem, stages, size = ENCODERS[backbone]
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.META_ARCHITECTURE = "CrossDomainBaseline"
    cfg.MODEL.BACKBONE.NAME, cfg.MODEL.BACKBONE.DEPTH, cfg.MODEL.BACKBONE.FEAT_DIM = backbone, depth, width
    cfg.MODEL.BACKBONE.PRETRAIN, cfg.MODEL.BACKBONE.WITH_NL = False, "NL_2.1" in stages
    cfg.MODEL.HEADS.NAME, cfg.MODEL.HEADS.WITH_BNNECK = "NeckHead", True
    cfg.MODEL.LOSSES.NAME = ("IdentityClassifier", "GlareMask")
    cfg.MODEL.DUAL_STREAM.MODULES = modules
    cfg.MODEL.BLOCKS.NAME = ("GlareSuppression", "StructureEnhancement", "ClassAttention")
    cfg.MODEL.BLOCKS.GLARESUPPRESSION.AFTER = stem
    cfg.MODEL.BLOCKS.STRUCTUREENHANCEMENT.AFTER = cfg.MODEL.BLOCKS.CLASSATTENTION.AFTER = stages
    cfg.INPUT.SIZE_TRAIN = cfg.INPUT.SIZE_TEST = list(size)
    return cfg


def ready(cfg: CfgNode, ids: list[int] | None = None) -> Any:
    """A model in the first epoch of images 0, 1, 2 ... with these identities; a larger classifier and projections."""
    torch.manual_seed(0)
    model: Any = build_model(cfg)
    labels = torch.tensor(ids or [0, 1, 2, 0, 1, 2, 3])
    everything = torch.arange(len(labels))
    clusters = make_clusters(labels, torch.randn(len(labels), cfg.MODEL.BACKBONE.FEAT_DIM), everything)
    epoch = Epoch(1, 1, {"day": clusters, "night": clusters, "joint": clusters})
    model.parts.begin_epoch(epoch)
    with torch.no_grad():
        model.parts.losses["IdentityClassifier"].layer.normal_()
        for block in blocks(model, ClassAttention):
            block.project.weight.normal_(std=0.3)
    return model


def blocks(model: nn.Module, kind: type) -> list[Any]:
    return [module for module in model.modules() if isinstance(module, kind)]


def batch(size: Any = (24, 32), domains: tuple[int, ...] = (0, 0, 0, 1, 1, 1, 1)) -> dict[str, Any]:
    """Images of the identities 0, 1, 2 by day and 0, 1, 2, 3 at night; the night images have a lamp each."""
    count = len(domains)
    images = 200 * torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(1))
    for number in range(count):
        images[number, :, 4 : 9 + number, 3 : 11 + number] = 250
    places = torch.arange(count)
    return {"images": images, "targets": places, "domains": torch.tensor(domains), "indices": places}


def watched(model: Any, kind: type) -> list[tuple[Tensor, Tensor]]:
    """Input and output of every block of this kind, filled when the model runs."""
    seen: list[tuple[Tensor, Tensor]] = []
    for block in blocks(model, kind):
        block.register_forward_hook(lambda _block, given, got: seen.append((given[0].detach(), got.detach())))
    return seen


# ------------------------------------------------------------------ in every backbone


@pytest.mark.parametrize("backbone", sorted(ENCODERS))
def test_the_blocks_stand_behind_the_named_layers_and_every_parameter_trains(backbone: str) -> None:
    _, _, _, _, stages, size = ENCODERS[backbone]
    model = ready(config(backbone)).train()
    seen = [watched(model, kind) for kind in (GlareSuppression, StructureEnhancement, ClassAttention)]
    losses = model(batch(size))
    assert set(losses) == {"loss_identityclassifier", "loss_glaremask"}
    assert [len(one) for one in seen] == [1, len(stages), len(stages)]
    for (_, enhanced), (given, _) in zip(seen[1], seen[2], strict=True):
        torch.testing.assert_close(given, enhanced, rtol=0, atol=0)
    sum(losses.values()).backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and "memory" not in name:
            assert parameter.grad is not None and bool(torch.isfinite(parameter.grad).all()), name
    for block in (*blocks(model, ClassAttention), *blocks(model, GlareSuppression)):
        assert all(float(p.grad.norm()) > 0 for p in block.parameters())
    assert model.backbone._pass.given is None and model.backbone._pass.outputs == {}
    copy.deepcopy(model.backbone)  # nothing of the running pass is left that could not be copied


def test_with_no_blocks_the_encoder_is_as_it_was() -> None:
    cfg = config()
    cfg.MODEL.BLOCKS.NAME, cfg.MODEL.LOSSES.NAME = (), ("IdentityClassifier",)
    model = ready(cfg)
    assert not model.backbone.has_blocks and model.context(batch()) is None
    assert set(model.backbone.backbone.state_dict()) == set(
        DualStream(copy.deepcopy(build_model(cfg).backbone.backbone)).backbone.state_dict()
    )


# ------------------------------------------------------------------ glare


def test_glare_dims_the_stem_by_hand() -> None:
    """With all weights 0 s is 1/2 and the map keeps 3/4; with a heavy mask weight half of it is left in the glare."""
    model = ready(config()).train()
    (block,) = blocks(model, GlareSuppression)
    seen = watched(model, GlareSuppression)
    inputs = batch()
    mask = pooled_to(glare_mask(inputs["images"]), (12, 16)) * (inputs["domains"] == 1).view(-1, 1, 1, 1)
    assert mask[3:].amax(dim=(1, 2, 3)).eq(1).all() and not mask[:3].any()
    with torch.no_grad():
        block.weigh.weight.zero_()
        model(inputs)
        torch.testing.assert_close(seen[-1][1], 0.75 * seen[-1][0])
        block.weigh.weight[:, -1] = 50
        model(inputs)
    given, got = seen[-1]
    torch.testing.assert_close(got, torch.where(mask > 0, 0.5 * given, 0.75 * given))


@pytest.mark.parametrize("domains", [(0, 1, 0, 1, 1, 0, 1), (1, 1, 0, 0), (0, 0, 0), (1, 1)])
def test_the_mask_belongs_to_its_image_in_any_order_of_domains(domains: tuple[int, ...]) -> None:
    model = ready(config()).train()
    (block,) = blocks(model, GlareSuppression)
    with torch.no_grad():
        block.weigh.weight.zero_()
        block.weigh.weight[:, -1] = 3
    inputs = batch(domains=domains)
    model(inputs)
    outputs = model._encode(
        model.preprocess_image(inputs), inputs["domains"], model.context(inputs, inputs["targets"])
    )
    expected = pooled_to(glare_mask(inputs["images"]), (12, 16))[:, 0] * inputs["domains"].view(-1, 1, 1)
    torch.testing.assert_close(outputs["glare"], 3 * expected)


def test_released_luminance_exchanges_red_and_blue() -> None:
    cfg = config()
    warm = torch.zeros(2, 3, 24, 32)
    warm[:, :2] = 255
    for released, glare in ((False, True), (True, False)):
        cfg.MODEL.BLOCKS.GLARESUPPRESSION.AS_RELEASED = released
        model = ready(cfg).train()
        (block,) = blocks(model, GlareSuppression)
        shown: list[Tensor] = []
        block.weigh.register_forward_hook(lambda _m, given, _o, shown=shown: shown.append(given[0][:, -1]))
        model({**batch(domains=(1, 1)), "images": warm})
        assert bool(shown[0].any()) == glare


def test_the_loss_of_the_mask_and_its_released_form() -> None:
    """s = 1/2 everywhere: log 2, and 0.7241 as released."""
    for released, expected in ((False, 0.6931), (True, 0.7241)):
        cfg = config()
        cfg.MODEL.LOSSES.GLAREMASK.AS_RELEASED = released
        model = ready(cfg).train()
        (block,) = blocks(model, GlareSuppression)
        nn.init.zeros_(block.weigh.weight)
        assert model(batch())["loss_glaremask"].item() == pytest.approx(expected, abs=1e-4)
        assert model.parts.losses["GlareMask"].statistics["mask_night"] == 0.5


# ------------------------------------------------------------------ attention


def attention_of(given: Tensor, got: Tensor) -> Tensor:
    """``(B, h, w)``: by how much each pixel was raised."""
    return (got - given).sum(dim=1) / given.sum(dim=1)


def saturated(sign: float) -> Any:
    """A model whose attention is 1 (every pixel of the class) or 1/2 everywhere."""
    model = ready(config())
    with torch.no_grad():
        model.parts.losses["IdentityClassifier"].layer.fill_(sign)
        for block in blocks(model, ClassAttention):
            block.project.weight.fill_(1.0)
    return model


@pytest.mark.parametrize(("training", "gains"), [(True, [0.1] * 6 + [0.05]), (False, [0.1] * 7)])
def test_full_attention_raises_the_map_by_a_tenth(training: bool, gains: list[float]) -> None:
    """Identity 3 has no day image: in training it keeps its own term alone."""
    model = saturated(50.0).train(training)
    seen: list[tuple[Tensor, Tensor]] = []
    block = blocks(model, ClassAttention)[0]
    block.register_forward_hook(lambda _b, given, got: seen.append((given[0].detach(), got.detach())))
    # The block's input is made positive, so that every pixel is one of the class.
    block.register_forward_pre_hook(lambda _b, given: (given[0].abs() + 0.1,))
    model(batch())
    (given, got) = seen[0]
    expected = given * (1 + torch.tensor(gains).view(-1, 1, 1, 1))
    torch.testing.assert_close(got, expected)


def test_attention_is_exchanged_between_the_domains_of_an_identity_only() -> None:
    """A change of the night image of identity 1 reaches the day image of identity 1 and no other image's gain."""
    model = ready(config()).eval()
    (first, *_) = blocks(model, ClassAttention)
    first.train()
    seen: list[tuple[Tensor, Tensor]] = []
    first.register_forward_hook(lambda _b, given, got: seen.append((given[0].detach(), got.detach())))
    inputs = batch()
    labels = torch.tensor([0, 1, 2, 0, 1, 2, 3])
    changed = {**inputs, "images": inputs["images"].clone()}
    changed["images"][4] = changed["images"][4].flip(0)
    with torch.no_grad():
        for one in (inputs, changed):
            images = model.preprocess_image(one)
            model.backbone(images, one["domains"], model.context(one, labels))
    gains = [attention_of(*pair) for pair in seen]
    moved = [not torch.allclose(a, b, atol=1e-6) for a, b in zip(*gains, strict=True)]
    assert moved == [False, True, False, False, True, False, False]


@pytest.mark.parametrize("order", [[6, 0, 5, 1, 4, 2, 3], [3, 4, 5, 6, 0, 1, 2]])
def test_the_place_in_the_batch_changes_nothing(order: list[int]) -> None:
    results = []
    for chosen in (torch.arange(7), torch.tensor(order)):
        model = ready(config()).train()
        model({key: value[chosen] for key, value in batch().items()})
        results.append((model.last_batch, chosen))
    (expected, _), (got, chosen) = results
    torch.testing.assert_close(got.features, expected.features[chosen], rtol=1e-4, atol=1e-5)


def test_labels_of_the_exchange_are_the_joint_ones() -> None:
    """Targets within a domain mean nothing to the other domain: with identities unlike them the result differs."""
    features = []
    for ids in ([0, 1, 2, 0, 1, 2, 3], [0, 1, 2, 3, 3, 3, 3]):
        model = ready(config(), ids).train()
        model(batch())
        features.append(model.last_batch.features)
    assert not torch.allclose(features[0], features[1], atol=1e-5)


def test_before_the_classifier_has_a_class_an_image_passes() -> None:
    torch.manual_seed(0)
    model: Any = build_model(config()).eval()
    assert bool(torch.isfinite(model(batch())).all())
    assert model.encode(batch(), feature="before").shape == (7, 16)


def test_structure_is_enhanced_in_both_modes() -> None:
    for training in (True, False):
        model = ready(config()).train(training)
        seen = watched(model, StructureEnhancement)
        model(batch())
        for given, got in seen:
            torch.testing.assert_close(got, enhance_structure(given))


# ------------------------------------------------------------------ export and refusals


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("domain", Domain)
@pytest.mark.parametrize("route", ["eager", "trace", "export"])
def test_one_domain_is_exported_with_its_blocks(domain: Domain, route: str) -> None:
    model = ready(config()).eval()
    inputs = batch(domains=(0,) * 5)
    images = inputs["images"]
    with torch.no_grad():
        for block in blocks(model, GlareSuppression):
            block.weigh.weight[:, -1] = 20
        own, other = (
            model({"images": images, "domains": torch.full((5,), int(one))}) for one in (domain, domain.other)
        )
        view: Any = single_domain(model, domain)
        for parameter in model.parameters():
            parameter.zero_()
        if route == "trace":
            view = torch.jit.trace(view, images)
        elif route == "export":
            shapes = {"images": {0: torch.export.Dim("batch")}}
            view = torch.export.export(view, (images[:3],), dynamic_shapes=shapes).module()
        torch.testing.assert_close(view(images), own, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(own, other, atol=1e-3)


@pytest.mark.parametrize(
    ("keys", "match"),
    [
        ({"NAME": ("Glare",)}, "MODEL.BLOCKS.NAME is .*name each block once, known are"),
        ({"NAME": ("StructureEnhancement",) * 2}, "name each block once"),
        ({"STRUCTUREENHANCEMENT": ()}, "STRUCTUREENHANCEMENT.AFTER is .*each once, such as"),
        ({"STRUCTUREENHANCEMENT": ("layer9",)}, "STRUCTUREENHANCEMENT.AFTER is .*'layer9'"),
        ({"GLARESUPPRESSION": ("maxpool", "maxpool")}, "GLARESUPPRESSION.AFTER is"),
        ({"GLARESUPPRESSION": ("layer1",)}, "behind 'layer1', which gives no map"),
        ({"GLARESUPPRESSION": ("layer1.0.conv1",)}, "inside a part that MODEL.DUAL_STREAM.MODULES copies"),
    ],
)
def test_wrong_places_are_refused(keys: dict[str, Any], match: str) -> None:
    cfg = config("build_resnet_backbone")
    cfg.MODEL.DUAL_STREAM.MODULES = (
        ("conv1", "bn1", "layer1") if match.startswith("inside") else ("conv1", "bn1")
    )
    for key, value in keys.items():
        if key == "NAME":
            cfg.MODEL.BLOCKS.NAME = value
        else:
            cfg.MODEL.BLOCKS[key].AFTER = value
    text = _dual_stream(cfg)
    assert text is not None
    with pytest.raises(ValueError, match=match):
        raise ValueError(text)


def test_a_block_stands_behind_a_map() -> None:
    backbone = nn.Sequential()
    backbone.add_module("conv", nn.Conv2d(3, 4, 1))
    backbone.add_module("flat", nn.Flatten())
    assert base._channels_behind(backbone, {"NonLocal": ("conv",)}, (2, 2)) == {"conv": 4}
    with pytest.raises(ValueError, match="behind 'flat', which gives no map"):
        base._channels_behind(backbone, {"NonLocal": ("flat",)}, (2, 2))


def test_attention_refuses_separate_passes() -> None:
    cfg = config()
    cfg.MODEL.DUAL_STREAM.SHARED_BN = "separate"
    with pytest.raises(ValueError, match="SHARED_BN is 'separate', but ClassAttention"):
        build_model(cfg)
    cfg.MODEL.BLOCKS.NAME = ("GlareSuppression", "StructureEnhancement")
    inputs = batch(domains=(0, 1, 0, 1, 1, 0, 1))
    losses = ready(cfg).train()(inputs)
    assert torch.isfinite(losses["loss_glaremask"])


def test_a_missing_counterpart_is_refused_before_any_image_is_read(
    tiny_cfg: CfgNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTREID_DATASETS", "nowhere")
    tiny_cfg.MODEL.BLOCKS.NAME = ("ClassAttention",)
    tiny_cfg.MODEL.BLOCKS.CLASSATTENTION.AFTER = ("bn2",)
    with pytest.raises(ConfigError, match="ClassAttention reads the classifier of a loss head, but none of"):
        CrossDomainTrainer(tiny_cfg)
    tiny_cfg.MODEL.BLOCKS.NAME, tiny_cfg.MODEL.LOSSES.NAME = (), ("ClusterNCE", "GlareMask")
    with pytest.raises(ConfigError, match="GlareMask needs the encoder's output 'glare'"):
        CrossDomainTrainer(tiny_cfg)


def test_a_block_without_its_context_says_so() -> None:
    model = ready(config()).eval()
    with pytest.raises(ValueError, match="A block inside the backbone got no context"):
        model.backbone(torch.zeros(2, 3, 24, 32), torch.tensor([0, 1]))
    model.train()
    with pytest.raises(ValueError, match="ClassAttention got no labels in train mode"):
        model.backbone(torch.zeros(2, 3, 24, 32), torch.tensor([0, 1]), model.context(batch(domains=(0, 1))))
