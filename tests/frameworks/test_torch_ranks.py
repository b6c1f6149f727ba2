"""Training by several processes under torchrun: each record once over all ranks, and a state for any number of them."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

import headrace as hr
from packed import pack, shades
from ranks import TESTS, torchrun

pytest.importorskip("torch")

RUN = TESTS / "frameworks" / "run_torch_ranks.py"


def test_each_record_comes_once_and_a_run_goes_on_with_fewer_ranks_or_more(tmp_path: Path) -> None:
    ds = pack(shades(60), tmp_path / "ds", shards=2)
    wanted = [set(batch.ids) for batch in ds.loader(batch_size=12, seed=3)]
    two = ran(2, tmp_path, ds)
    assert [len(batch) for batch in two[0]["batches"]] == [6] * 5
    assert of_all(two) == wanted
    assert len({id_ for part in two for batch in part["batches"] for id_ in batch}) == 60
    assert two[0]["state"] == two[1]["state"] and two[0]["state"]["batch"] == 2
    state = tmp_path / "state.json"
    state.write_text(json.dumps(two[0]["state"]))
    for ranks in (1, 3):
        parts = ran(ranks, tmp_path, ds, state)
        assert [len(batch) for batch in parts[0]["batches"]] == [12 // ranks] * 3
        # With what two ranks had before it, each record of the epoch comes once.
        assert of_all(parts) == wanted[2:]


def ran(ranks: int, tmp_path: Path, ds: hr.Dataset, *state: Path) -> list[dict[str, Any]]:
    """What each rank says of its part."""
    out = tmp_path / f"{ranks}-ranks"
    out.mkdir()
    torchrun(ranks, RUN, ds.path, out, *state, folder=tmp_path)
    return [json.loads((out / f"{rank}.json").read_text()) for rank in range(ranks)]


def of_all(parts: list[dict[str, Any]]) -> list[set[str]]:
    """The records of each batch of all ranks together, each of which comes once."""
    whole = [list(itertools.chain(*batches)) for batches in zip(*(part["batches"] for part in parts), strict=True)]
    assert all(len(set(batch)) == len(batch) for batch in whole)
    return [set(batch) for batch in whole]
