"""What is decided about a run before its Trainer is built."""

import os
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from impasto.training.checkpoints import damage, holds_run, newest_checkpoint
from impasto.writing import check_folder


def checkpoint_to_go_on_from(asked: str | None, run: Path) -> str | None:
    """Return the checkpoint to resume from.

    Args:
        asked: `last`, `auto`, a file, or None.
        run: folder of the run.

    Returns:
        For `last` and `auto` the newest undamaged checkpoint of the run; else the file given.
        None begins a new run: nothing was asked for, or `auto` found no checkpoint.

    Raises:
        ValueError: `last` found no checkpoint, or all of them, or the file, are damaged.
    """
    if asked in ("last", "auto"):
        found = newest_checkpoint(run)
        if found is None and asked == "last":
            raise ValueError(
                f"{run} holds no checkpoint to go on from: check --run and the styles, "
                "or leave --ckpt_path out"
            )
        if found and writes():
            print(f"going on from {found}")
        return str(found) if found else None
    if asked and (why := damage(Path(asked))):
        raise ValueError(
            f"--ckpt_path {asked}: cannot be read ({why}); it may be last (the newest that is "
            "whole), auto (the same, or a new run where there is none), or a .ckpt file"
        )
    return asked


def minutes(config: Any) -> float:
    """Return --trainer.max_time in minutes.

    Raises:
        ValueError: --minutes is given too.
    """
    asked = config.trainer.max_time
    if config.minutes is not None:
        raise ValueError(
            f"--trainer.max_time {asked} and --minutes {config.minutes}: they are one option; "
            "give one"
        )
    # Lightning's timer reads all forms of max_time. It has not started, so all time is left.
    return pl.callbacks.Timer(duration=asked).time_remaining() / 60  # type: ignore[operator]


def writes() -> bool:
    """Whether this process, among those of all machines, writes the files.

    Unlike `trainer.is_global_zero` it is known before there is a Trainer.
    """
    return getattr(rank_zero_only, "rank", 0) == 0 and os.environ.get("NODE_RANK", "0") == "0"


def refuse_bad_run(config: Any, run: Path) -> None:
    """Refuse a run before it starts.

    Raises:
        ValueError: the run would overwrite an earlier one, never end, or fail after hours since
            its folder cannot be written.
    """
    if (config.trainer.max_steps or -1) < 1:
        raise ValueError(f"--trainer.max_steps {config.trainer.max_steps}: must be at least 1")
    if config.trainer.fast_dev_run and config.ckpt_path:
        raise ValueError(
            "--trainer.fast_dev_run rehearses the beginning of a run: leave --ckpt_path out"
        )
    if holds_run(run) and not config.ckpt_path and not config.trainer.fast_dev_run:
        raise ValueError(
            f"{run} holds a run already: go on with --ckpt_path last, or choose another folder "
            "with --run"
        )
    try:
        check_folder(run)
    except OSError as error:
        raise ValueError(
            f"--run {run}: cannot be written ({error.strerror}); choose another folder"
        ) from error


def has_bf16(accelerator: str) -> bool:
    """Whether bfloat16 is fast: on a GPU that has it, or on a CPU with AVX512-BF16 or AMX.

    Args:
        accelerator: as given to Lightning's Trainer, such as auto, cpu or gpu.
    """
    if accelerator != "cpu" and torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if accelerator not in ("cpu", "auto") or torch.backends.mps.is_available():
        return False
    return any(
        getattr(torch.cpu, name, bool)()
        for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    )
