"""Which options of Lightning's Trainer a run accepts, and which are refused by name.

Lightning's loop knows epochs, samplers and trials. A run here is one endless epoch, counted in
steps.
"""

from collections.abc import Mapping
from typing import Any

NO_EPOCHS = "a run is counted in steps and has no epochs"
NO_SUCH_LOOP = "a run trains and validates only; leave it out"
MAY_END = "it would keep Ctrl-C, SIGTERM and --minutes from ending the run; leave it out"

# Refused options: the values that change nothing and are accepted, and what to do instead.
REFUSED: dict[str, tuple[tuple[Any, ...], str]] = {
    "barebones": ((False,), "it leaves no network; `impasto benchmark` times training"),
    "check_val_every_n_epoch": ((None, 1), f"{NO_EPOCHS}; use --trainer.val_check_interval STEPS"),
    "enable_checkpointing": (
        (None, True),
        "no stopped run could go on; --checkpoint.every_n_train_steps N writes fewer checkpoints",
    ),
    "limit_predict_batches": ((None,), NO_SUCH_LOOP),
    "limit_test_batches": ((None,), NO_SUCH_LOOP),
    "limit_train_batches": ((None,), f"{NO_EPOCHS}; use --trainer.max_steps N, or fewer photos"),
    "max_epochs": (
        (None, -1),
        "training is counted in steps, not epochs: use --trainer.max_steps N",
    ),
    "min_epochs": ((None,), MAY_END),
    "min_steps": ((None,), MAY_END),
    "model_registry": ((None,), "a run reads and writes no registry of models; leave it out"),
    "overfit_batches": ((0,), "give --data.photos a folder of a few photos instead"),
    "reload_dataloaders_every_n_epochs": ((0,), f"{NO_EPOCHS}; leave it out"),
    "use_distributed_sampler": (
        (False,),
        "the photos are shared out among the processes already; leave it out",
    ),
}
# The smallest value of an option.
LEAST = {
    "accumulate_grad_batches": 1,
    "gradient_clip_val": 0,
    "log_every_n_steps": 0,
    "num_sanity_val_steps": -1,
}
# Strategies that start their processes from this one.
SPAWNING = ("ddp_spawn", "ddp_fork", "ddp_notebook")
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")


def check_options(options: Mapping[str, Any]) -> None:
    """Refuse options of Lightning's Trainer that a run cannot use.

    Args:
        options: the arguments of Lightning's Trainer, by name.

    Raises:
        ValueError: an option would be ignored, would make the run write less than it should, or
            would fail midway.
    """
    for name, (nothing, instead) in REFUSED.items():
        if name in options and options[name] not in nothing:
            raise ValueError(f"--trainer.{name} {options[name]}: {instead}")
    strategy = options.get("strategy")
    if isinstance(strategy, str) and strategy.startswith(SPAWNING):
        raise ValueError(
            f"--trainer.strategy {strategy}: processes begin with the command; use ddp"
        )
    for name, least in LEAST.items():
        if (value := options.get(name)) is not None and value < least:
            raise ValueError(f"--trainer.{name} {value}: must be at least {least}")
    interval, accumulated = (
        options.get("val_check_interval"),
        options.get("accumulate_grad_batches", 1),
    )
    if isinstance(interval, float) or (isinstance(interval, int) and interval < 1):
        raise ValueError(
            f"--trainer.val_check_interval {interval}: must be a whole number of steps from 1, or "
            "a time such as 00:00:10:00; --trainer.limit_val_batches 0 turns validation off"
        )
    if accumulated > 1 and interval is not None and not isinstance(interval, int):
        raise ValueError(
            f"--trainer.val_check_interval {interval} with --trainer.accumulate_grad_batches "
            f"{accumulated}: a time may come amid a step; give a number of steps"
        )


def check_precision(precision: str) -> None:
    """Refuse a precision that does not keep the weights in float32.

    Args:
        precision: precision of the finished Trainer, such as `bf16-mixed`, whether an option or
            a plugin set it.

    Raises:
        ValueError: it is not one of `PRECISIONS`.
    """
    if precision not in PRECISIONS:
        raise ValueError(
            f"--trainer.precision {precision}: the weights are trained in float32; it may be "
            f"{', '.join(PRECISIONS)}"
        )


def batches_between_validations(options: Mapping[str, Any]) -> Any:
    """Return the validation interval in batches, as Lightning counts it.

    A run shorter than the interval is validated at its end.

    Args:
        options: arguments of Lightning's Trainer that passed `check_options`. Their
            `val_check_interval` is in steps, a time, or None: at the end of the run.

    Returns:
        Batches; a time is returned as it is.
    """
    interval, steps = options["val_check_interval"], options["max_steps"]
    if interval is None or isinstance(interval, int):
        return min(interval or steps, steps) * options["accumulate_grad_batches"]
    return interval
