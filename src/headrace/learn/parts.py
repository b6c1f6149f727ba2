"""Which records a run learns from and which it is judged by: splits, divisions, views; and what must not be in both."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from headrace.errors import UsageError
from headrace.format.versions import common_rows
from headrace.learn.recipe import Options, Part, Recipe
from headrace.learn.tasks import Task, for_recipe
from headrace.load.dataset import Dataset

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Chosen:
    """The records of one part: `view` holds them, `split` is the packed split where it is one; `share` the name of one
    that a run divided."""

    view: Dataset
    split: str | None = None
    share: str | None = None

    @property
    def name(self) -> str | None:
        """What people call it, None for all of a dataset and for other views."""
        return self.split or self.share

    def part(self) -> Part:
        """What the recipe keeps of it."""
        view = self.view
        return Part(
            dataset=str(view.path),
            view=view.what,
            split=self.split,
            records=len(view),
            content=view.fingerprint,
            fingerprint=view.view_fingerprint,
        )


def chosen(dataset: Dataset, options: Options, val: Dataset | None) -> tuple[Chosen, Chosen | None]:
    """What to train and to validate on, out of `dataset` and, where it is given, `val`. Raises UsageError.

    A view is taken as it is where `val` says what to validate on; a whole dataset by its splits.
    """
    if options.divide is not None:
        if val is not None or options.val_split is not None:
            raise UsageError("divide says what to validate on, and so does val: leave one of them out")
        shares = divided(dataset, options)
        return shares["train"], shares.get("val")
    if val is not None:
        if options.val_split is not None:
            val = val.split(options.val_split)
        of = Chosen(dataset) if dataset.is_view and options.split is None else _training(dataset, options)
        return of, _validation(val)
    there = list(dataset.splits)
    for name in (options.split, options.val_split):
        _check_split(dataset, name)
    train = _training(dataset, options)
    val_split = options.val_split or ("val" if "val" in there else None)
    if val_split is None:
        return train, None
    if val_split in (train.split, *(there if train.split is None else ())):
        raise UsageError(f"{dataset.path}: split {val_split!r} can't be for training and for validation at once")
    return train, Chosen(dataset.split(val_split), val_split)


def divided(dataset: Dataset, options: Options) -> dict[str, Chosen]:
    """The shares of `options.divide`, by their names. Raises UsageError."""
    assert options.divide is not None
    _check_split(dataset, options.split)
    whole = dataset.split(options.split) if options.split else dataset
    if len(whole.splits) > 1:
        raise UsageError(
            f"{dataset.path}: is divided into {', '.join(whole.splits)} already; pass the one to divide (split), "
            "or leave divide out"
        )
    views = whole.divide(options.divide, seed=options.seed)
    for name, view in zip(options.divide, views, strict=True):
        if not len(view):
            raise UsageError(f"{dataset.path}: {name} gets none of {len(whole)} records; give it a larger share")
    return {name: Chosen(view, share=name) for name, view in zip(options.divide, views, strict=True)}


def _training(dataset: Dataset, options: Options) -> Chosen:
    _check_split(dataset, options.split)
    there = list(dataset.splits)
    split = options.split or ("train" if "train" in there else None)
    if split is None and len(there) > 1:
        raise UsageError(f"{dataset.path}: has no split 'train'; pass the one to train on (split): {', '.join(there)}")
    return Chosen(dataset.split(split), split) if split else Chosen(dataset)


def _validation(val: Dataset) -> Chosen:
    there = list(val.splits)
    if val.is_view or len(there) < 2:
        return Chosen(val, there[0] if len(there) == 1 else None)
    if "val" not in there:
        raise UsageError(f"{val.path}: has no split 'val'; pass the one to validate on (val_split): {', '.join(there)}")
    return Chosen(val.split("val"), "val")


def _check_split(dataset: Dataset, name: str | None) -> None:
    there = list(dataset.splits)
    if name is not None and name not in there:
        raise UsageError(f"{dataset.path}: has no split {name!r}; it has {', '.join(there)}")


def learnable(part: Chosen, task: Task, limit: int | None) -> Chosen:
    """The records of a part that the task can use, evenly drawn to `limit`. Raises UsageError: there is none."""
    whole, name = part.view, part.name or part.view.what or "the dataset"
    found = usable(whole, task)
    if not len(found):
        raise UsageError(f"{whole.path}: {name} has no record with labels for {task.name}")
    if len(found) < len(whole):
        log.warning("%s: %d of %d records have no label and are left out", name, len(whole) - len(found), len(whole))
    return replace(part, view=found if limit is None else found.sample(limit))


def usable(view: Dataset, task: Task, limit: int | None = None) -> Dataset:
    """The records of a view that the task can use, evenly drawn to `limit`; the view itself where it is all of them."""
    found = task.select(view)
    found = view if len(found) == len(view) else found
    return found if limit is None else found.sample(limit)


def check_fits(task: Task, train: Dataset, val: Dataset) -> None:
    """Raises UsageError when a model that learns from `train` can't be judged by `val`."""
    there = type(task).of(val)
    if there is None:
        raise UsageError(f"{val.path}: has no labels for {task.name}, which {train.path} is for")
    check_names(task, val, there, f"{train.path} has")


