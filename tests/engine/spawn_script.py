"""A fast-reid script that knows nothing of the plug-ins and starts its workers as macOS and Windows do."""

import multiprocessing
import sys

from fastreid.config import get_cfg
from fastreid.data import build_reid_test_loader
from fastreid.data.common import CommDataset
from fastreid.data.datasets import DATASET_REGISTRY
from fastreid.data.transforms import build_transforms
from fastreid.engine import DefaultTrainer


class Transform:
    """A worker finds it by the name of this script; there too the trainer is the plug-ins' one."""

    def __init__(self, cfg):
        self.inner = build_transforms(cfg, is_train=False)

    def __call__(self, image):
        assert DefaultTrainer.__name__ == "CrossDomainTrainer"
        return self.inner(image)


if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    cfg = get_cfg()
    cfg.merge_from_file(sys.argv[2])
    data = DATASET_REGISTRY.get("DN348")()
    test_set = CommDataset(data.query + data.gallery, Transform(cfg), relabel=False)
    loader, _ = build_reid_test_loader(
        test_set=test_set, test_batch_size=16, num_query=len(data.query), num_workers=1
    )
    print("images:", sum(len(batch["images"]) for batch in loader))
