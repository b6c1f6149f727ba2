"""Lightning's Trainer takes a TorchFeed as it is, and goes on in mid-epoch, after a kill -9 too."""

from __future__ import annotations

import importlib.util
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from packed import pack, shades
from ranks import TESTS

pytest.importorskip("torch")
if importlib.util.find_spec("lightning") is None:  # which takes seconds to import, and is not needed here
    pytest.skip("lightning is not installed", allow_module_level=True)

RUN = [sys.executable, str(TESTS / "frameworks" / "run_with_torchvision.py")]


def test_a_fit_that_is_killed_goes_on_with_the_next_batch(tmp_path: Path) -> None:
    ds = pack(shades(60), tmp_path / "ds")
    words = [*RUN, str(TESTS / "frameworks" / "run_lightning.py"), str(ds.path), str(tmp_path)]
    killed = subprocess.run([*words, "7"], capture_output=True, text=True, timeout=1000)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    done = subprocess.run(words, capture_output=True, text=True, timeout=1000)
    assert done.returncode == 0, done.stderr
    said = json.loads((tmp_path / "seen.json").read_text())

    loader = ds.loader(batch_size=12, seed=3)
    wanted = [(epoch, i, [int(id_) for id_ in batch.ids]) for epoch in range(3) for i, batch in enumerate(loader)]
    whole = said["whole"]
    assert [(epoch, i, numbers) for epoch, i, numbers, _ in whole] == wanted
    # The look at two batches before training, and a pass after each epoch, each from its beginning.
    records = [int(record.id) for record in ds]
    assert said["validated"] == [records[:24], records, records, records]

    # The killed one's last checkpoint, and then those of each step.
    assert [step for step, _ in said["resumed"]] == [6, *range(1, 16)]
    for step, seen in said["resumed"]:
        assert [numbers for _, _, numbers, _ in seen] == [numbers for _, _, numbers, _ in whole[step:]], step
        assert [loss for _, _, _, loss in seen] == [loss for _, _, _, loss in whole[step:]], step
