"""Runs as ONNX and TorchScript, on PyTorch: FOLDER with runs and their networks in, what each export said out, as JSON.

test_export_model trains the runs on another framework and judges the files.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import headrace as hr

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    said = {}
    for name in sys.argv[2:]:
        run = hr.Run(folder / name, network=f"{folder / 'nets.py'}:{name}")
        for format, ending in (("onnx", "onnx"), ("torchscript", "pt")):
            said[f"{name}.{ending}"] = run.export(folder / f"{name}.{ending}", format=format).json()
    print(json.dumps(said))
