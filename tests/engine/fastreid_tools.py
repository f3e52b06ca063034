"""What fast-reid's demo.py, visualize_result.py and onnx_export.py ask of fast-reid, in one script.

It knows nothing of the plug-ins. Arguments: a config file, a file for what it found, ``KEY VALUE`` pairs.
"""

import io
import sys

import onnx
import onnxoptimizer
import torch
from fastreid.config import get_cfg
from fastreid.data import build_reid_test_loader
from fastreid.engine import DefaultPredictor
from fastreid.evaluation import evaluate_rank
from fastreid.modeling.meta_arch import build_model
from fastreid.utils.checkpoint import Checkpointer
from onnxsim import simplify
from tiny_run import register_tiny_backbone


def in_demo(cfg, images):
    """One image after the other, each a float batch of one with nothing beside it."""
    predict = DefaultPredictor(cfg)
    return torch.cat([predict(torch.as_tensor(image.numpy())[None]) for image in images])


def in_visualize(cfg, batches, num_query):
    """The images of each batch alone go to the predictor; products count as cosines."""
    predict = DefaultPredictor(cfg)
    features, ids, cameras = [], [], []
    for batch in batches:
        features.append(predict(batch["images"]))
        ids.append(batch["targets"])
        cameras.append(batch["camids"])
    features, ids, cameras = torch.cat(features), torch.cat(ids).numpy(), torch.cat(cameras).numpy()
    distances = (1 - features[:num_query] @ features[num_query:].t()).numpy()
    sides = [x[part] for x in (ids, cameras) for part in (slice(num_query), slice(num_query, None))]
    _, precisions, _ = evaluate_rank(distances, *sides)
    return features, float(sum(precisions) / len(precisions))


def in_export(cfg):
    """The whole model on one bare image tensor, written to memory, then optimised."""
    cfg = cfg.clone()
    cfg.MODEL.BACKBONE.PRETRAIN = False
    model = build_model(cfg)
    Checkpointer(model).load(cfg.MODEL.WEIGHTS)
    if hasattr(model.backbone, "deploy"):
        model.backbone.deploy(True)
    model.eval()
    images = torch.randn(1, 3, *cfg.INPUT.SIZE_TEST).to(model.device)
    kind = torch.onnx.OperatorExportTypes.ONNX_ATEN_FALLBACK
    with torch.no_grad(), io.BytesIO() as file:
        torch.onnx.export(model, images, file, operator_export_type=kind)
        graph = onnx.load_from_string(file.getvalue())
    passes = ["extract_constant_to_initializer", "eliminate_unused_initializer", "fuse_bn_into_conv"]
    graph, equal = simplify(onnxoptimizer.optimize(graph, passes))
    assert equal
    return graph.SerializeToString()


if __name__ == "__main__":
    register_tiny_backbone()
    config, output, *opts = sys.argv[1:]
    cfg = get_cfg()
    cfg.merge_from_file(config)
    cfg.merge_from_list(opts)
    loader, num_query = build_reid_test_loader(cfg, dataset_name="DN348")
    batches = list(loader)
    found = {"paths": [path for batch in batches for path in batch["img_paths"]]}
    found["seen"], found["mAP"] = in_visualize(cfg, batches, num_query)
    found["demo"] = in_demo(cfg, [image for batch in batches for image in batch["images"]])
    found["onnx"] = in_export(cfg)
    torch.save(found, output)
