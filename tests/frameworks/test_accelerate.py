"""Accelerate with a TorchFeed: nothing is dealt out twice, and a checkpoint of it goes on in mid-epoch."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from packed import pack, shades
from ranks import TESTS, torchrun

pytest.importorskip("torch")
if importlib.util.find_spec("accelerate") is None:
    pytest.skip("accelerate is not installed", allow_module_level=True)

RUN = TESTS / "frameworks" / "run_with_torchvision.py"


def test_two_ranks_have_each_record_once_and_go_on(tmp_path: Path) -> None:
    ds = pack(shades(60), tmp_path / "ds")
    torchrun(2, RUN, TESTS / "frameworks" / "run_accelerate.py", ds.path, tmp_path, folder=tmp_path)
    ranks = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    batches = [[part["whole"][i][0] for part in ranks] for i in range(5)]
    wanted = [[int(id_) for id_ in batch.ids] for batch in ds.loader(batch_size=12, seed=3)]
    assert [one + two for one, two in batches] == wanted
    for part in ranks:
        assert part["resumed"] == part["whole"][2:]
        assert "Accelerate would deal that out once more; pass the feed itself to prepare()" in part["refused"]
