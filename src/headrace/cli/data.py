"""Verbs about data: pack, info, verify."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from headrace.cli.words import (
    AsJson,
    DatasetPath,
    Verbose,
    Workers,
    amount,
    boxes_text,
    count_reasons,
    losses,
    parse_bytes,
    parse_names,
    parse_pairs,
    parse_paths,
    parse_range,
    parse_rejects,
    parse_size,
    parse_split,
    print_json,
    told,
)


def register(app: typer.Typer) -> None:
    """Adds this module's verbs to `app`."""
    app.command(epilog=_PACK_EXAMPLE)(pack)
    app.command(epilog="Example: headrace info cats --json")(info)
    app.command(epilog="Example: headrace verify cats")(verify)


_PACK_EXAMPLE = (
    "Example: headrace pack photos/train cats --format names --pattern '^(?P<label>cat|dog)' --size 160 --fit crop "
    "--split train=0.8,val=0.2\n\n"
    "Example: headrace pack wider_face_train_bbx_gt.txt faces --format wider --images WIDER_train/images --max-faces 5"
    "\n\nExample: headrace pack train=train.txt val=val.txt faces --format wider --images train=WIDER_train/images "
    "--images val=WIDER_val/images --max-side 800"
    "\n\nExample: headrace pack person_keypoints_val2017.json people --format coco --images val2017"
    "\n\nExample: headrace pack x.npy scans --labels y.npy --classes no,yes --split train=0.8,val=0.2"
)


