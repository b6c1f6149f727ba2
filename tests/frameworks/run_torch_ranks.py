"""One rank of a training under DDP by torchrun: `run_torch_ranks.py DATASET OUT [STATE]`; test_torch_ranks judges it.

An epoch of what the loader has, or what `STATE` leaves of it; writes OUT/RANK.json: the ids that this rank loaded, as
batches, the state after the second batch, and the losses.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist

import headrace as hr


def main(path: str, out: str, state: str | None = None) -> None:
    dist.init_process_group("gloo")
    loader = hr.Dataset(path).loader(batch_size=12, seed=3, world="auto", workers=2)
    assert loader.world == (dist.get_rank(), dist.get_world_size())
    feed = loader.to_torch(device="cpu", dtype=torch.float32)
    if state is not None:
        feed.load_state_dict(json.loads(Path(state).read_text()))
    torch.manual_seed(0)
    model = torch.nn.parallel.DistributedDataParallel(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 3)))
    ids, batches, losses, states = list(feed.ids), [], [], []
    for images, labels in feed:
        assert [int(image.max()) for image in images] == [int(id_) for id_ in ids[: len(images)]]
        batches.append(ids[: len(images)])
        del ids[: len(images)]
        loss = torch.nn.functional.cross_entropy(model(images / 255), labels)
        loss.backward()
        losses.append(loss.item())
        states.append(feed.state_dict())
    assert not ids and feed.epoch == 1
    said = {"batches": batches, "losses": losses, "state": states[1]}
    Path(out, f"{dist.get_rank()}.json").write_text(json.dumps(said))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
