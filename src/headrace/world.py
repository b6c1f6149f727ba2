"""World: which of how many processes this one is, by its launcher or framework. What a rank gets is left to load.

No framework is imported here: only one that the process has imported by itself is asked.
"""

from __future__ import annotations

import os
import sys
from typing import Any, Literal, TypeAlias

from headrace.errors import UsageError

World: TypeAlias = tuple[int, int] | Literal["auto"] | None


def resolve(world: World) -> tuple[int, int]:
    """(rank, ranks) of this process: a pair as it is, None as (0, 1), "auto" as those say who know it.

    "auto" asks torch.distributed and JAX, each where it is imported and its processes have met, and the variables RANK
    and WORLD_SIZE, which torchrun sets and most launchers like it. Where nobody knows, this process is alone: (0, 1).
    SLURM's own variables are not read, as a job of several tasks need not be one training: there it is
    world=(int(os.environ["SLURM_PROCID"]), int(os.environ["SLURM_NTASKS"])).

    Raises UsageError: it is no such pair, two of them say different things, or a variable is missing or no number.
    """
    if world is None:
        return 0, 1
    if isinstance(world, str):
        if world == "auto":
            return _found()
    elif isinstance(world, tuple | list) and len(world) == 2 and all(map(_is_whole, world)):
        rank, ranks = map(int, world)
        if 0 <= rank < ranks:
            return rank, ranks
    raise UsageError(f"world is {world!r:.60}, wanted (rank, size) with 0 <= rank < size, or 'auto'")


def _is_whole(value: object) -> bool:
    return hasattr(value, "__index__") and not isinstance(value, bool)


def _found() -> tuple[int, int]:
    said = {name: pair for name, pair in (("torch.distributed", _torch()), ("jax.distributed", _jax())) if pair}
    # Half of the variables matters to nobody where a framework knows: Lightning sets WORLD_SIZE alone.
    pair = _environment(strict=not said)
    if pair:
        said["RANK and WORLD_SIZE"] = pair
    if len(set(said.values())) > 1:
        each = ", ".join(f"{name}: rank {rank} of {ranks}" for name, (rank, ranks) in said.items())
        raise UsageError(f"world='auto': {each}; unset what is not true, or pass world=(rank, size)")
    return next(iter(said.values()), (0, 1))


def _torch() -> tuple[int, int] | None:
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return None
    return distributed.get_rank(), distributed.get_world_size()


def _jax() -> tuple[int, int] | None:
    jax = sys.modules.get("jax")
    if jax is None or not _met(jax):
        return None
    return jax.process_index(), jax.process_count()


def _met(jax: Any) -> bool:
    """Whether the processes of JAX have met. `process_count` alone would start its devices, after which they can't."""
    asked = getattr(getattr(jax, "distributed", None), "is_initialized", None)
    if asked is not None:  # older releases have no such function
        return bool(asked())
    private = sys.modules.get("jax._src.distributed")
    return private is not None and private.global_state.client is not None


def _environment(*, strict: bool) -> tuple[int, int] | None:
    """What RANK and WORLD_SIZE say, None where they say nothing; `strict` complains where only one is set."""
    texts = {name: os.environ[name] for name in ("RANK", "WORLD_SIZE") if os.environ.get(name)}
    if len(texts) < 2:
        if texts and strict:
            (name,), other = texts, "WORLD_SIZE" if "RANK" in texts else "RANK"
            raise UsageError(
                f"world='auto': {name} is {texts[name]!r} in the environment, and {other} is not set; set both, make "
                "the loader once torch.distributed is initialised, or pass world=(rank, size)"
            )
        return None
    numbers = {name: int(text) for name, text in texts.items() if text.isascii() and text.isdigit()}
    wrong = ", ".join(f"{name} is {text!r}" for name, text in texts.items())
    if len(numbers) < 2 or numbers["RANK"] >= numbers["WORLD_SIZE"]:
        raise UsageError(
            f"world='auto': in the environment {wrong}, wanted numbers with 0 <= RANK < WORLD_SIZE; mend or unset them"
        )
    return numbers["RANK"], numbers["WORLD_SIZE"]