def pack(
    source: Annotated[
        list[str],
        typer.Argument(
            help="A folder of images, or a file of annotations; SPLIT=PATH for each split where the data comes divided."
        ),
    ],
    out: Annotated[Path, typer.Argument(help="The dataset folder to make.", readable=False)],
    format: Annotated[
        str | None,
        typer.Option(
            help="names, folders, wider, coco, visipedia, arrays; guessed where it can be.", show_default=False
        ),
    ] = None,
    pattern: Annotated[
        str | None,
        typer.Option(
            help="names: regular expression with a group 'label', searched in the file name.",
            show_default=False,
        ),
    ] = None,
    unlabelled: Annotated[
        str | None,
        typer.Option(help="names: what doesn't match the pattern: keep (default) or reject.", show_default=False),
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(help="Class names in their order, a,b,c; by default sorted.", show_default=False),
    ] = None,
    images: Annotated[
        list[str] | None,
        typer.Option(
            help="wider, coco, visipedia: folder that image names start from; for coco by default the file's. "
            "SPLIT=DIR, repeated, where each split has its own.",
            show_default=False,
        ),
    ] = None,
    keypoint_names: Annotated[
        str | None,
        typer.Option(help="visipedia: names of the parts of an object, in their order: a,b,c.", show_default=False),
    ] = None,
    lenient: Annotated[
        bool, typer.Option("--lenient", help="wider: go on at the next file name where rows are out of step.")
    ] = False,
    max_faces: Annotated[
        int | None, typer.Option(help="wider: leave out images with more faces than that.", show_default=False)
    ] = None,
    min_side: Annotated[
        int | None, typer.Option(help="wider: drop faces less wide or high than that, in pixels.", show_default=False)
    ] = None,
    skip_invalid: Annotated[
        bool, typer.Option("--skip-invalid", help="wider: drop faces that are flagged invalid.")
    ] = False,
    category: Annotated[
        list[str] | None,
        typer.Option(help="coco: take objects of this category only; may be repeated.", show_default=False),
    ] = None,
    flip_pairs: Annotated[
        str | None,
        typer.Option(
            help="coco, visipedia: keypoints that a mirror swaps, 1-2,3-4; by default told from their names.",
            show_default=False,
        ),
    ] = None,
    skip_crowd: Annotated[bool, typer.Option("--skip-crowd", help="coco: drop objects with iscrowd.")] = False,
    segmentation: Annotated[
        str | None,
        typer.Option(help="coco: what becomes of masks: drop (default) or keep, as attributes.", show_default=False),
    ] = None,
    per_object: Annotated[
        bool, typer.Option("--per-object", help="coco: make each object a record of its own, cut out of its image.")
    ] = False,
    margin: Annotated[
        float | None,
        typer.Option(help="coco: part of its size left around such an object; 0.125 by default.", show_default=False),
    ] = None,
    labels: Annotated[
        list[str] | None,
        typer.Option(
            help="arrays: .npy or .npz of one label per image. SPLIT=FILE, repeated, where each split has its own.",
            show_default=False,
        ),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(help="arrays: the images' name in a .npz; told by itself where one fits.", show_default=False),
    ] = None,
    label_key: Annotated[
        str | None, typer.Option(help="arrays: the labels' name in a .npz; likewise.", show_default=False)
    ] = None,
    value_range: Annotated[
        str | None,
        typer.Option(
            help="What is black and what is white in images of more than 8 bits (PNG, TIFF, arrays): 0,4095 or 0,1.",
            show_default=False,
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(help="train=0.8,val=0.2; stratified by class. All is 'train' by default.", show_default=False),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(help="Resize to N (square) or HxW pixels. Bytes are kept by default.", show_default=False),
    ] = None,
    fit: Annotated[
        str, typer.Option(help="Of --size: stretch; crop (shorter side, centre); pad (longer side, black).")
    ] = "stretch",
    max_side: Annotated[
        int | None,
        typer.Option(
            help="Bring the longer side of larger images to so many pixels; each keeps its shape.", show_default=False
        ),
    ] = None,
    min_side_to: Annotated[
        int | None,
        typer.Option(help="The same with the shorter side.", show_default=False),
    ] = None,
    enlarge: Annotated[
        bool, typer.Option("--enlarge", help="With --max-side and --min-side-to: smaller images too.")
    ] = False,
    channels: Annotated[
        int | None, typer.Option(help="1 or 3; by default grey images stay grey.", show_default=False)
    ] = None,
    quality: Annotated[int, typer.Option(help="Of JPEGs that are made, 1 to 100.")] = 95,
    chroma: Annotated[str, typer.Option(help="Of JPEGs that are made: 444 (full) or 420 (smaller).")] = "444",
    optimize: Annotated[bool, typer.Option("--optimize", help="Make JPEGs some percent smaller; slower.")] = False,
    shards: Annotated[int | None, typer.Option(help="Shards per split.", show_default=False)] = None,
    shard_size: Annotated[
        str | None, typer.Option(help="Size of a shard, about: 128MB by default.", show_default=False)
    ] = None,
    workers: Workers = None,
    seed: Annotated[int, typer.Option(help="Of splits and order.")] = 0,
    max_rejects: Annotated[str, typer.Option(help="Bad images allowed: a share (10%) or a count (25).")] = "10%",
    max_pixels: Annotated[int, typer.Option(help="Larger images are rejected unread.")] = 100_000_000,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing dataset.")] = False,
    verbose: Verbose = False,
    as_json: AsJson = False,
) -> None:
    """Pack labelled images into sharded, indexed, checksummed TFRecords."""
    from headrace.cli import formats
    from headrace.packing.pack import pack as run

    paths = parse_paths(source, "SOURCE")
    assert paths is not None
    sources, left = formats.read(
        paths,
        format,
        {
            "pattern": pattern,
            "unlabelled": unlabelled,
            "class_names": parse_names(classes),
            "images": parse_paths(images or (), "--images"),
            "keypoint_names": parse_names(keypoint_names),
            "lenient": lenient,
            "max_faces": max_faces,
            "min_side": min_side,
            "skip_invalid": skip_invalid,
            "category": category or None,
            "flip_pairs": parse_pairs(flip_pairs),
            "skip_crowd": skip_crowd,
            "segmentation": segmentation,
            "per_object": per_object,
            "margin": margin,
            "y": parse_paths(labels or (), "--labels"),
            "key": key,
            "label_key": label_key,
            "value_range": parse_range(value_range),
        },
    )
    with told(verbose):
        report = run(
            sources,
            out,
            splits=parse_split(split),
            size=parse_size(size),
            fit=fit,  # type: ignore[arg-type]
            max_side=max_side,
            min_side_to=min_side_to,
            enlarge=enlarge,
            channels=channels,
            quality=quality,
            chroma=chroma,  # type: ignore[arg-type]
            optimize=optimize,
            max_pixels=max_pixels,
            shards=shards,
            shard_size=parse_bytes(shard_size),
            seed=seed,
            max_rejects=parse_rejects(max_rejects),
            workers=workers,
            overwrite=overwrite,
            **left,
        )
    reasons = count_reasons(report.rejects)
    if as_json:
        print_json(
            {
                "seen": report.seen,
                "stored": report.stored,
                "rejected": len(report.rejects),
                "seconds": round(report.seconds, 3),
                "images_per_second": round(report.images_per_second, 1),
                "rejected_by_reason": reasons,
                "splits": dict(report.splits),
                "classes": list(report.classes),
                "boxes": report.boxes,
                "boxes_clipped": report.boxes_clipped,
                "boxes_dropped": dict(report.boxes_dropped),
                "keypoint_sets": report.keypoint_sets,
                "keypoints_dropped": dict(report.keypoints_dropped),
                "shards": report.shards,
                "bytes_in": report.bytes_in,
                "bytes_out": report.bytes_out,
                "passed_over": dict(report.skipped),
                "out": str(out),
            }
        )
        return
    splits = ", ".join(f"{name} {n}" for name, n in report.splits.items())
    typer.echo(f"{out}: {report.seen} seen = {report.stored} stored + {len(report.rejects)} rejected")
    for reason, n in reasons.items():
        typer.echo(f"  rejected {n}: {reason}")
    if report.rejects:
        typer.echo(f"  each with its reason in {out / 'rejects.jsonl'}")
    for kind, n in report.skipped.items():
        typer.echo(f"  passed over {n}: {kind}")
    typer.echo(f"  {splits}; {report.shards} shards; classes: {', '.join(report.classes) or 'none'}")
    if report.boxes or report.boxes_dropped:
        typer.echo(f"  boxes: {boxes_text(report.boxes, report.boxes_clipped, report.boxes_dropped)}")
    if report.keypoint_sets or report.keypoints_dropped:
        typer.echo(f"  keypoints: {', '.join([f'{report.keypoint_sets} sets', *losses(report.keypoints_dropped)])}")
    typer.echo(
        f"  {amount(report.bytes_in)} in, {amount(report.bytes_out)} out; "
        f"{report.seconds:.1f} s, {report.images_per_second:.0f} images/s"
    )


def info(
    ds: DatasetPath,
    shards: Annotated[bool, typer.Option("--shards", help="List each shard: file, split, records, bytes.")] = False,
    as_json: AsJson = False,
) -> None:
    """Say what a dataset holds."""
    from headrace.checking.statistics import box_statistics, missing_classes
    from headrace.load.dataset import Dataset

    dataset = Dataset(ds)
    missing, sizes = missing_classes(dataset), box_statistics(dataset)
    manifest = dataset.manifest
    unlabelled = int((dataset.labels < 0).sum()) if manifest.classes else 0
    boxes = manifest.boxes or 0
    facts: dict[str, Any] = {
        "records": len(dataset),
        "splits": dataset.splits,
        "classes": dataset.class_counts,
        "unlabelled": unlabelled,
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
        "fingerprint": dataset.fingerprint,
    }
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
    height, width = dataset.store.height, dataset.store.width
    size = (
        "x".join(map(str, dataset.image_size))
        if dataset.image_size
        else (f"{height.min()!s} to {height.max()!s} high, {width.min()!s} to {width.max()!s} wide")
    )
    typer.echo(f"{ds}: {len(dataset)} records, {amount(facts['bytes'])} in {facts['shards']} shards")
    if manifest.adopted is not None:
        typer.echo(f"  adopted  {manifest.adopted['layout']}; the shards are {manifest.shards[0].name} and the like")
    typer.echo(f"  splits   {', '.join(f'{name} {n}' for name, n in dataset.splits.items())}")
    if manifest.classes:
        typer.echo(f"  classes  {', '.join(f'{name} {n}' for name, n in dataset.class_counts.items())}")
    if missing:
        typer.echo(f"  without an image: {', '.join(f'{name} ({index})' for name, index in missing.items())}")
    if unlabelled:
        typer.echo(f"  without a label {unlabelled}")
    if dataset.has_boxes:
        typer.echo(f"  boxes    {boxes_text(boxes, manifest.boxes_clipped, manifest.boxes_dropped)}")
    for line in [] if sizes is None else _box_sizes(sizes):
        typer.echo(f"           {line}")
    if dataset.has_keypoints:
        names = f" ({', '.join(dataset.keypoint_names)})" if dataset.keypoint_names else ""
        sets = f"{facts['keypoint_sets']} sets of {dataset.keypoints}{names}"
        typer.echo(f"  points   {', '.join([sets, *losses(manifest.keypoints_dropped)])}")
    typer.echo(f"  images   {size}, {dataset.channels} channel{'s' if dataset.channels > 1 else ''}")
    typer.echo(f"  rejects  {manifest.rejected}")
    for shard in manifest.shards if shards else ():
        typer.echo(f"  shard    {shard.name}: {shard.split}, {shard.records} records, {amount(shard.bytes)}")


def verify(ds: DatasetPath, workers: Workers = None, as_json: AsJson = False) -> None:
    """Check every byte of a dataset: digests, CRCs, addresses, and decode every image. Exit 1 when something is off."""
    from headrace.checking.verify import verify as run
    from headrace.format import manifest
    from headrace.progress import bar

    with bar(total=manifest.read(ds).stored, unit="img", desc="verify") as shown:
        verdict = run(ds, workers=workers, progress=shown.update)
    if as_json:
        damaged = [
            {"shard": d.shard, "record": d.record, "offset": d.offset, "reason": d.reason} for d in verdict.damaged
        ]
        print_json({"ok": verdict.ok, "records": verdict.records, "damaged": damaged})
    elif verdict.ok:
        typer.echo(f"{ds}: {verdict.records} records, all sound")
    else:
        typer.echo(f"{ds}: {len(verdict.damaged)} damages in {verdict.records} records")
        for damage in verdict.damaged:
            typer.echo(f"  {damage}")
    if not verdict.ok:
        raise typer.Exit(1)


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
