"""Every key that we add to fast-reid's config, each with its default and a sentence.

A loss head's keys live under ``MODEL.LOSSES.<NAME IN CAPITALS>``; its weight is piecewise constant in the
epoch: ``WEIGHT: ((1, 0.5), (51, 0.3))`` means 0.5 from epoch 1 on and 0.3 from epoch 51 on (epochs count
from 1). Keys marked "paper silent" are our choice, not the authors'.
"""

from __future__ import annotations

from fastreid.config import CfgNode


def extend_defaults() -> None:
    """Add our keys to the defaults that ``fastreid.config.get_cfg()`` hands out. Calling it twice is harmless."""
    from fastreid.config.defaults import _C

    if "CLUSTER" not in _C:
        add_config(_C)


def add_config(cfg: CfgNode) -> None:
    """Add our keys with their defaults to ``cfg``."""
    # One seed for weights, sampling and augmentation. The same seed, machine and thread count give the same bits.
    cfg.SEED = 0
    # On a GPU: kernels whose sums have one order, at some cost in speed; those without such a kernel warn. A CPU
    # needs no switch. CUDNN_BENCHMARK must stay False for it, since it chooses kernels by their time.
    cfg.DETERMINISTIC = True
    _add_model_config(cfg)
    _add_loss_config(cfg)
    _add_cluster_config(cfg)
    _add_run_config(cfg)
    # Rooms with many keys of their own keep them beside their code.
    from .data.transforms import add_input_config
    from .engine.extra_hooks import add_extra_config
    from .modeling.clip import add_clip_config
    from .modeling.prompts import add_prompt_config

    for add in (add_input_config, add_clip_config, add_prompt_config, add_extra_config):
        add(cfg)


def _add_model_config(cfg: CfgNode) -> None:
    cfg.MODEL.DUAL_STREAM = CfgNode()
    # Sub-modules of the backbone that each domain gets its own copy of, e.g. ("conv1", "bn1", "layer1", "layer2"),
    # CIA's text; the code it cites separates ("conv1", "bn1") only (U26).
    # Empty: both domains share the whole backbone.
    cfg.MODEL.DUAL_STREAM.MODULES = ()
    # How batch norm of the shared part sees the two domains: "joint" (one concatenated pass), "separate" (one pass
    # per domain, running statistics mixed) or "frozen" (the running statistics of the start are used and kept).
    cfg.MODEL.DUAL_STREAM.SHARED_BN = "joint"
    # What images are whose domain nobody says, as in fast-reid's demo.py and onnx_export.py: "day", "night", or ""
    # (a model with two streams refuses them).
    cfg.MODEL.DUAL_STREAM.ASSUME_DOMAIN = ""

    # Keep images and convolution weights in channels-last order; often faster, same values up to rounding.
    cfg.MODEL.CHANNELS_LAST = False
    # With several processes batch norm uses the statistics of the global batch, as a single process would. False:
    # each process uses its own images, which is faster and trains something else.
    cfg.MODEL.SYNC_BN = True

    cfg.MODEL.MEMORY = CfgNode()
    # Share of the old row that an update keeps (0.1: the row follows the newest images); CIA silent (U4).
    cfg.MODEL.MEMORY.MOMENTUM = 0.1
    # Which images of a cluster update its row (CIA silent, U4): "sequential" (each in turn), "mean" or "hardest".
    cfg.MODEL.MEMORY.UPDATE = "sequential"
    # Features of outliers become rows of their own that are never updated (Bridging Day and Night, as released).
    cfg.MODEL.MEMORY.OUTLIER_ROWS = False


def _add_loss_config(cfg: CfgNode) -> None:
    losses = cfg.MODEL.LOSSES
    # ClusterNCE: contrast of a feature with the cluster rows of its own domain (CIA Eq. 2-3).
    losses.CLUSTERNCE = CfgNode({"WEIGHT": ((1, 1.0),)})
    # Softmax temperature; CIA silent (U3), 0.05 is ADCA's and ClusterContrast's.
    losses.CLUSTERNCE.TEMPERATURE = 0.05
    _add_cia_config(losses)
    _add_bridging_config(losses)


