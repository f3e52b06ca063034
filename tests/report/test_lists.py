from __future__ import annotations

from pathlib import Path

import pytest

from dnreid_plugins import __main__ as command
from dnreid_plugins.report.lists import KINDS, text_of
from dnreid_plugins.runtime.shipped import systems

EXPECTED = {
    "methods": ["CIA/dnmini/cia ", "ClusterNCE + MAA + DGM", "BridgingDayNight/dnmini/full", "PCLHD "],
    "parts": ["CPML ", "GlareSuppression ", "DomainClusters ", "TransferByVote ", "DictionaryMatcher "],
    "datasets": ["DN348 ", "DayNightFolder ", "Market1501,"],
    "configs": ["CIA/dn348 ", "BridgingDayNight/regdb ", "DNMini/supervised "],
    "backbones": ["build_clip_vit_backbone ", "build_resnet_backbone,"],
}


@pytest.mark.parametrize("kind", sorted(EXPECTED))
def test_a_list_names_what_there_is(
    kind: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert KINDS.keys() == EXPECTED.keys()
    monkeypatch.setattr("sys.argv", ["dnreid_plugins", "list", kind])
    command.main()
    text = capsys.readouterr().out
    assert all(name in text for name in EXPECTED[kind])


def test_every_system_is_a_method_with_its_labels() -> None:
    rows = [line.split() for line in text_of("methods").split("\n\n")[0].splitlines()[2:]]
    assert [row[0] for row in rows] == sorted(systems())
    supervised = {row[0] for row in rows if row[1] == "identities"}
    assert supervised == {"AGW", "CAJ", "DCLNet", "DNDM"} and all("dn348" in " ".join(row) for row in rows)


def test_the_files_that_are_listed_exist() -> None:
    paths = [line.split()[-1] for line in text_of("configs").splitlines()[2:]]
    assert len(paths) > 20 and all(Path(path).is_file() for path in paths)
