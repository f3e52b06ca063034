"""The refiner that holds to what a person has said: its file, its paths, a whole run with it, and a cut one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from fastreid.config import CfgNode
from grouped_rows import grouped
from run_helpers import cut_and_resumed, same, train, weights

from dnreid_plugins.engine.epoch_state import epoch_from_state, epoch_to_state
from dnreid_plugins.engine.trainer import CrossDomainTrainer
from dnreid_plugins.functional.types import Epoch, TrainImages
from dnreid_plugins.labels.base import make_clusters
from dnreid_plugins.labels.corrections import CorrectionRow, Corrections, read_corrections, said_of


def table(file: Path, *rows: str, header: str = "path,same,apart") -> str:
    file.write_text("\n".join([header, *rows]) + "\n")
    return str(file)


def test_the_file_is_read(tmp_path: Path) -> None:
    names = ['a "quoted", name.png', "zwei\nzeilen.png", "ночь.png"]
    quoted = ['"' + name.replace('"', '""') + '"' for name in names]
    file = table(tmp_path / "x.csv", f"{quoted[0]},3,4 0", f"{quoted[1]},-1,", f"{quoted[2]},,3", "b.png,,")
    assert read_corrections(file) == [
        CorrectionRow(names[0], 3, (0, 4)),
        CorrectionRow(names[1], -1, ()),
        CorrectionRow(names[2], None, (3,)),
    ]
    assert read_corrections(table(tmp_path / "y.csv", "a.png,2", header="path,same")) == [
        CorrectionRow("a.png", 2, ())
    ]
    assert read_corrections(table(tmp_path / "z.csv")) == []


@pytest.mark.parametrize(
    ("rows", "header", "reason"),
    [
        (["a,1"], "file,same", "it has no column 'path'"),
        (["a,x,"], "path,same,apart", "line 2 has a group that is no whole number"),
        (["a,1,", "b,-2,"], "path,same,apart", "line 3 has a negative group"),
        (["a,1,0 -1"], "path,same,apart", "line 2 has a negative group"),
        (["a,1,2 1"], "path,same,apart", "line 2 says that the image is, and is not, of group 1"),
        ([",1,"], "path,same,apart", "line 2 has no path"),
        (["a,1,", "a,2,"], "path,same,apart", "line 3 says something else of 'a'"),
    ],
)
def test_a_wrong_file_is_refused_in_one_sentence(
    tmp_path: Path, rows: list[str], header: str, reason: str
) -> None:
    with pytest.raises(ValueError) as caught:
        Corrections(file=table(tmp_path / "x.csv", *rows, header=header))
    expected = (
        f"LABELS.CORRECTIONS.FILE {str(tmp_path / 'x.csv')!r} cannot be used: {reason}; export it again with"
    )
    assert str(caught.value).startswith(expected) and "\n" not in str(caught.value)


def test_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"LABELS\.CORRECTIONS\.FILE is empty"):
        Corrections()
    with pytest.raises(ValueError, match="No such file or directory"):
        Corrections(file=str(tmp_path / "none.csv"))
    (tmp_path / "x.csv").write_bytes(b"\xff\xfe\0\0")
    with pytest.raises(ValueError, match="cannot be used"):
        Corrections(file=str(tmp_path / "x.csv"))


def test_images_that_have_moved_are_known_by_the_last_parts_of_their_paths() -> None:
    rows = [CorrectionRow("/old/set/day/1/0.png", 7, (9,)), CorrectionRow("/old/set/day/1/1.png", 9, ())]
    moved = ["/new/set/day/1/0.png", "/new/set/day/1/1.png", "/new/set/day/2/0.png"]
    said, missing = said_of(rows, moved)
    assert (said.same.tolist(), said.apart.tolist(), missing) == ([0, 1, -1], [[1, 0]], 0)
    # Two images with the same last parts: only the whole path says which one is meant.
    said, missing = said_of(rows, ["/a/day/1/0.png", "/b/day/1/0.png", "/old/set/day/1/1.png"])
    assert (said.same.tolist(), missing) == ([-1, -1, 0], 1)
    assert said_of([], moved)[0].same.tolist() == [-1, -1, -1]


def clustered(labels: list[int], domains: list[int]) -> tuple[Epoch, TrainImages]:
    rows, which = grouped(len(labels), 0), torch.tensor(domains)
    parts = {}
    for domain, name in enumerate(("day", "night")):
        own = torch.nonzero(which == domain).flatten()
        parts[name] = make_clusters(torch.tensor(labels)[own], rows[own], own)
    paths = tuple(f"/{number}.png" for number in range(len(labels)))
    return Epoch(1, 2, parts), TrainImages(which, which, None, paths)


def test_joint_clusters_and_centroids_follow(tmp_path: Path) -> None:
    epoch, images = clustered([0, 0, 1, 1, 0, 0, 1, 1], [0] * 4 + [1] * 4)
    joint = make_clusters(torch.tensor([0, 0, 1, 1, 2, 2, 3, 3]), grouped(8, 0), torch.arange(8))
    epoch = Epoch(1, 2, {**epoch.clusters, "joint": joint})
    rows = [f"/{number}.png,5," for number in (0, 1, 2, 3, 6, 7)]
    after = Corrections(file=table(tmp_path / "x.csv", *rows))(epoch, joint.features, images)
    assert after.day.labels.tolist() == [0] * 4 and after.day.num_clusters == 1
    assert after.night is epoch.night, "clusters of which nothing is said keep their centroids"
    assert after.clusters["joint"].labels.tolist() == [0, 0, 0, 0, 1, 1, 0, 0]
    mean = torch.nn.functional.normalize(epoch.day.features.mean(dim=0), dim=0)
    torch.testing.assert_close(after.day.centroids[0], mean)
    assert after.known is not None and after.known.same.tolist() == [[0, 1]]
    assert after.figures["corrections/changed"] == 2 and after.figures["corrections/same"] == 6


def test_other_processes_get_what_is_known_and_counted(tmp_path: Path) -> None:
    epoch, images = clustered([0, 0, 1, 1, 0, 0, 1, 1], [0] * 4 + [1] * 4)
    rows = ["/0.png,1,", "/1.png,1,", "/6.png,1,", "/7.png,1,", "/4.png,,1"]
    features = grouped(8, 0)
    after = Corrections(file=table(tmp_path / "x.csv", *rows))(epoch, features, images)
    assert after.known is not None
    sent = epoch_from_state(epoch_to_state(after, with_features=False), features)
    assert sent.figures == after.figures and sent.known is not None
    assert sent.known.same.tolist() == after.known.same.tolist() == [[0, 1]]
    assert sent.known.apart.tolist() == after.known.apart.tolist() == [[0, 0]]
    assert epoch_from_state(epoch_to_state(epoch)).known is None


@pytest.fixture
def corrected_cfg(tiny_cfg: CfgNode, tmp_path: Path) -> CfgNode:
    """A run whose file calls all images of two vehicles one by day, matches them with one at night, and so on."""
    tiny_cfg.LABELS.REFINERS = ("Corrections",)
    tiny_cfg.MODEL.LOSSES.NAME = ("ClusterNCE", "PGM")
    tiny_cfg.CLUSTER.EPS = 0.5
    rows = [f"elsewhere/day/{vehicle:05d}/{image:03d}.png,1," for vehicle in (0, 1) for image in range(6)]
    rows += [f"elsewhere/night/00000/{image:03d}.png,1," for image in range(6)]
    rows += [f"elsewhere/night/00003/{image:03d}.png,2,1" for image in range(3)]
    rows += [f"elsewhere/night/00003/{image:03d}.png,,2" for image in range(3, 6)]
    rows += ["elsewhere/day/00002/000.png,-1,", "elsewhere/day/00999/000.png,4,"]
    tiny_cfg.LABELS.CORRECTIONS.FILE = table(tmp_path / "labels.csv", *rows)
    return tiny_cfg


def test_a_run_trains_on_corrected_labels_and_resumes(corrected_cfg: CfgNode) -> None:
    whole = train(corrected_cfg)
    epoch, images = whole.parts.epoch, whole.train_data.images
    number = {"/".join(Path(path).parts[-3:]): place for place, path in enumerate(images.paths)}
    day = {path: int(epoch.targets("day", torch.tensor([place]))) for path, place in number.items()}
    night = {path: int(epoch.targets("night", torch.tensor([place]))) for path, place in number.items()}
    merged = {day[f"day/{vehicle:05d}/{image:03d}.png"] for vehicle in (0, 1) for image in range(6)}
    partner = {night[f"night/00000/{image:03d}.png"] for image in range(6)}
    assert len(merged) == len(partner) == 1 and min(*merged, *partner) >= 0
    split, rest = (
        {night[f"night/00003/{image:03d}.png"] for image in part} for part in (range(3), range(3, 6))
    )
    assert len(split) == 1 and min(split) >= 0 and not split & rest
    assert day["day/00002/000.png"] == -1
    (a,), (b,) = merged, partner
    for matching in epoch.matchings.values():
        assert matching.day_to_night[a] == b and matching.night_to_day[b] == a
    targets = whole.step_trainer.pseudo_labels
    assert targets is not None and torch.equal(targets[epoch.day.indices], epoch.day.labels)

    folder = Path(corrected_cfg.OUTPUT_DIR)
    health = [json.loads(line) for line in (folder / "health.jsonl").read_text().splitlines()]
    for line in health:
        said = {key.partition("/")[2]: value for key, value in line.items() if key.startswith("corrections/")}
        assert said.pop("changed") >= 6
        assert said == {"same": 21, "left_out": 1, "pairs": 1, "missing": 1}
    results = json.loads((folder / "results.json").read_text())
    assert any("files of the labels" in str(entry) for entry in (results, *results.values()))

    corrected_cfg.OUTPUT_DIR += "-cut"
    resumed = cut_and_resumed(corrected_cfg, 6)
    assert same(weights(resumed), weights(whole))
    assert resumed.parts.epoch.figures == epoch.figures
    assert torch.equal(resumed.parts.epoch.known.same, epoch.known.same)


def test_a_resumed_run_refuses_other_corrections(corrected_cfg: CfgNode) -> None:
    corrected_cfg.SOLVER.MAX_EPOCH, corrected_cfg.SOLVER.STEPS = 1, []
    corrected_cfg.TEST.EVAL_START = False
    train(corrected_cfg)
    file = Path(corrected_cfg.LABELS.CORRECTIONS.FILE)
    file.write_text(file.read_text().replace("day/00002/000.png,-1", "day/00002/001.png,-1"))
    with pytest.raises(ValueError, match="The data changed since this run began, files of the labels"):
        train(corrected_cfg, resume=True)


def test_corrections_of_other_images_are_refused_before_the_first_epoch(
    corrected_cfg: CfgNode, tmp_path: Path
) -> None:
    corrected_cfg.LABELS.CORRECTIONS.FILE = table(
        tmp_path / "other.csv", "/x/y/z/0.png,1,", "/x/y/z/1.png,1,"
    )
    with pytest.raises(
        ValueError,
        match=r"None of the 2 images of LABELS\.CORRECTIONS\.FILE .* is a training image, such as '.*\d\.png'",
    ):
        CrossDomainTrainer(corrected_cfg)
    # An empty list of corrections is none, and the run is the one without the refiner.
    corrected_cfg.LABELS.CORRECTIONS.FILE = table(tmp_path / "empty.csv")
    CrossDomainTrainer(corrected_cfg)