def _add_cia_config(losses: CfgNode) -> None:
    """CIA (paper-cia numbering U1-U29 for the points on which the paper is silent) and its rivals."""
    # DGM: dictionary-guided graph matching, L_d2n + L_n2d (Eq. 4-9); 0.3 from epoch 51 on in the paper.
    losses.DGM = CfgNode({"WEIGHT": ((51, 0.3),)})
    # Temperature of Eq. 8; paper silent (U3).
    losses.DGM.TEMPERATURE = 0.05
    # How the dictionary scores a pair of clusters (Table 4): continuous, discrete, fixed or direct.
    losses.DGM.SCORING = "continuous"
    # alpha and S_tau of Eq. 5.
    losses.DGM.ALPHA = 0.2
    losses.DGM.SIMILARITY_THRESHOLD = 0.5
    # T_0 and final value of the ramp, Eq. 6.
    losses.DGM.THRESHOLD_START = 0.7
    losses.DGM.THRESHOLD_FINAL = 1.15
    # T_epo over the whole run ("global") or from the first epoch with a weight > 0 on ("stage"); paper ambiguous (U2).
    losses.DGM.PROGRESS = "global"
    # Cost of a pair below the threshold, G_p of Eq. 7; paper silent (U8).
    losses.DGM.PENALTY = 1.0
    # When no pair reaches the threshold: "skip" the loss, "keep_last" matching or "cap" the threshold; paper silent.
    losses.DGM.ON_EMPTY = "skip"
    # Match in stage 1 too; paper silent (U22). The loss stays out, the matching goes to MAA's class factor, to
    # MarginMMD's groups and, with DATALOADER.PAIRED, to the sampler.
    losses.DGM.MATCH_ALWAYS = False
    # Match clusters that are left over once more, among all clusters of the other domain; paper silent (U9).
    losses.DGM.SECOND_ROUND = False
    # Let matched features move the other domain's rows as PGM's code does; paper silent (U6).
    losses.DGM.UPDATE_OTHER = False

    # MAA: multi-factor adaptive alignment (Eq. 10-14); 0.5, then 0.3 from epoch 51 on in the paper.
    losses.MAA = CfgNode({"WEIGHT": ((1, 0.5), (51, 0.3))})
    # alpha_0 of Eq. 12-13; paper silent (U12). Above 1 the loss rewards collapse, see the reference.
    losses.MAA.ALPHA_0 = 1.0
    # S_0 of Eq. 12; paper silent (U13).
    losses.MAA.S_0 = 0.1
    # w_1 of Eq. 11 and the class factor of Eq. 13, from the paper.
    losses.MAA.INTRA_DAY = 0.30
    losses.MAA.INTRA_NIGHT = 0.35
    losses.MAA.CLASS_FACTOR = 1.1
    # "neck": the unit feature of Eq. 2; "pooled": before the batch-norm neck; paper silent (U18).
    losses.MAA.FEATURE = "neck"
    # Gaussians in the kernel's sum, 1 = a single one; paper silent (U15), 5 is MMD-ReID's.
    losses.MAA.NUM_KERNELS = 5

    # CMA: ADCA's memory aggregation; a weight above 0 switches it on, it adds no loss.
    losses.CMA = CfgNode({"WEIGHT": ((51, 1.0),)})
    losses.CMA.SIMILARITY_THRESHOLD = 0.5
    losses.CMA.MOMENTUM = 0.1
    # As released: only the day rows change and they are not renormalised.
    losses.CMA.ONE_SIDED = False

    # PGM: progressive graph matching with alternating cross contrast.
    losses.PGM = CfgNode({"WEIGHT": ((51, 0.25),)})
    losses.PGM.TEMPERATURE = 0.05
    # Rounds of Hungarian matching; 0 = until every cluster of the larger side has a partner (released: 2).
    losses.PGM.MAX_ROUNDS = 0
    losses.PGM.ALTERNATE = True

    # MMD and Margin-MMD of MMD-ReID as plug-ins; weights as MAA's.
    losses.MMD = CfgNode({"WEIGHT": ((1, 0.5), (51, 0.3)), "FEATURE": "neck", "NUM_KERNELS": 5})
    losses.MARGINMMD = CfgNode({"WEIGHT": ((1, 0.5), (51, 0.3)), "FEATURE": "neck", "NUM_KERNELS": 5})
    # Margin per matched pair of clusters, as released per identity.
    losses.MARGINMMD.MARGIN = 1.4
    # Margin while nothing is matched and the whole batch is one group; MMD-ReID has no such case.
    losses.MARGINMMD.BATCH_MARGIN = 0.0


