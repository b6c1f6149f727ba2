"""torchvision and Albumentations for tests, or a skip that says which of them is missing."""

from __future__ import annotations

import importlib
import os
from typing import Any

import pytest


def torchvision_v2() -> Any:
    """The module torchvision.transforms.v2.

    The wheel on PyPI is built for CUDA, and beside a torch for CPUs alone its compiled operators can't be loaded, of
    which transforms need none. Then torchvision can't be imported, as it describes two of them; so they are declared.
    """
    torch = pytest.importorskip("torch")
    try:
        return importlib.import_module("torchvision.transforms.v2")
    except ImportError:
        pytest.skip("torchvision is not installed")
    except RuntimeError as error:
        if "operator torchvision::nms does not exist" not in str(error):
            raise
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _declared.append(library)  # they are there as long as it is
    return importlib.import_module("torchvision.transforms.v2")


def albumentations() -> Any:
    """The module albumentations, which else asks the network for a newer version when it is imported."""
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    return pytest.importorskip("albumentations")


_declared: list[Any] = []
