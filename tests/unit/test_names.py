"""The names of the package: few to be seen, all to be had, none of them costing an import that is not used."""

from __future__ import annotations

import subprocess
import sys

import pytest

import headrace as hr


def test_few_are_shown() -> None:
    assert len(dir(hr)) <= 20 and set(dir(hr)) <= set(hr.__all__)


TRAINING = ("train", "evaluate", "predict", "Run", "Resume")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.frameworks if name in TRAINING else ()) for name in hr.__all__]
)
def test_each_is_there(name: str) -> None:
    if name in TRAINING:
        pytest.importorskip("keras", reason="keras is not installed")
    assert getattr(hr, name) is not None


@pytest.mark.parametrize("module", ["targets", "augment", "errors", "sources"])
def test_modules_hold_what_can_be_had_here(module: str) -> None:
    inside = vars(getattr(hr, module))
    here = [name for name in hr.__all__ if name in inside and name[0].isupper()]
    assert here and all(getattr(hr, name) is inside[name] for name in here)


def test_another_name_is_told() -> None:
    with pytest.raises(AttributeError, match="module 'headrace' has no attribute 'Datset'"):
        hr.Datset  # noqa: B018


def test_importing_it_imports_hardly_anything() -> None:
    code = "import sys, headrace; print([m for m in ('numpy', 'polars', 'cv2', 'keras') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
