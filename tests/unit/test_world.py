"""World: who says which process this is, what happens where they disagree, and a loader that asks too early."""

from __future__ import annotations

import pickle
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import headrace as hr
from headrace.errors import UsageError
from headrace.world import resolve
from packed import pack, shades


@pytest.fixture(autouse=True)
def _nobody_says(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("torch.distributed", "jax", "jax._src.distributed"):
        monkeypatch.delitem(sys.modules, name, raising=False)


def says(monkeypatch: pytest.MonkeyPatch, **parts: Any) -> None:
    """Lets the environment (`env`: a text "rank ranks", - for none), `torch` and `jax` say (rank, ranks)."""
    if "env" in parts:
        for name, text in zip(("RANK", "WORLD_SIZE"), parts["env"].split(" "), strict=True):
            if text != "-":
                monkeypatch.setenv(name, text)
    if "torch" in parts:
        pair, available = parts["torch"], parts["torch"] != "not built"
        torch = SimpleNamespace(is_available=lambda: available)
        if available:  # without it, a build of torch has none of these
            torch.is_initialized = lambda: pair is not None
            torch.get_rank, torch.get_world_size = (lambda: pair[0]), (lambda: pair[1])
        monkeypatch.setitem(sys.modules, "torch.distributed", torch)
    if "jax" in parts or "old_jax" in parts:
        met = parts.get("jax", parts.get("old_jax"))
        jax = SimpleNamespace(distributed=SimpleNamespace())
        if "jax" in parts:
            jax.distributed.is_initialized = lambda: met is not None
        else:
            private = SimpleNamespace(global_state=SimpleNamespace(client=met and object()))
            monkeypatch.setitem(sys.modules, "jax._src.distributed", private)
        if met is not None:  # else asking would start its devices
            jax.process_index, jax.process_count = (lambda: met[0]), (lambda: met[1])
        monkeypatch.setitem(sys.modules, "jax", jax)


FOUND: list[tuple[dict[str, Any], tuple[int, int]]] = [
    ({}, (0, 1)),
    ({"env": "2 4"}, (2, 4)),
    ({"env": "0 1"}, (0, 1)),
    ({"torch": (1, 3)}, (1, 3)),
    ({"torch": None}, (0, 1)),  # imported, and its processes have not met
    ({"torch": None, "env": "2 4"}, (2, 4)),
    ({"torch": "not built"}, (0, 1)),  # a build without torch.distributed
    ({"torch": (2, 4), "env": "2 4"}, (2, 4)),
    ({"torch": (1, 2), "env": "- 2"}, (1, 2)),  # Lightning's own launcher sets half of them
    ({"jax": (1, 3)}, (1, 3)),
    ({"jax": None}, (0, 1)),
    ({"old_jax": (1, 3)}, (1, 3)),
    ({"old_jax": None}, (0, 1)),
    ({"jax": (1, 3), "torch": None, "env": "1 3"}, (1, 3)),
    ({"jax": (1, 3), "torch": (1, 3)}, (1, 3)),
    ({"env": " "}, (0, 1)),  # both are set, to nothing
]


@pytest.mark.parametrize(("parts", "wanted"), FOUND)
def test_who_says(monkeypatch: pytest.MonkeyPatch, parts: dict[str, Any], wanted: tuple[int, int]) -> None:
    says(monkeypatch, **parts)
    assert resolve("auto") == wanted
    assert resolve((3, 5)) == (3, 5) and resolve(None) == (0, 1)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"env": "2 -"}, "RANK is '2' in the environment, and WORLD_SIZE is not set; set both"),
    ({"env": "- 4"}, "WORLD_SIZE is '4' in the environment, and RANK is not set; set both"),
    ({"env": "4 4"}, "in the environment RANK is '4', WORLD_SIZE is '4', wanted numbers with 0 <= RANK < WORLD_SIZE"),
    ({"env": "0 0"}, "RANK is '0', WORLD_SIZE is '0', wanted"),
    ({"env": "-1 4"}, "RANK is '-1', WORLD_SIZE is '4', wanted"),
    ({"env": "one 4"}, "RANK is 'one', WORLD_SIZE is '4', wanted"),
    ({"env": "1 4.0"}, "RANK is '1', WORLD_SIZE is '4.0', wanted"),
    ({"env": "1 ²"}, "WORLD_SIZE is '²', wanted"),  # a digit to str.isdigit, not to int
    ({"env": "1 4", "torch": (0, 4)}, "torch.distributed: rank 0 of 4, RANK and WORLD_SIZE: rank 1 of 4; unset"),
    ({"env": "1 4", "jax": (1, 2)}, "jax.distributed: rank 1 of 2, RANK and WORLD_SIZE: rank 1 of 4; unset"),
    ({"torch": (0, 2), "jax": (1, 2)}, "torch.distributed: rank 0 of 2, jax.distributed: rank 1 of 2; unset"),
    ({"env": "x 2", "torch": (0, 2)}, "RANK is 'x'"),
]


