"""What the viewer's pages may change, asked over its socket: who may, what becomes a version, what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pytest

import headrace as hr
import stored
from browsing import Answer, Client
from command import headrace
from drawn import jpeg
from packed import pack, photos
from viewed import HOSTILE, classified, some

pytest.importorskip("starlette", reason="Starlette is not installed: pip install 'headrace[view]'")
pytest.importorskip("uvicorn", reason="uvicorn is not installed: pip install 'headrace[view]'")

from headrace.errors import UsageError
from headrace.viewing import edits
from headrace.viewing.serve import Viewer


class Editor(Client):
    """A client that changes things as our pages do."""

    def post(self, path: str, said: Any, **headers: str) -> Answer:
        own = {"Origin": f"http://{self.host}:{self.port}", "Content-Type": "application/json"}
        data = said if isinstance(said, bytes) else json.dumps(said).encode()
        return self(path, method="POST", body=data, **{**own, **{k.replace("_", "-"): v for k, v in headers.items()}})

    def save(self, *changes: Mapping[str, Any], version: int = 1, why: str = "a look", **more: Any) -> Answer:
        return self.post("api/edit", {"version": version, "why": why, "changes": changes, **more})


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(some(tmp_path_factory.mktemp("edits") / "cats").path)


@pytest.fixture
def folder(packed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(packed, tmp_path / "cats"))


@pytest.fixture
def ask(folder: Path) -> Iterator[Editor]:
    with Viewer(hr.Dataset(folder), edit=True) as viewer:
        yield entered(viewer)


def entered(viewer: Viewer) -> Editor:
    ask = Editor(viewer.address.url)
    ask.enter()
    return ask


def unchanged(folder: Path) -> bool:
    return hr.Dataset(folder).version == 1 and not list(folder.glob("catalog-*")) and not (folder / "versions").exists()


DROP = {"op": "drop", "ids": ["dir/003.png"]}


# Who may.


@pytest.mark.parametrize("path", ["api/edit", "api/undo", "api/restore"])
def test_without_edit_nothing_is_changed(folder: Path, path: str) -> None:
    with Viewer(hr.Dataset(folder)) as viewer:
        ask = entered(viewer)
        answer = ask.post(path, {"version": 1, "why": "x", "changes": [DROP], "to": 1})
        assert answer.status == 403 and "--edit" in answer.json["error"]
        assert ask("api/dataset").json["edit"] is False
    assert unchanged(folder)


@pytest.mark.parametrize("path", ["api/edit", "api/undo", "api/restore"])
def test_only_our_pages_may(folder: Path, ask: Editor, path: str) -> None:
    said = {"version": 1, "why": "x", "changes": [DROP], "to": 1}
    stranger = Editor(f"http://127.0.0.1:{ask.port}/?token=")
    assert stranger.post(path, said).status == 403
    for origin in ("https://evil.example", f"http://127.0.0.1:{ask.port + 1}", "null", ""):
        assert ask.post(path, said, Origin=origin).status == 403, origin
    own = json.dumps(said).encode()
    assert ask(path, method="POST", body=own, Content_Type="application/json").status == 403  # no Origin at all
    assert ask(path).status == 405
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""):  # what forms can send
        assert ask.post(path, said, Content_Type=kind).status == 415, kind
    assert unchanged(folder)


@pytest.mark.parametrize("path", ["api/edit", "api/undo", "api/restore", "api/reopen"])
def test_request_that_is_too_large(folder: Path, ask: Editor, path: str) -> None:
    answer = ask.post(path, b" " * (edits.MOST_BYTES + 1))
    assert answer.status == 413 and "larger" in answer.json["error"]
    assert unchanged(folder) and ask("api/state").status == 200


# What becomes a version.


def test_draft_is_one_version(folder: Path, ask: Editor) -> None:
    before = hr.Dataset(folder)
    ids = [record.id for record in before]
    box, moved = before["dir/003.png"].boxes, [1.0, 2.0, 11.5, 12.0]
    names = before["dir/003.png"].box_labels
    assert names is not None
    objects = [{"of": i, "box": None, "name": name} for i, name in enumerate(names)]
    objects[0] |= {"box": moved, "name": "right"}
    answer = ask.save(
        {"op": "relabel", "label": "bee", "ids": ids[:2]},
        {"op": "relabel", "label": "dragon", "ids": [ids[2]]},
        {"op": "move", "split": "val", "ids": [ids[4]]},
        {"op": "drop", "ids": [ids[5]]},
        {"op": "boxes", "id": "dir/003.png", "objects": objects},
        why="a good look",
    )
    assert answer.status == 200 and answer.json["made"] == answer.json["version"] == 2 and answer.json["current"]
    after = hr.Dataset(folder)
    assert after.version == 2 and len(after) == len(before) - 1
    assert [after[id_].label_name for id_ in ids[:3]] == ["bee", "bee", "dragon"]
    assert after[ids[4]].split == "val" and after[ids[4]].encoded == before[ids[4]].encoded
    assert after["dir/003.png"].boxes[0].tolist() == moved and after["dir/003.png"].box_labels[0] == "right"
    assert (after["dir/003.png"].boxes[1:] == box[1:]).all()
    made = after.history[-1]
    assert (
        made.why == "a good look"
        and made.by
        and [one["op"] for one in made.what] == [*("relabel", "relabel", "move", "drop", "boxes")]
    )
    # What is shown is the new version, and nothing that was remembered of the old one.
    said = ask("api/dataset").json
    assert (said["version"], said["records"], said["classes"]["dragon"]) == (2, len(after), 1)
    assert ask("api/records").json["total"] == len(after)
    assert ask(f"api/records?{urlencode({'label': 'dragon'})}").json["cells"][0]["id"] == ids[2]
    assert ask("api/state").json["later"] == []


def test_boxes_keep_what_is_said_of_them(tmp_path: Path) -> None:
    """A box is deleted and one is drawn: there are as many as before, and each keeps its own."""
    boxes = np.array([[2, 2, 12, 12], [20, 2, 30, 12], [2, 14, 12, 24]], np.float32)
    attributes = {"pose": ["left", "right", "front"], "truncated": [1, 0, 1]}
    record = hr.Record(id="a", encoded=jpeg(30, 40), boxes=boxes, box_labels=("x", "y", "x"), attributes=attributes)
    pack([record, hr.Record(id="b", encoded=jpeg(30, 40, seed=1))], tmp_path / "cats")
    with Viewer(hr.Dataset(tmp_path / "cats"), edit=True) as viewer:
        objects = [
            {"of": 1, "box": None, "name": "y"},
            {"of": 2, "box": [3, 14, 12, 24], "name": "x"},
            {"of": None, "box": [25, 20, 35, 28], "name": "z"},
        ]
        assert entered(viewer).save({"op": "boxes", "id": "a", "objects": objects}).json["made"] == 2
    after = hr.Dataset(tmp_path / "cats")["a"]
    assert after.boxes.tolist() == [[20, 2, 30, 12], [3, 14, 12, 24], [25, 20, 35, 28]]
    assert after.box_labels == ("y", "x", "z") and after.attributes["pose"] == ["right", "front", None]
    with Viewer(hr.Dataset(tmp_path / "cats"), edit=True) as viewer:
        said = entered(viewer)("api/record?id=a").json["objects"]
    assert [one["attributes"].get("truncated") for one in said] == [0, 1, None]


def test_all_that_a_query_finds(folder: Path, ask: Editor) -> None:
    hits = [r.id for r in hr.Dataset(folder) if r.label_name == "ant" and r.width > 40]
    query = {"label": "ant", "where": "width > 40", "sort": "-width"}
    change = {"op": "relabel", "label": "bee", "query": query}
    refused = ask.save(change)
    assert refused.status == 400 and (refused.json["hits"], refused.json["records"]) == (len(hits), 24)
    assert unchanged(folder)
    assert ask.save(change, yes="yes").status == 400  # a yes is a yes
    assert ask.save(change, yes=True).json["made"] == 2
    after = hr.Dataset(folder)
    assert all(after[id_].label_name == "bee" for id_ in hits)
    assert ask.save(change, version=2, yes=True).status == 400  # it finds none any more
    few = ask.save({"op": "drop", "query": {"find": "dir/003"}}, version=2)  # below a tenth nobody is asked
    assert few.json["made"] == 3


def test_nothing_to_change_is_no_version(folder: Path, ask: Editor) -> None:
    record = hr.Dataset(folder)[0]
    answer = ask.save({"op": "relabel", "label": record.label_name, "ids": [record.id]})
    assert answer.status == 200 and answer.json["made"] is None and unchanged(folder)


def test_undo_and_restore(folder: Path, ask: Editor) -> None:
    assert ask.save(DROP).json["made"] == 2
    assert ask.post("api/undo", {"version": 2}).json["made"] == 3
    assert len(hr.Dataset(folder)) == 24 and "dir/003.png" in {r.id for r in hr.Dataset(folder)}
    assert ask.post("api/restore", {"version": 3, "to": 2}).json["made"] == 4
    assert len(hr.Dataset(folder)) == 23
    told = ask("api/history").json
    assert told["version"] == 4 and [one["number"] for one in told["versions"]] == [4, 3, 2, 1]
    assert [one["ops"] for one in told["versions"]] == [["restore"], ["undo"], ["drop"], []]
    assert "dir/003.png" in told["versions"][2]["told"][0] and told["versions"][2]["why"] == "a look"
    for path, said in (
        ("api/restore", {"version": 4, "to": 4}),
        ("api/restore", {"version": 4, "to": 9}),
        ("api/restore", {"version": 4}),
        ("api/undo", {"version": True}),
        ("api/undo", {"version": "4"}),
        ("api/undo", {}),
    ):
        assert ask.post(path, said).status == 400, said
    assert hr.Dataset(folder).version == 4


# What is refused.


@pytest.mark.parametrize(
    ("said", "status", "says"),
    [
        (b"", 400, "no JSON"),
        (b"[]", 400, "no JSON object"),
        (b"{", 400, "no JSON"),
        (b"[" * 100_000, 400, "no JSON"),
        (b'{"version": NaN}', 400, "no JSON"),
        (b'{"version": ' + b"9" * 5000 + b"}", 400, "no JSON"),
        (b"\xff\xfe", 400, "no JSON"),
        ({}, 400, "changes is empty"),
        ({"changes": {}}, 400, "changes is empty"),
        ({"changes": []}, 400, "changes is empty"),
        ({"changes": [DROP], "version": 1, "why": None}, 400, "why is None"),
        ({"changes": [DROP], "why": "x", "version": None}, 400, "version is None"),
        ({"changes": [DROP], "why": "x", "version": 1.0}, 400, "version is 1.0"),
        ({"changes": [DROP], "why": "x", "version": 7}, 400, "no version 7"),
        ({"changes": [DROP], "why": " ", "version": 1}, 400, "wanted a few words"),
        ({"changes": [DROP], "why": "\ud800", "version": 1}, 400, "halves of characters"),
        ({"changes": [DROP], "why": "x" * 3000, "version": 1}, 400, "at most 2000"),
        ({"changes": [DROP, {"op": "drop", "ids": ["nobody"]}]}, 404, "no record 'nobody'"),  # and none of it is done
        ({"changes": [DROP, DROP]}, 404, "no record"),  # dropped already
        ({"changes": [3]}, 400, "a change is"),
        ({"changes": [{"op": "eval", "ids": []}]}, 400, "a change is 'eval'"),
        ({"changes": [{"op": ["drop"], "ids": []}]}, 400, "a change is"),
        ({"changes": [{**DROP, "yes": True}]}, 400, "yes"),
        ({"changes": [{"op": "drop"}]}, 400, "either ids or a query"),
        ({"changes": [{**DROP, "query": {}}]}, 400, "either ids or a query"),
        ({"changes": [{"op": "drop", "ids": []}]}, 400, "ids is empty"),
        ({"changes": [{"op": "drop", "ids": "dir/003.png"}]}, 400, "ids is"),
        ({"changes": [{"op": "drop", "ids": [["x"]]}]}, 400, "ids is"),
        ({"changes": [{"op": "drop", "ids": ["\ud800"]}]}, 400, "halves of characters"),
        ({"changes": [{"op": "drop", "query": {"where": 3}}]}, 400, "query is"),
        ({"changes": [{"op": "drop", "query": {"where": "width > 0 OR read_csv('x')"}}]}, 400, "belongs to a query"),
        ({"changes": [{"op": "drop", "query": {"split": "nothing"}}]}, 400, "no split"),
        ({"changes": [{"op": "drop", "query": {}}]}, 400, "24 of 24"),
        ({"changes": [{"op": "drop", "query": {}}], "yes": True}, 400, "no record would be left"),
        ({"changes": [{**DROP, "op": "relabel", "label": 3}]}, 400, "label is 3"),
        ({"changes": [{**DROP, "op": "relabel", "label": ["ant", "bee"]}]}, 400, "wanted the name of a class"),
        ({"changes": [{**DROP, "op": "relabel", "label": ""}]}, 400, "label"),
        ({"changes": [{**DROP, "op": "relabel", "label": "a\nb"}]}, 400, "label"),
        ({"changes": [{**DROP, "op": "relabel", "label": "\ud800"}]}, 400, "halves"),
        ({"changes": [{"op": "drop", "query": {"find": "\ud800"}}]}, 400, "halves"),
        ({"changes": [{**DROP, "op": "move", "split": "../x"}]}, 400, "split"),
        ({"changes": [{**DROP, "op": "move", "split": None}]}, 400, "split is None"),
        ({"changes": [{"op": "boxes", "id": 3, "objects": []}]}, 400, "id is 3"),
        ({"changes": [{"op": "boxes", "id": "nobody", "objects": []}]}, 404, "no record"),
        ({"changes": [{"op": "boxes", "id": "dir/003.png", "objects": [3]}]}, 400, "objects is"),
    ],
)  # fmt: skip
def test_what_can_t_be_done_is_said(folder: Path, ask: Editor, said: Any, status: int, says: str) -> None:
    answer = ask.post("api/edit", {"why": "x", "version": 1, **said} if isinstance(said, dict) else said)
    assert (answer.status, says in answer.json["error"]) == (status, True), answer.json
    assert unchanged(folder)
    assert ask.save(DROP).json["made"] == 2  # and the next one works


@pytest.mark.parametrize(
    ("one", "says"),
    [
        ({"of": 0, "box": None}, "have no class"),
        ({"of": 99, "box": None, "name": "left"}, "wanted four numbers"),
        ({"of": 99, "box": [1, 1, 5, 5], "name": "left"}, "of is"),
        ({"of": True, "box": [1, 1, 5, 5], "name": "left"}, "of is"),
        ({"of": None, "box": [1, 1, 5], "name": "left"}, "wanted four numbers"),
        ({"of": None, "box": [1, 1, "5", 5], "name": "left"}, "wanted four numbers"),
        ({"of": None, "box": [1, 1, True, 5], "name": "left"}, "wanted four numbers"),
        ({"of": None, "box": [1, 1, 10**400, 5], "name": "left"}, "wanted four numbers"),
        ({"of": None, "box": [5, 1, 1, 5], "name": "left"}, "box"),
        ({"of": None, "box": [500, 500, 600, 600], "name": "left"}, "outside"),
        ({"of": None, "box": [1, 1, 5, 5], "name": 3}, "name is 3"),
        ({"of": None, "box": [1, 1, 5, 5], "name": ""}, "box"),
    ],
)
def test_boxes_that_can_t_be(folder: Path, ask: Editor, one: dict[str, Any], says: str) -> None:
    kept = {"of": 1, "box": None, "name": "right"}
    answer = ask.save({"op": "boxes", "id": "dir/003.png", "objects": [kept, one]})
    assert answer.status == 400 and says in answer.json["error"], answer.json
    assert unchanged(folder)


def test_somebody_was_quicker(folder: Path, ask: Editor) -> None:
    ids = [record.id for record in hr.Dataset(folder)]
    with hr.edit(folder, why="my own look", by="ana") as e:
        e.drop(ids=ids[0])
        e.relabel("dragon", ids=ids[3])
    state = ask("api/state").json
    assert not state["current"] and state["known"] and state["later"][0]["by"] == "ana"
    mine = [{"op": "drop", "ids": [ids[0], ids[1]]}, {"op": "relabel", "label": "cow", "ids": [ids[3], ids[4]]}]
    answer = ask.save(*mine)
    assert answer.status == 409
    (later,) = answer.json["later"]
    assert (later["number"], later["by"], later["why"]) == (2, "ana", "my own look") and later["at"]
    assert any(ids[0] in line for line in later["told"])
    assert answer.json["touched"] == sorted({ids[0], ids[3]})
    for path, said in (("api/undo", {"version": 1}), ("api/restore", {"version": 1, "to": 1})):
        assert ask.post(path, said).status == 409
    assert hr.Dataset(folder).version == 2 and ask("api/dataset").json["version"] == 1
    looked = ask.post("api/reopen", {"version": 1, "changes": mine}).json
    assert looked["touched"] == sorted({ids[0], ids[3]}) and looked["version"] == 2
    assert ask.save({"op": "drop", "ids": [ids[1]]}, version=2).json["made"] == 3


def test_two_tabs(folder: Path, ask: Editor) -> None:
    """Both look at version 1; whoever saves second is told."""
    assert ask.save(DROP).json["made"] == 2
    answer = ask.save({"op": "relabel", "label": "bee", "ids": ["dir/003.png", hr.Dataset(folder)[0].id]})
    assert answer.status == 409 and hr.Dataset(folder).version == 2
    assert [one["number"] for one in answer.json["later"]] == [2]
    assert answer.json["touched"] == ["dir/003.png"]  # of the version that this tab looked at


def test_dataset_that_is_overwritten_meanwhile(folder: Path, ask: Editor) -> None:
    pack(photos(9), folder, overwrite=True)
    assert not ask("api/state").json["known"]
    answer = ask.save(DROP)
    assert answer.status == 409 and "another dataset" in answer.json["error"]
    assert hr.Dataset(folder).version == 1 and len(hr.Dataset(folder)) == 9
    assert ask.post("api/reopen", {"version": 1, "changes": [DROP]}).json["touched"] == DROP["ids"]
    assert ask("api/dataset").json["records"] == 9


def test_hostile_names_and_whys_are_texts(folder: Path, ask: Editor) -> None:
    for k, name in enumerate(HOSTILE):
        change = {"op": "relabel", "label": name, "ids": ["dir/003.png"]}
        assert ask.save(change, version=k + 1, why=name).json["made"] == k + 2
        made = hr.Dataset(folder)
        assert made["dir/003.png"].label_name == name and made.history[-1].why == name
    assert ask("api/history").json["versions"][0]["why"] == HOSTILE[-1]


# What can be edited.


def test_what_can_t_be_edited(folder: Path) -> None:
    whole = hr.Dataset(folder)
    with pytest.raises(UsageError, match="is a part of a dataset"):
        Viewer(whole.split("val"), edit=True)
    with pytest.raises(UsageError, match="no versions"):
        Viewer(hr.ArrayDataset(np.zeros((3, 4, 4), np.uint8)), edit=True)
    with hr.edit(folder, why="x") as e:
        e.drop(ids="dir/003.png")
    with pytest.raises(UsageError, match="version 1 is not the one that holds now"):
        Viewer(hr.Dataset(folder, version=1), edit=True)
    ended = headrace("view", f"{folder}:val", "--edit", "--no-browser")
    assert ended.code == 2 and ended.err.count("\n") == 1 and "--edit" in ended.err


def test_earlier_version_is_looked_at_as_it_was(folder: Path) -> None:
    with hr.edit(folder, why="x") as e:
        e.drop(ids="dir/003.png")
    with Viewer(hr.Dataset(f"{folder}@1")) as viewer:
        ask = entered(viewer)
        said = ask("api/dataset").json
        assert said["pinned"] and said["version"] == 1 and said["records"] == 24
        state = ask("api/state").json
        assert state["known"] and not state["current"]
        assert ask("api/record?id=dir/003.png").status == 200
        assert [one["number"] for one in ask("api/history").json["versions"]] == [1]


def test_differences(folder: Path) -> None:
    whole = hr.Dataset(folder)
    ids = [record.id for record in whole]
    with hr.edit(folder, why="x") as e:
        e.drop(ids=ids[0])
        e.relabel("bee", ids=[ids[1], ids[3]])
        e.move("val", ids=ids[2])
        e.boxes(ids[4], [[1, 1, 9, 9]], ["left"])
    found = hr.diff(folder, 1, 2)
    with Viewer(hr.Dataset(folder)) as viewer:
        ask = entered(viewer)
        said = ask("api/diff").json
        assert (said["before"], said["after"], said["records"]) == (1, 2, [24, 23])
        assert said["kinds"] == {
            "relabelled": len(found.relabelled), "boxes": 1, "moved": 1, "dropped": 1, "added": 0
        }  # fmt: skip
        assert said["kind"] == "relabelled"
        names = [(one["before"].get("labels"), one["after"].get("labels")) for one in said["pairs"]]
        assert names == [([one.before] if one.before else None, [one.after]) for one in found.relabelled]
        (one,) = ask("api/diff?kind=dropped").json["pairs"]
        assert one["after"] is None and one["before"]["id"] == ids[0]
        assert ask(f"image/{one['before']['row']}?at=1").body == whole[ids[0]].encoded
        (one,) = ask("api/diff?kind=boxes").json["pairs"]
        assert len(one["before"]["boxes"]) == len(whole[ids[4]].boxes) and one["after"]["boxes"][0][:4] == [1, 1, 9, 9]
        back = ask("api/diff?before=2&after=1&kind=added").json
        assert [one["after"]["id"] for one in back["pairs"]] == [ids[0]]
        assert ask("api/diff?before=2&after=2").json["pairs"] == []
        for query, says in (("before=1&after=9", "no version 9"), ("kind=x", "kind is 'x'"), ("after=-1", "after is")):
            answer = ask(f"api/diff?{query}")
            assert answer.status == 400 and says in answer.json["error"], query
        assert ask("image/0?at=9").status == 400


def test_answers_of_a_run_are_of_the_new_version(folder: Path, tmp_path: Path) -> None:
    """A record in doubt that was dropped, or mended, is asked about no more."""
    run = classified(hr.Dataset(folder), tmp_path / "run")
    with Viewer(hr.Dataset(folder), run=run, edit=True) as viewer:
        ask = entered(viewer)
        doubted = [one["id"] for one in ask("api/records?evaluation=cats-val&outcome=doubtful").json["cells"]]
        assert ask.save({"op": "drop", "ids": doubted[:1]}).json["made"] == 2
        said = ask("api/records?evaluation=cats-val&outcome=doubtful").json["cells"]
        assert [one["id"] for one in said] == doubted[1:]
        assert ask.save({"op": "relabel", "label": "bee", "ids": doubted[1:2]}, version=2).json["made"] == 3
        said = ask("api/records?evaluation=cats-val&outcome=doubtful").json["cells"]
        assert [one["id"] for one in said] == doubted[2:]  # it has another label than the one that was doubted


def test_dataset_in_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With options of its own, which no environment names."""
    with stored.s3() as address:
        bucket = stored.bucket(address, monkeypatch)
        url = f"s3://{bucket.name}/cats"
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        options = {name.lower(): value for name, value in bucket.environment.items() if name.startswith("AWS_")}
        pack(photos(6), url)
        for name in bucket.environment:
            monkeypatch.delenv(name, raising=False)
        with Viewer(hr.Dataset(url, storage_options=options), edit=True) as viewer:
            ask = entered(viewer)
            first = ask("api/records").json["cells"][0]["id"]
            assert ask.save({"op": "drop", "ids": [first]}).json["made"] == 2
            assert ask("api/records").json["total"] == 5
            assert ask("api/diff").json["pairs"][0]["before"]["id"] == first
            assert ask.post("api/undo", {"version": 2}).json["made"] == 3
            assert len(hr.Dataset(url, storage_options=options)) == 6