def check_images(dataset: Dataset, keeps: bool, dtype: str, shape: tuple[int, ...]) -> None:
    """Raises UsageError when a model for images (h, w, c) of `shape`, or for arrays that are kept, can't take these."""
    if keeps or dataset.keeps:
        found = f"{dataset.store.dtype} {list(dataset.store.image_shape)}" if dataset.keeps else "pixels"
        wanted = f"{dtype} {list(shape)}" if keeps else "pixels"
        if found != wanted:
            raise UsageError(f"{dataset.path}: holds {found}, the model is for {wanted}")
    elif dataset.channels != shape[2]:
        raise UsageError(
            f"{dataset.path}: images have {dataset.channels} channels, the model takes {shape[2]}; pack them with "
            f"channels {shape[2]}"
        )


def check_names(task: Task, dataset: Dataset, there: Task, whose: str) -> None:
    """Raises UsageError when the classes or keypoints of `dataset` are others than the task's, or in another order."""
    if there.class_names == task.class_names:
        return
    what = "keypoints" if task.count_column == "keypoint" else "classes"
    hint = "pack it again with these names in this order"
    raise UsageError(
        f"{dataset.path}: its {what} are {', '.join(there.class_names)}, {whose} {', '.join(task.class_names)}; the "
        f"same names in the same order are wanted: {hint}"
    )


def check_apart(train: Dataset, val: Dataset) -> None:
    """Says how many records of `val` are in `train` too, by what is in their images and by their ids.

    Raises UsageError when they are the very same records of one dataset.
    """
    if train.fingerprint == val.fingerprint:
        common = np.intersect1d(train.rows, val.rows)
        if len(common):
            (some,) = train.store.ids_of(common[:1])
            raise UsageError(
                f"{len(common)} of the {len(val)} records to validate on are trained on too, such as {some!r}: they "
                "are the same dataset; divide it (divide, or split and val_split), or name another to validate on"
            )
        if train.store.table.frame(["sha256"])["sha256"].null_count():
            return  # nobody has looked at what is in the images, and one packing has no record twice by its id
    twins = _twins(train, val)
    if twins:
        log.warning(
            "%d of the %d images to validate on are trained on too, byte by byte, such as %s: what is said of them is "
            "too good",
            len(twins), len(val), " and ".join(twins[0]),
        )  # fmt: skip
    if train.fingerprint != val.fingerprint and not (train.manifest.numbered or val.manifest.numbered):
        found = _ids_in(val, train) & _ids_in(train, val) - {pair[1] for pair in twins}
        if found:
            log.warning(
                "%d of the %d records to validate on have the id of one trained on, such as %s, and another image",
                len(found), len(val), min(found),
            )  # fmt: skip


def _ids_in(dataset: Dataset, other: Dataset) -> set[str]:
    """The ids of a dataset that another one seems to have, too: by 64 bits of them."""
    keys, others = dataset.store.keys[dataset.rows], other.store.keys[other.rows]
    return set(dataset.store.ids_of(dataset.rows[np.isin(keys, others)]))


