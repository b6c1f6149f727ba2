"""Verbs about datasets: info, verify."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.command import Verb
from headrace.cli.options import AsJson, DatasetPath, Workers
from headrace.cli.text import amount, boxes_text, equal_lines, left_beside, left_line, losses, print_json

if TYPE_CHECKING:
    from headrace.load.dataset import Dataset


def register(app: typer.Typer) -> None:
    """Adds this module's verbs to `app`."""
    app.command(cls=Verb, epilog="headrace info cats --json")(info)
    app.command(cls=Verb, epilog="headrace verify cats")(verify)


def info(
    ds: DatasetPath,
    shards: Annotated[bool, typer.Option("--shards", help="List each shard: file, split, records, bytes.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show the splits, classes and statistics of a dataset."""
    from headrace.checking.statistics import box_statistics, equal_images, missing_classes, value_statistics
    from headrace.load.dataset import Dataset

    dataset = Dataset(ds)
    missing, sizes, equal = missing_classes(dataset), box_statistics(dataset), equal_images(dataset)
    manifest = dataset.manifest
    told = dataset.selection.facts(objects=False)
    unlabelled = told.without_labels if told.multi_label else told.unlabelled if manifest.classes else 0
    values = value_statistics(dataset)
    boxes = manifest.boxes or 0
    facts: dict[str, Any] = {
        "records": len(dataset),
        "splits": dataset.splits,
        "classes": dataset.class_counts,
        "multi_label": dataset.multi_label,
        "unlabelled": unlabelled,
        "values": values,
        "boxes": boxes,
        "boxes_clipped": manifest.boxes_clipped,
        "boxes_dropped": dict(manifest.boxes_dropped),
        "keypoints": dataset.keypoints,
        "keypoint_sets": int((dataset.store.objects(dataset.rows).keypoints[..., 2] > 0).any(axis=1).sum()),
        "keypoint_names": list(dataset.keypoint_names),
        "flip_pairs": [list(pair) for pair in dataset.flip_pairs],
        "keypoints_dropped": dict(manifest.keypoints_dropped),
        "shards": len(manifest.shards),
        "bytes": sum(shard.bytes for shard in manifest.shards),
        "rejects": manifest.rejected,
        "image_size": dataset.image_size,
        "channels": dataset.channels,
        "missing_classes": missing,
        "box_statistics": sizes,
        "equal_images": equal.as_json(),
        "fingerprint": dataset.fingerprint,
    }
    facts["version"] = dataset.version
    unwritten = {} if dataset.version == 1 else _unwritten(dataset)
    if dataset.version > 1:
        facts["unwritten"] = unwritten
    if (left := left_beside(dataset.path)) is not None:
        facts["orphans"] = left
    if manifest.adopted is not None:
        facts["adopted"] = dict(manifest.adopted)
    if shards:
        facts["shard_list"] = [
            {"file": shard.name, "split": shard.split, "records": shard.records, "bytes": shard.bytes}
            for shard in manifest.shards
        ]
    if as_json:
        print_json(facts)
        return
    height, width = dataset.store.height[dataset.rows], dataset.store.width[dataset.rows]
    size = (
        "x".join(map(str, dataset.image_size))
        if dataset.image_size
        else (f"{height.min()!s} to {height.max()!s} high, {width.min()!s} to {width.max()!s} wide")
    )
    typer.echo(f"{ds}: {len(dataset)} records, {amount(facts['bytes'])} in {facts['shards']} shards")
    if dataset.version > 1:
        typer.echo(f"  version  {dataset.version}; headrace history {ds} tells of all")
    if any(unwritten.values()):
        typer.echo(f"  {_unwritten_text(unwritten)}")
    if manifest.adopted is not None:
        typer.echo(f"  adopted  {manifest.adopted['layout']}; the shards are {manifest.shards[0].name} and the like")
    typer.echo(f"  splits   {', '.join(f'{name} {n}' for name, n in dataset.splits.items())}")
    if manifest.classes:
        several = "; an image may have several" if dataset.multi_label else ""
        typer.echo(f"  classes  {', '.join(f'{name} {n}' for name, n in dataset.class_counts.items())}{several}")
    if missing:
        typer.echo(f"  without an image: {', '.join(f'{name} ({index})' for name, index in missing.items())}")
    if unlabelled:
        typer.echo(f"  without a label {unlabelled}")
    if values:
        without = f"; {values['without']} images without one" if values["without"] else ""
        spread = f"mean {values['mean']:g}, median {values['median']:g}, {values['min']:g} to {values['max']:g}"
        typer.echo(f"  values   {spread}{without}")
    if dataset.has_boxes:
        typer.echo(f"  boxes    {boxes_text(boxes, manifest.boxes_clipped, manifest.boxes_dropped)}")
    for line in [] if sizes is None else _box_sizes(sizes):
        typer.echo(f"           {line}")
    if dataset.has_keypoints:
        names = f" ({', '.join(dataset.keypoint_names)})" if dataset.keypoint_names else ""
        sets = f"{facts['keypoint_sets']} sets of {dataset.keypoints}{names}"
        typer.echo(f"  points   {', '.join([sets, *losses(manifest.keypoints_dropped)])}")
    typer.echo(f"  images   {size}, {dataset.channels} channel{'s' if dataset.channels > 1 else ''}")
    for line in equal_lines(equal):
        typer.echo(f"  {line}")
    typer.echo(f"  rejects  {manifest.rejected}")
    if left is not None:
        typer.echo(f"  left     {left_line(left)}")
    for shard in manifest.shards if shards else ():
        typer.echo(f"  shard    {shard.name}: {shard.split}, {shard.records} records, {amount(shard.bytes)}")


def verify(ds: DatasetPath, workers: Workers = None, as_json: AsJson = False) -> None:
    """Check every byte of a dataset, and decode every image.

    Checksums, offsets and counts are held against what was promised. Exit code 1 when something is damaged.
    """
    from headrace.checking.verify import verify as run
    from headrace.format import manifest
    from headrace.format.versions import addressed
    from headrace.place.open import at
    from headrace.progress import bar

    path, version = addressed(ds)
    place = at(path)
    with bar(total=manifest.read(place, version).stored, unit="img", desc="verify") as shown:
        verdict = run(place, version=version, workers=workers, progress=shown.update)
    if as_json:
        damaged = [
            {"shard": d.shard, "record": d.record, "offset": d.offset, "reason": d.reason} for d in verdict.damaged
        ]
        found = {"ok": verdict.ok, "records": verdict.records, "damaged": damaged}
        print_json(found if (left := left_beside(ds)) is None else found | {"orphans": left})
    elif verdict.ok:
        typer.echo(f"{ds}: {verdict.records} records, all sound")
        if (left := left_beside(ds)) is not None:
            typer.echo(f"  {left_line(left)}")
    else:
        typer.echo(f"{ds}: {len(verdict.damaged)} problems in {verdict.records} records")
        for damage in verdict.damaged:
            typer.echo(f"  {damage}")
    if not verdict.ok:
        raise typer.Exit(1)


def _unwritten(dataset: Dataset) -> dict[str, int]:
    """How many records are said to be otherwise than their shards say, by what was done."""
    from headrace.format.tables import Tables
    from headrace.load.store import Shards
    from headrace.revising.diff import between

    assert isinstance(dataset.store, Shards)
    tables = dataset.store.tables
    found = between(Tables(tables.home, 1), tables)
    kinds = ("relabelled", "boxes", "dropped", "moved", "added")
    return {kind: len(getattr(found, kind)) for kind in kinds}


def _unwritten_text(counts: Mapping[str, int]) -> str:
    """That others don't see it, for people."""
    names = {"boxes": "with other boxes"}
    said = [f"{n} {names.get(kind, kind)}" for kind, n in counts.items() if n and kind != "added"]
    added = f"{counts['added']} added ones are in shards of their own" if counts["added"] else ""
    if not said:
        return f"{added}: TFDS sees version 1; headrace compact writes them for all"
    listed = " and ".join(filter(None, [", ".join(said[:-1]), said[-1]]))
    records = "record is" if sum(counts.values()) - counts["added"] == 1 else "records are"
    added = f", {added}" if added else ""
    return (
        f"{listed} {records} not in the shards{added}: TFDS, DALI and TensorFlow see version 1; headrace compact "
        "writes them"
    )


def _box_sizes(found: Mapping[str, Any]) -> Iterator[str]:
    """What box_statistics found, for people."""
    yield f"in {found['images']} images, up to {found['most']} in one; {found['negatives']} images without any"
    if len(found["classes"]) > 1:
        yield ", ".join(f"{name} {n}" for name, n in found["classes"].items())
    for side in ("width", "height", "area") if found["width"] else ():
        pixels, shares = found[side], found[f"{side}_normalized"]
        yield (
            f"{side:6} mean {pixels['mean']:.1f}, median {pixels['median']:.1f}, {pixels['min']:.1f} to "
            f"{pixels['max']:.1f} {'square ' if side == 'area' else ''}pixels; mean {shares['mean']:.1%} of the image's"
        )
    for name, what in (("small", "of less than 10 square pixels"), ("reversed", "with corners the wrong way round")):
        if found[name]:
            yield f"{found[name]} {what}"
