"""A loop of plain PyTorch that goes on where it was stopped: python examples/torch_loop.py DATASET [EPOCHS]

DATASET is a folder that `headrace pack` made, of photos with a class. loop.pt is written every 20 batches; start it
again after whatever ended it, and it goes on with the batch after the one that was trained on last.
"""

import sys
from pathlib import Path

import torch
from torch import nn

import headrace as hr

SAVED = Path("loop.pt")


def main(path: str, epochs: int = 3) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    ds = hr.Dataset(path)
    loader = ds.loader(batch_size=32, size=96, shuffle=True, augment=hr.HorizontalFlip())
    feed = loader.to_torch(device=device, dtype=torch.float32)  # a batch ahead on CUDA; values are 0 to 255

    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 16, 5, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten())
    model = nn.Sequential(model, nn.Linear(256, len(ds.class_names))).to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    if SAVED.exists():
        saved = torch.load(SAVED, weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        feed.load_state_dict(saved["feed"])

    def save() -> None:
        parts = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "feed": feed.state_dict()}
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
        print(f"epoch {epoch}: loss {loss.item():.4f}")


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