@pytest.mark.parametrize(("parts", "reason"), REFUSED)
def test_what_can_not_be_true(monkeypatch: pytest.MonkeyPatch, parts: dict[str, Any], reason: str) -> None:
    says(monkeypatch, **parts)
    with pytest.raises(UsageError) as raised:
        resolve("auto")
    assert reason in str(raised.value) and str(raised.value).startswith("world='auto': ")


@pytest.mark.parametrize("world", [(1, 1), (-1, 2), (0, 0), (0,), (0, 1, 2), "all", 3, (0.0, 1), ("0", "1"), (True, 2)])
def test_what_is_no_world(world: Any) -> None:
    with pytest.raises(UsageError, match=r"world is .*, wanted \(rank, size\) with 0 <= rank < size, or 'auto'"):
        resolve(world)


def test_numbers_of_numpy_and_lists_are_a_world() -> None:
    assert resolve((np.int64(1), np.int32(2))) == (1, 2)
    assert resolve([1, 2]) == (1, 2)  # type: ignore[arg-type]  # as JSON has it


# --- a loader --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ds(tmp_path_factory: pytest.TempPathFactory) -> hr.Dataset:
    return pack(shades(19), tmp_path_factory.mktemp("world") / "ds")


def test_a_loader_takes_the_part_that_was_found(monkeypatch: pytest.MonkeyPatch, ds: hr.Dataset) -> None:
    options: dict[str, Any] = {"batch_size": 6, "drop_last": True}
    parts = []
    for rank in range(3):
        says(monkeypatch, env=f"{rank} 3")
        loader = ds.loader(world="auto", **options)
        assert loader.world == (rank, 3)
        parts.append([batch.ids for batch in loader])
        assert parts[-1] == [batch.ids for batch in ds.loader(world=(rank, 3), **options)]
    joined = [sum(ids, ()) for ids in zip(*parts, strict=True)]
    assert joined == [batch.ids for batch in ds.loader(**options)]
    assert ds.loader(world=None).world == (0, 1)


def test_a_loader_that_was_made_too_early_says_so(monkeypatch: pytest.MonkeyPatch, ds: hr.Dataset) -> None:
    loader, given = ds.loader(world="auto", batch_size=6), ds.loader(world=(0, 1), batch_size=6)
    list(loader)
    says(monkeypatch, torch=(1, 2))
    for use in (iter, lambda loader: loader[0], lambda loader: loader.iterate()):
        with pytest.raises(UsageError, match=r"was rank 0 of 1 when the loader was made, and .* is rank 1 of 2 by now"):
            use(loader)
        use(given)  # who says a world means it


def test_a_copy_that_is_sent_to_ranks_says_so_as_well(monkeypatch: pytest.MonkeyPatch, ds: hr.Dataset) -> None:
    there = pickle.loads(pickle.dumps(ds.loader(batch_size=4, world="auto")))  # as a launcher's function is given it
    assert len(list(there)) == len(there)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match=r"was rank 0 of 1 when the loader was made, and .* is rank 1 of 2 by now"):
        next(iter(there))


def test_a_loader_stays_that_of_its_rank_when_nobody_knows_of_ranks(
    monkeypatch: pytest.MonkeyPatch, ds: hr.Dataset
) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    loader = ds.loader(batch_size=4, world="auto")
    wanted = [batch.ids for batch in loader]
    monkeypatch.delenv("RANK")
    monkeypatch.delenv("WORLD_SIZE")  # as after destroy_process_group
    loader.epoch = 0
    assert [batch.ids for batch in loader] == wanted


def test_a_copy_keeps_the_world_that_was_found(monkeypatch: pytest.MonkeyPatch, ds: hr.Dataset) -> None:
    says(monkeypatch, env="1 2")
    loader = ds.loader(world="auto", batch_size=6, drop_last=True)
    sent = pickle.dumps(loader)
    monkeypatch.delenv("RANK")  # as a spawned process of a DataLoader, to which torch.distributed says nothing
    monkeypatch.delenv("WORLD_SIZE")
    copy = pickle.loads(sent)
    assert copy.world == (1, 2)
    assert [batch.ids for batch in copy] == [
        batch.ids for batch in ds.loader(world=(1, 2), batch_size=6, drop_last=True)
    ]
