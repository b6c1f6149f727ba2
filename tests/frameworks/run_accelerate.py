"""One rank of a training by Accelerate under torchrun: `run_accelerate.py DATASET OUT`; test_accelerate judges it.

Two batches of an epoch, a checkpoint, the rest, and the same once more from the checkpoint. Writes OUT/RANK.json.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader

import headrace as hr


def main(path: str, out: str) -> None:
    accelerator = Accelerator(cpu=True)
    loader = hr.Dataset(path).loader(batch_size=12, seed=3, world="auto")
    feed = loader.to_torch(device=accelerator.device, dtype=torch.float32)
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 3))
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    model, optimizer, prepared = accelerator.prepare(model, optimizer, feed)
    assert prepared is feed
    accelerator.register_for_checkpointing(feed)

    def rest() -> list[Any]:
        seen = []
        for images, labels in feed:
            loss = torch.nn.functional.cross_entropy(model(images / 255), labels)
            optimizer.zero_grad()
            accelerator.backward(loss)
            optimizer.step()
            seen.append([images[:, 0, 0, 0].int().tolist(), loss.item()])
            if len(seen) == 2 and feed.state_dict()["batch"] == 2:
                accelerator.save_state(str(Path(out, "state")))
        return seen

    whole = rest()
    accelerator.load_state(str(Path(out, "state")))
    said: dict[str, Any] = {"whole": whole, "resumed": rest()}
    try:
        next(iter(accelerator.prepare(DataLoader(loader.to_torch(), batch_size=None))))
    except hr.UsageError as error:
        said["refused"] = str(error)
    Path(out, f"{accelerator.process_index}.json").write_text(json.dumps(said))


if __name__ == "__main__":
    main(*sys.argv[1:])
