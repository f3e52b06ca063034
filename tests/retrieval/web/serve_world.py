"""A gallery and a run with clusters, made with the tiny model, whose images have names that nobody expects."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from dnreid_plugins.retrieval.index import Index
from dnreid_plugins.retrieval.matcher import Matcher
from dnreid_plugins.retrieval.web.app import create_app
from dnreid_plugins.retrieval.web.site import Site

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from retrieval_world import trained_run
from tiny_run import tiny_config

NAMES = (
    "plain.png",
    "a b.png",
    "\"double\" 'single'.png",
    "<script>alert(1)<script>.png",
    "<img src=x onerror=alert(2)>.png",
    "new\nline.png",
    "{{ 7 * 7 }}.png",
    "ночь.png",
    os.fsdecode(b"\xff.png"),
)
HOST = "http://127.0.0.1:8000"
SENT = {"origin": HOST}
#: Images per cluster; day cluster d goes with night cluster 2 - d.
SIZE, CLUSTERS = 3, 3


def make_world(root: Path, tiny_root: Path) -> Path:
    """``root/gallery`` of the run ``root/run``; images of three vehicles by day and by night, three each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTREID_DATASETS", str(tiny_root))
        cfg = tiny_config(["OUTPUT_DIR", str(root / "run")])
        matcher = Matcher.load(trained_run(cfg))
    paths, domains, rows = [], [], ["path,domain,cluster,matched_cluster,score"]
    for domain in ("day", "night"):
        for number, name in enumerate(NAMES):
            vehicle, image = divmod(number, SIZE)
            path = root / "images" / domain / str(vehicle) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(tiny_root / "dn348" / domain / f"{vehicle:05d}" / f"{image:03d}.png", path)
            paths.append(str(path))
            domains.append(domain)
            cluster = vehicle if domain == "day" else 2 - vehicle
            pair = f"{2 - cluster},0.{5 + cluster if domain == 'day' else 7 - cluster}"
            rows.append('"{}",{},{},{}'.format(str(path).replace('"', '""'), domain, cluster, pair))
    Index.build(matcher, paths, domains, ids=[Path(path).parent.name for path in paths]).save(
        root / "gallery"
    )
    text = "\n".join(rows) + "\n"
    (root / "run" / "clusters.csv").write_bytes(text.encode("utf-8", "surrogateescape"))
    return root


def client(folder: Path) -> TestClient:
    return client_of(Site.open(folder))


def client_of(site: Site) -> TestClient:
    return TestClient(create_app(site), base_url=HOST, follow_redirects=False)
