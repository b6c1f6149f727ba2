"""Lightning's Trainer takes a feed as it is: python examples/lightning_fit.py DATASET [EPOCHS]

Its checkpoints hold where the feed stands. Start it again after whatever ended it, and it goes on in the midst of the
epoch, with the batch after the one of the last checkpoint.
"""

import sys
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

import headrace as hr


class Classifier(L.LightningModule):
    def __init__(self, classes: int) -> None:
        super().__init__()
        features = nn.Sequential(nn.Conv2d(3, 16, 5, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten())
        self.model = nn.Sequential(features, nn.Linear(256, classes))

    def loss(self, batch: list[torch.Tensor], name: str) -> torch.Tensor:
        images, labels = batch
        loss = nn.functional.cross_entropy(self.model(images / 255), labels)
        self.log(name, loss, batch_size=len(images))
        return loss

    def training_step(self, batch: list[torch.Tensor], _: int) -> torch.Tensor:
        return self.loss(batch, "loss")

    def validation_step(self, batch: list[torch.Tensor], _: int) -> torch.Tensor:
        return self.loss(batch, "val_loss")

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), 1e-3)


def main(path: str, epochs: int = 3) -> None:
    L.seed_everything(0)
    ds = hr.Dataset(path)
    parts = ds.divide({"train": 0.8, "val": 0.2})
    feeds = [part.loader(batch_size=16, size=96).to_torch() for part in parts]
    keep = ModelCheckpoint("lightning", save_last=True, every_n_train_steps=20, save_on_train_epoch_end=True)
    trainer = L.Trainer(max_epochs=epochs, callbacks=[keep], logger=False, enable_progress_bar=False)
    last = Path("lightning/last.ckpt")
    trainer.fit(Classifier(len(ds.class_names)), *feeds, ckpt_path=str(last) if last.exists() else None)
    print(f"{trainer.global_step} steps, val_loss {trainer.callback_metrics['val_loss']:.4f}")


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