def _twins(train: Dataset, val: Dataset) -> list[tuple[str, str]]:
    """Ids (in train, in val) of the images of `val` that are in `train` too."""
    rows, others = _alike(train, val), _alike(val, train)
    if not len(rows) or not len(others):
        return []
    of = dict(zip(train.store.digests(rows), rows.tolist(), strict=True))
    digests = zip(val.store.digests(others), others.tolist(), strict=True)
    pairs = [(of[one], row) for one, row in digests if one in of]
    both = np.array(pairs, np.int64).reshape(-1, 2)
    return list(zip(train.store.ids_of(both[:, 0]), val.store.ids_of(both[:, 1]), strict=True))


def _alike(dataset: Dataset, other: Dataset) -> NDArray[np.int64]:
    """The rows of a dataset whose images have the size of one of the other's: only they can be the same, and where
    nobody has hashed them yet they must be read for it."""
    sizes, there = (_sizes(one) for one in (dataset, other))
    return dataset.rows[np.isin(sizes, there)]


def _sizes(dataset: Dataset) -> NDArray[np.int64]:
    """A number for each record that stands for its image's height, width and bytes."""
    store, rows = dataset.store, dataset.rows
    length = store.table.frame(["image_length"], rows)["image_length"].fill_null(0).cast(int).to_numpy()
    return np.asarray((length * 65536 + store.height[rows]) * 65536 + store.width[rows], np.int64)


def judged(dataset: Dataset, split: str | None, recipe: Recipe) -> Chosen:
    """What of a dataset a run is judged by: `split`, a view as it is, else what the run was validated on, else all.

    Where the run divided this very dataset, splits are the shares it made. Raises UsageError: no such split.
    """
    shares = {} if dataset.is_view else _shares(dataset, recipe)
    val = recipe.val
    # The only split of another dataset to validate on may be called "train", as the one trained on here is.
    told = val.split if val and val.content in (recipe.train.content, dataset.fingerprint) else None
    likely = (split,) if split else () if dataset.is_view else (told, "val")
    for name in likely:
        if name in shares:
            return shares[name]
        if name in dataset.splits:
            return Chosen(dataset.split(name), name)
    if split:
        _check_split(dataset, split)
    there = list(dataset.splits)
    return Chosen(dataset, there[0] if dataset.is_view and len(there) == 1 else None)


def seen_in_training(dataset: Dataset, recipe: Recipe) -> NDArray[np.int64]:
    """The rows int64 [m] of a view that the run was trained on, as far as the recipe tells."""
    none = np.zeros(0, np.int64)
    if dataset.fingerprint != recipe.train.content:
        earlier = dataset.as_it_was(recipe.train.content)
        if earlier is None:
            return none
        # It was edited since: the rows of both versions are the same records, whatever is said of them now.
        known = np.intersect1d(seen_in_training(earlier, recipe), dataset.rows)
        return known[known < common_rows(earlier.manifest, dataset.manifest)]
    if dataset.view_fingerprint == recipe.train.fingerprint:
        return dataset.rows
    whole = dataset.whole
    shares = _shares(whole, recipe)
    trained = shares["train"].view if shares else whole.split(recipe.train.split) if recipe.train.split else whole
    trained = _as_learnt(trained, recipe)
    if trained.view_fingerprint != recipe.train.fingerprint:
        return none  # it was a view that only the caller knows
    return np.intersect1d(trained.rows, dataset.rows)


def _shares(whole: Dataset, recipe: Recipe) -> dict[str, Chosen]:
    """The shares that the run made of this dataset by `divide`; none where it made them of a view that only the caller
    knows, as others would come of the whole."""
    if not recipe.options.divide or whole.fingerprint != recipe.train.content:
        return {}
    try:
        shares = divided(whole, recipe.options)
    except UsageError:  # which the run's own part didn't raise
        return {}
    same = _as_learnt(shares["train"].view, recipe).view_fingerprint == recipe.train.fingerprint
    return shares if same else {}


def _as_learnt(view: Dataset, recipe: Recipe) -> Dataset:
    """What a run learns from of a view."""
    return usable(view, for_recipe(recipe.task, recipe.class_names, recipe.statistics), recipe.options.limit)
