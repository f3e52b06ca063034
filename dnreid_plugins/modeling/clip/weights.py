"""CLIP models from open_clip, built without network access from a name or a description, and a tag or a file.

The image tower and the text tower are taken from the same model and the same weights, so both
:mod:`~dnreid_plugins.modeling.clip.image_tower` and :mod:`~dnreid_plugins.modeling.clip.text_tower` use this module.
"""

from __future__ import annotations

import json
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .conv_stem import put_conv_stem

# The miniature CLIP that is shipped for DNMini; the name of both its description and its weights.
MINI_CLIP = "miniclip"
_MINI_DIR = Path(__file__).resolve().parents[2] / "dnmini" / "weights"


@dataclass(frozen=True)
class ClipDescription:
    """What open_clip needs to build a model.

    Attributes:
        name: as in the config.
        model_cfg: open_clip's own model description (``embed_dim``, ``vision_cfg``, ``text_cfg``, ...).
        vocabulary: ascending ids of CLIP's byte-pair encoding that have a row in a reduced token table, in
            row order; ``None`` for the full table. Start- and end-of-text have the largest ids and hence the last two
            rows, which open_clip's pooling at the end-of-text token relies on.
        conv_stem: hidden channels of a `ConvStem` instead of the patch convolution; empty for none.
    """

    name: str
    model_cfg: dict[str, Any]
    vocabulary: tuple[int, ...] | None = None
    conv_stem: tuple[int, ...] = ()


def describe(model: str) -> ClipDescription:
    """Look a model up by its open_clip name, by ``"miniclip"`` or by the path of a ``.json`` description.

    The file is an ``open_clip_config.json`` (a dictionary with ``model_cfg``); ``vocabulary`` and ``conv_stem`` may
    be added, see `ClipDescription`.

    Raises:
        ValueError: unknown name, or a tower that is not an open_clip transformer (timm, Hugging Face, CoCa).
        FileNotFoundError: a ``.json`` path that does not exist.
    """
    import open_clip

    path = _MINI_DIR / f"{MINI_CLIP}.json" if model == MINI_CLIP else Path(model)
    if path.suffix == ".json":
        if not path.is_file():
            raise FileNotFoundError(f"MODEL.BACKBONE.CLIP.MODEL is {model!r}, but there is no file {path}.")
        content = json.loads(path.read_text(encoding="utf-8"))
        description = ClipDescription(
            name=model,
            model_cfg=content["model_cfg"],
            vocabulary=tuple(content["vocabulary"]) if "vocabulary" in content else None,
            conv_stem=tuple(content.get("conv_stem", ())),
        )
    else:
        model_cfg = open_clip.get_model_config(model)
        if model_cfg is None:
            close = [name for name in open_clip.list_models() if name.startswith(model[:5])]
            raise ValueError(
                f"MODEL.BACKBONE.CLIP.MODEL is {model!r}, which open_clip does not have; names that start alike: "
                f"{', '.join(close) or 'none'}."
            )
        description = ClipDescription(model, model_cfg)
    _check_towers(description)
    return description


def _check_towers(description: ClipDescription) -> None:
    vision, text = description.model_cfg["vision_cfg"], description.model_cfg["text_cfg"]
    reason = ""
    if vision.get("timm_model_name") or not isinstance(vision.get("layers", 12), int):
        reason = "its image tower is not open_clip's VisionTransformer"
    elif (
        text.get("hf_model_name")
        or text.get("hf_tokenizer_name")
        or "multimodal_cfg" in description.model_cfg
    ):
        reason = "its text tower is not open_clip's plain TextTransformer on CLIP's own tokens"
    if reason:
        raise ValueError(
            f"CLIP model {description.name!r} cannot be used because {reason}; take a ViT such as ViT-B-16."
        )


def build_open_clip(description: ClipDescription, pretrained: str = "") -> Any:
    """Both towers in open_clip's own classes, float32, on the CPU.

    Args:
        description: from :func:`describe`.
        pretrained: ``""`` for random weights, an open_clip tag (looked up in the local cache only), the path
            of a weight file (safetensors, a state dict or OpenAI's TorchScript archive) or ``"miniclip"``.

    Raises:
        FileNotFoundError: the weights are not on this machine; the message names the command to fetch them.
    """
    import open_clip

    path, tag_cfg = find_weights(description.name, pretrained)
    model_cfg = dict(description.model_cfg)
    custom_text = model_cfg.pop("custom_text", False)
    if tag_cfg.get("quick_gelu") or (path and _is_torchscript(path)):
        model_cfg["quick_gelu"] = (
            True  # OpenAI's weights were trained with it, regardless of the model's name
        )
    model = (open_clip.CustomTextCLIP if custom_text else open_clip.CLIP)(**model_cfg)
    if description.conv_stem:
        put_conv_stem(model.visual, description.conv_stem)
    if path and _is_torchscript(path):
        _load_torchscript(model, path)
    elif path:
        open_clip.load_checkpoint(model, str(path), strict=True, weights_only=True)
    return model.float()


def find_weights(model: str, pretrained: str) -> tuple[Path | None, dict[str, Any]]:
    """Local file of the weights (``None`` for random ones) and open_clip's settings for the tag.

    Raises:
        FileNotFoundError: see :func:`build_open_clip`.
    """
    import open_clip

    if not pretrained:
        return None, {}
    if pretrained == MINI_CLIP:
        return _MINI_DIR / f"{MINI_CLIP}.safetensors", {}
    if os.path.isfile(pretrained):
        return Path(pretrained), {}
    tag_cfg = open_clip.get_pretrained_cfg(model, pretrained)
    if tag_cfg:
        cached = _cached_file(tag_cfg)
        if cached is not None:
            return cached, tag_cfg
    tags = open_clip.list_pretrained_tags_by_model(model)
    tag = pretrained if tag_cfg else next(iter(tags), "TAG")
    problem = (
        "not in the local cache"
        if tag_cfg
        else f"neither a file nor a tag of {model} ({', '.join(tags) or 'none'})"
    )
    raise FileNotFoundError(
        f"MODEL.BACKBONE.CLIP.PRETRAINED is {pretrained!r}, which is {problem}; fetch the weights once with: "
        f"python -c \"import open_clip; open_clip.create_model('{model}', pretrained='{tag}')\""
    )


def _cached_file(tag_cfg: dict[str, Any]) -> Path | None:
    """The path to which open_clip's own download has saved this tag's weights, if any."""
    from huggingface_hub import try_to_load_from_cache

    hub, url = tag_cfg.get("hf_hub", ""), tag_cfg.get("url", "")
    if hub:
        repository, filename = os.path.split(hub)
        names = [filename] if filename else ["open_clip_pytorch_model.bin"]
        names = [names[0].rsplit(".", 1)[0] + ".safetensors", "open_clip_model.safetensors", *names]
        for name in names:
            found = try_to_load_from_cache(repository, name)
            if isinstance(found, str):
                return Path(found)
    if url:
        path = Path.home() / ".cache" / "clip" / os.path.basename(url)
        if path.is_file():
            return path
    return None


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _load_torchscript(model: Any, path: Path) -> None:
    state: dict[str, Tensor] = dict(torch.jit.load(str(path), map_location="cpu").state_dict())
    # Such an archive also contains numbers besides the weights, and the mask, which the model creates itself.
    for key in ("input_resolution", "context_length", "vocab_size", "attn_mask"):
        state.pop(key, None)
    model.load_state_dict({key: value.float() for key, value in state.items()}, strict=True)
