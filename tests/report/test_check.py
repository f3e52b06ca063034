"""``dnreid check``: every seeded fault is found and named, nothing else is, and the exit code says it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from fastreid.config import get_cfg
from PIL import Image

from dnreid_plugins.commands import app
from dnreid_plugins.data import survey
from dnreid_plugins.data.datasets import configure
from dnreid_plugins.data.items import DomainItem
from dnreid_plugins.data.protocols import both_directions, same_identity_and_camera
from dnreid_plugins.data.survey import look_at, removals_of


@pytest.fixture(autouse=True)
def _fresh_settings() -> object:
    yield
    configure(get_cfg())


def picture(
    path: Path, seed: int, *, mode: str = "RGB", size: tuple[int, int] = (10, 14), **kwargs: object
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(values).convert(mode).save(path, **kwargs)  # type: ignore[arg-type]
    return path


def checked(*words: object, out: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict, str]:
    code = 0
    try:
        app.main(["check", *map(str, words), "--json", str(out)])
    except SystemExit as left:
        code = int(left.code or 0)
    return code, json.loads(out.read_text()), capsys.readouterr().out


@pytest.fixture
def crops(tmp_path: Path) -> Path:
    """Forty good images without identities by day and by night."""
    for number in range(80):
        domain = ("day", "night")[number % 2]
        picture(tmp_path / domain / f"{number}.jpg", number, size=(10 + number, 14))
    return tmp_path


def folders(crops: Path) -> list[object]:
    return ["--day", crops / "day", "--night", crops / "night"]


def test_good_folders_can_be_trained_on(
    crops: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, found, text = checked(*folders(crops), out=tmp_path / "new" / "out.json", capsys=capsys)
    assert code == 0 and "Training can start." in text and not found["unreadable"]
    day = found["train"]["day"]
    assert day["images"] == 40 and day["kinds"] == {"JPEG RGB": 40} and day["identities"] == 0
    assert day["width"] == [10, 49, 88] and day["height"] == [14, 14, 14]
    assert found["protocol"] == "" and "there is no mAP" in text and "without identities" in text
    assert len(found["warnings"]) == 1 and not any(found["duplicates"]["within"].values())


def test_seeded_faults_are_found(crops: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = (crops / "day" / "0.jpg").read_bytes()
    hostile = crops / "day" / "<script>\n'x'.png"
    hostile.write_bytes(b"no picture")
    (crops / "night" / "cut.jpg").write_bytes(first[: len(first) // 2])
    (crops / "night" / "empty.png").touch()
    (crops / "night" / "both.jpg").write_bytes(first)
    (crops / "day" / "again.jpg").write_bytes((crops / "day" / "2.jpg").read_bytes())
    (crops / "night" / "nowhere.jpg").symlink_to(tmp_path / "gone.jpg")
    code, found, text = checked(*folders(crops), out=tmp_path / "out.json", capsys=capsys)
    assert code == 1 and "Training cannot start:" in text and "DATASETS.SKIP_BAD True" in text
    names = {Path(path).name for path in found["unreadable"]}
    assert names == {hostile.name, "cut.jpg", "empty.png", "nowhere.jpg"}
    assert repr(str(hostile)) in text and "<script>\n" not in text, "a name cannot break the lines"
    within = found["duplicates"]["within"]
    assert [sorted(Path(path).name for path in group) for group in within["day"]] == [["2.jpg", "again.jpg"]]
    assert within["night"] == []
    assert [[Path(path).name for path in group] for group in found["duplicates"]["across"]] == [
        ["0.jpg", "both.jpg"]
    ]
    assert "1 day images are copies" in text and "1 images are both among the day and among the night" in text
    assert found["train"]["day"]["images"] == 41 and found["train"]["night"]["images"] == 41


def test_a_table_with_identities_and_a_test_half(
    crops: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = ["path,domain,id,camera,split"]
    for number in range(80):
        split = "test" if number >= 60 else "train"
        rows.append(
            f"{('day', 'night')[number % 2]}/{number}.jpg,{number % 2},{number // 4},cam{number % 3},{split}"
        )
    (crops / "day" / "copy.jpg").write_bytes((crops / "day" / "0.jpg").read_bytes())
    rows.append("day/copy.jpg,day,19,cam0,test")
    (crops / "mine.csv").write_text("\n".join(rows))
    code, found, text = checked("--csv", crops / "mine.csv", out=tmp_path / "out.json", capsys=capsys)
    assert code == 0 and found["shared"] == 15 and found["train"]["day"]["identities"] == 15
    assert len(found["train"]["night"]["cameras"]) == 3
    assert found["test"]["day"]["images"] == 11 and found["test"]["night"]["images"] == 10
    assert found["protocol"].startswith("DayNightTable: D2N 11 queries, 10 in the gallery")
    assert found["removals"][0] == {"direction": "D2N", "pairs": 110, "removed": 0, "without_match": 0}
    assert [Path(path).name for path in found["leaked"]] == ["copy.jpg"] and "also training images" in text
    # Little is left of the training half.
    few = [
        rows[0],
        *(row for row in rows[1:] if row.endswith("test") or row.startswith(("day/0", "night/1."))),
    ]
    (crops / "mine.csv").write_text("\n".join(few))
    code, found, text = checked("--csv", crops / "mine.csv", out=tmp_path / "out.json", capsys=capsys)
    assert code == 0 and "2 images, fewer than a batch" in text


def test_a_registered_set_and_a_wrong_name(
    tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FASTREID_DATASETS", str(tiny_root))
    code, found, _ = checked("--data", "dn-348", out=tmp_path / "out.json", capsys=capsys)
    assert code == 0 and found["name"] == "DN348" and found["train"]["day"]["images"] == 36
    assert any("differs from the published data set" in note for note in found["notes"])
    with pytest.raises(
        SystemExit, match="^error: There is no data set 'dn347' with two domains; did you mean DN348"
    ):
        app.main(["check", "--data", "dn347"])


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "not said which images to check; give one of"),
        (["--data", "dn348", "--csv", __file__], "not said which images"),
        (["--day", "gone"], "--day is given without --night"),
        (["--day", ".", "--night", "gone"], "--night is 'gone', which is not a folder"),
        (["--csv", "gone.csv"], "--csv is 'gone.csv', which is not a file"),
        (["--day", ".", "--night", ".", "--json", "."], "--json is '.', which cannot be written"),
        (["--day", ".", "--night", ".", "--csv", __file__], "Both --csv and --day"),
        (["--dy", "."], "No such option.*--dy.*`dnreid check --help`"),
    ],
)
def test_what_cannot_be_checked_is_one_sentence(words: list[str], sentence: str) -> None:
    with pytest.raises(SystemExit, match=f"^error: .*{sentence}") as left:
        app.main(["check", *words])
    assert "\n" not in str(left.value)


def test_no_readable_image_in_a_domain_is_the_end(
    crops: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (crops / "night").iterdir():
        path.write_bytes(b"x")
    code, found, _ = checked(*folders(crops), out=tmp_path / "out.json", capsys=capsys)
    assert code == 1 and found["objections"] == [
        "No night image can be read; both domains need at least one."
    ]


def test_every_type_of_image_is_described(tmp_path: Path) -> None:
    lying = Image.Exif()
    lying[274] = 6
    kinds = {
        picture(tmp_path / "cmyk.jpg", 0, mode="CMYK"): ("JPEG CMYK", (10, 14)),
        picture(tmp_path / "grey.png", 0, mode="L"): ("PNG L", (10, 14)),
        picture(tmp_path / "sixteen.png", 0, mode="I;16"): ("PNG I;16", (10, 14)),
        picture(tmp_path / "lying.jpg", 0, exif=lying): ("JPEG RGB", (14, 10)),
        picture(tmp_path / "named.png", 0, format="BMP"): ("BMP RGB", (10, 14)),
    }
    moving = tmp_path / "moving.gif"
    frames = [Image.new("L", (9, 9), value) for value in (0, 200)]
    frames[0].save(moving, save_all=True, append_images=frames[1:])
    kinds[moving] = ("GIF P animated", (9, 9))
    for path, (kind, size) in kinds.items():
        facts = look_at(str(path))
        assert (facts.kind, facts.size, facts.problem) == (kind, size, ""), path.name
    huge = picture(tmp_path / "huge.png", 0)
    damaged = bytearray(huge.read_bytes())
    damaged[16:24] = (50000).to_bytes(4, "big") * 2  # a header that promises 2.5 gigapixels
    huge.write_bytes(bytes(damaged))
    assert "cannot be read" in look_at(str(huge)).problem


def test_removals_are_counted_pair_by_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(survey, "_QUERIES", 2)
    rng = np.random.default_rng(1)
    items = [DomainItem(str(i), int(rng.integers(4)), int(rng.integers(2)), i % 2) for i in range(23)]
    protocol = both_directions("x", [item.domain for item in items])
    object.__setattr__(protocol, "removal", same_identity_and_camera)
    for found, one in zip(removals_of(items, protocol), protocol.directions, strict=True):
        pairs = [(items[q], items[g]) for q in one.query for g in one.gallery]
        removed = [q.pid == g.pid and q.camid == g.camid for q, g in pairs]
        lost = sum(
            not any(items[q].pid == items[g].pid and items[q].camid != items[g].camid for g in one.gallery)
            for q in one.query
        )
        assert (found.pairs, found.removed, found.without_match) == (len(pairs), sum(removed), lost)
        assert found.removed > 0 and found.without_match >= 0