def _add_bridging_config(losses: CfgNode) -> None:
    """Stage 2 of Bridging Day and Night; T1-T7 are facts about the released code (see the project's README)."""
    # PrototypeClassifier: linear layers set to the prototypes at each epoch's start (Eq. 7/8).
    losses.PROTOTYPECLASSIFIER = CfgNode({"WEIGHT": ((1, 1.0),), "SMOOTHING": 0.1})

    # ImageText: images against the text features of their prompts (Eq. 9); needs stage 1, see PROMPT_STAGE.
    losses.IMAGETEXT = CfgNode({"WEIGHT": ((1, 1.0),)})
    # "cluster": text centroids of the clusters in the batch (Eq. 9); "instance": each image and its own text.
    losses.IMAGETEXT.ALIGNMENT = "cluster"
    losses.IMAGETEXT.SMOOTHING = 0.1
    # The bias net sees unit features as in stage 1; False: as released, neck features as they are (T4).
    losses.IMAGETEXT.UNIT_INPUT = True
    # As released: gradient also goes through bias net and text tower (T5). False: texts are constants of a step.
    losses.IMAGETEXT.THROUGH_TEXT = False

    # CPML: cross-domain prototype matching (Eq. 10-13).
    losses.CPML = CfgNode({"WEIGHT": ((1, 1.0),)})
    # What learns: "instance", "batch_centroid", "classifier" or "as_released" (nothing, T1).
    losses.CPML.VARIANT = "instance"
    # Neighbours per cluster; the released code has 15, keep it well below the number of clusters.
    losses.CPML.TOP_K = 15
    losses.CPML.TEMPERATURE = 0.07


def _add_cluster_config(cfg: CfgNode) -> None:
    cfg.CLUSTER = CfgNode()
    # K1, K2, EPS and MIN_SAMPLES: CIA silent (U24), these are ADCA's; images that are in no cluster are left out.
    # Neighbours of the k-reciprocal encoding; keep K1 below the images per identity and domain.
    cfg.CLUSTER.K1 = 30
    # Neighbours of the local query expansion.
    cfg.CLUSTER.K2 = 6
    # Largest Jaccard distance between neighbours of one cluster.
    cfg.CLUSTER.EPS = 0.6
    # Neighbours (the image itself included) that make an image a core of a cluster.
    cfg.CLUSTER.MIN_SAMPLES = 4
    # Which feature is clustered and makes the prototypes: "after" the batch-norm neck, the one that is compared at
    # test time, or "before" it, as Bridging Day and Night's released code does (T2).
    cfg.CLUSTER.FEATURE = "after"
    # Cluster on the mean of an image's feature and its mirror image's; CIA silent (U29).
    cfg.CLUSTER.FLIP = True
    # A domain without any cluster: "widen" raises EPS by 0.05 at a time up to 0.9 and then skips the domain for the
    # epoch, "skip" leaves the domain out at once, "stop" ends the run with a sentence.
    cfg.CLUSTER.ON_EMPTY = "widen"


def _add_run_config(cfg: CfgNode) -> None:
    # Optimizer steps per epoch; 0 = training images // IMS_PER_BATCH, as in fast-reid. CIA silent (U25).
    cfg.DATALOADER.ITERS_PER_EPOCH = 0
    # Draw matched day and night clusters into the same batch once a matching exists (CIA, paper silent, U23).
    cfg.DATALOADER.PAIRED = False
    # Which of RegDB's ten train/test splits is used.
    cfg.DATASETS.REGDB_TRIAL = 1
    # DN-Wild: every test image is a query, not only those of the query lists; CIA silent (U28).
    cfg.DATASETS.DNWILD_ALL_QUERIES = False
    # Seed of the rendered data set DNMini; 0 is the published one.
    cfg.DATASETS.DNMINI_SEED = 0
    # The two folders of DayNightFolder; empty: day/ and night/ in $FASTREID_DATASETS or in the one folder there that
    # holds both.
    cfg.DATASETS.DAY_DIR = ""
    cfg.DATASETS.NIGHT_DIR = ""
    # What the sub-folders of DayNightFolder are: "folders" = identities, "none" = nothing, "auto" = identities if
    # every image lies in one and both domains share some.
    cfg.DATASETS.FOLDER_IDS = "auto"
    # Train without the images that cannot be read; False: name them all and stop before the training.
    cfg.DATASETS.SKIP_BAD = False
    # Epochs (counted from 1) at which optimizer and learning-rate schedule start afresh; () = one schedule. CIA
    # silent (U1).
    cfg.SOLVER.STAGES = ()
    # Newest periodic checkpoints that are kept.
    cfg.SOLVER.CHECKPOINT_KEEP = 2
    # Write a checkpoint at least every so many minutes, inside an epoch too; 0 = at epoch ends only.
    cfg.SOLVER.CHECKPOINT_MINUTES = 0.0
    # Number format of automatic mixed precision: "float16" (with loss scaling) or "bfloat16".
    cfg.SOLVER.AMP.DTYPE = "float16"
    # Also report day-in-day and night-in-night retrieval (the image itself removed).
    cfg.TEST.WITHIN_DOMAIN = False
    # Evaluate the start before the first epoch.
    cfg.TEST.EVAL_START = True
    cfg.AUDIT = CfgNode()
    # Every so many iterations log each loss head's gradient norm at the features; 0 = never.
    cfg.AUDIT.PERIOD = 50
