"""DDP on all GPUs of a machine, or on its CPUs: torchrun --nproc-per-node 2 examples/ddp.py DATASET [EPOCHS]

Each rank loads its part of each batch, and no record comes twice. ddp.pt is written every 20 batches; start it again,
with as many ranks as there are then, and it goes on: batch_size is that of all ranks together.
"""

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import headrace as hr

SAVED = Path("ddp.pt")


def main(path: str, epochs: int = 3) -> None:
    on_gpu = torch.cuda.is_available()
    dist.init_process_group("nccl" if on_gpu else "gloo")
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if on_gpu else torch.device("cpu")
    ds = hr.Dataset(path)
    loader = ds.loader(batch_size=24, size=96, shuffle=True, drop_last=True, world="auto")  # after the ranks have met
    feed = loader.to_torch(device=device, dtype=torch.float32)

    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 16, 5, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten())
    model = nn.Sequential(model, nn.Linear(256, len(ds.class_names))).to(device)
    model = DistributedDataParallel(model, device_ids=[device.index] if on_gpu else None)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    if SAVED.exists():
        saved = torch.load(SAVED, map_location=device, weights_only=True)
        model.module.load_state_dict(saved["model"])
        feed.load_state_dict(saved["feed"])  # the same on every rank

    def save() -> None:
        if dist.get_rank() == 0:
            parts = {"model": model.module.state_dict(), "feed": feed.state_dict()}
            torch.save(parts, SAVED.with_suffix(".new"))
            SAVED.with_suffix(".new").replace(SAVED)

    while (epoch := feed.epoch) < epochs:
        for step, (images, labels) in enumerate(feed, 1):
            loss = nn.functional.cross_entropy(model(images / 255), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if step % 20 == 0:
                save()
        save()
        print(f"rank {dist.get_rank()} of {dist.get_world_size()}, epoch {epoch}: loss {loss.item():.4f}")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
