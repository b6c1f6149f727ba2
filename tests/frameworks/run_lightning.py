"""Fits by Lightning: `run_lightning.py DATASET OUT [KILL]`; test_lightning judges it.

With KILL the process ends by SIGKILL after so many steps, and OUT/killed holds its checkpoints, one of each second
step. Without, it fits to the end, again from each checkpoint of that, and from the killed one's last; what all of them
saw is written to OUT/seen.json.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import warnings
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

import headrace as hr

EPOCHS = 3


class Model(L.LightningModule):
    def __init__(self, kill: int = 0) -> None:
        super().__init__()
        self.kill = kill
        self.seen: list[Any] = []
        self.validated: list[list[int]] = []
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(192, 3)

    def training_step(self, batch: Any, i: int) -> torch.Tensor:
        images, labels = batch
        loss = torch.nn.functional.cross_entropy(self.layer(images.flatten(1) / 255), labels)
        self.seen.append([self.current_epoch, i, images[:, 0, 0, 0].int().tolist(), loss.item()])
        return loss

    def on_train_batch_end(self, *_: Any) -> None:
        if self.kill and self.global_step == self.kill:
            os.kill(os.getpid(), signal.SIGKILL)

    def on_validation_epoch_start(self) -> None:
        self.validated.append([])

    def validation_step(self, batch: Any, _: int) -> None:
        self.validated[-1] += batch[0][:, 0, 0, 0].int().tolist()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), 0.01)


def fit(path: str, folder: Path, every: int, *, kill: int = 0, checkpoint: Path | None = None) -> Model:
    ds, model = hr.Dataset(path), Model(kill)
    train = ds.loader(batch_size=12, seed=3, workers=2).to_torch(dtype=torch.float32)
    val = ds.loader(batch_size=12, shuffle=False).to_torch(dtype=torch.float32)
    keep = ModelCheckpoint(folder, filename="{step}", save_top_k=-1, every_n_train_steps=every)
    trainer = L.Trainer(
        max_epochs=EPOCHS,
        accelerator="cpu",
        callbacks=[keep],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, train, val, ckpt_path=checkpoint)
    return model


def step(checkpoint: Path) -> int:
    return int(checkpoint.stem.partition("=")[2])


def main(path: str, out: str, kill: int = 0) -> None:
    warnings.filterwarnings("ignore")
    if kill:
        fit(path, Path(out, "killed"), 2, kill=kill)
    whole = fit(path, Path(out, "whole"), 1)
    last = max(Path(out, "killed").glob("*.ckpt"), key=step)
    starts = [last, *sorted(Path(out, "whole").glob("*.ckpt"), key=step)]
    resumed = [[step(start), fit(path, Path(out, "more"), 100, checkpoint=start).seen] for start in starts]
    said = {"whole": whole.seen, "validated": whole.validated, "resumed": resumed}
    Path(out, "seen.json").write_text(json.dumps(said))


if __name__ == "__main__":
    main(*sys.argv[1:3], *map(int, sys.argv[3:]))
