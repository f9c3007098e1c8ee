"""Which of Lightning's options a run of ours has, and which it has not, by name.

Lightning's loop knows epochs, samplers and trials. A run here is one epoch without end, counted in steps.
"""

from collections.abc import Mapping
from typing import Any

NO_EPOCHS = "a run is counted in steps and has no epochs"
NO_SUCH_LOOP = "a run trains and validates only; leave it out"
MAY_END = "it would keep Ctrl-C, SIGTERM and --minutes from ending the run; leave it out"

# Options that are refused: the values that ask for nothing, and what to do instead of the others.
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
    "max_epochs": ((None, -1), "training is counted in steps, not epochs: use --trainer.max_steps N"),
    "min_epochs": ((None,), MAY_END),
    "min_steps": ((None,), MAY_END),
    "model_registry": ((None,), "a run reads and writes no registry of models; leave it out"),
    "overfit_batches": ((0,), "give --data.photos a folder of a few photos instead"),
    "reload_dataloaders_every_n_epochs": ((0,), f"{NO_EPOCHS}; leave it out"),
    "use_distributed_sampler": ((False,), "the photos are shared out among the processes already; leave it out"),
}
LEAST = {
    "accumulate_grad_batches": 1,
    "gradient_clip_val": 0,
    "log_every_n_steps": 0,
    "num_sanity_val_steps": -1,
}
SPAWNING = ("ddp_spawn", "ddp_fork", "ddp_notebook")
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")


def check_options(options: Mapping[str, Any]) -> None:
    """Refuses what a run of ours has not.

    Args:
        options: the arguments of Lightning's Trainer, by name.

    Raises:
        ValueError: an option that would be ignored, leave less than a run leaves, or fail on its way.
    """
    for name, (nothing, instead) in REFUSED.items():
        if name in options and options[name] not in nothing:
            raise ValueError(f"--trainer.{name} {options[name]}: {instead}")
    strategy = options.get("strategy")
    if isinstance(strategy, str) and strategy.startswith(SPAWNING):
        raise ValueError(f"--trainer.strategy {strategy}: processes begin with the command; use ddp")
    for name, least in LEAST.items():
        if (value := options.get(name)) is not None and value < least:
            raise ValueError(f"--trainer.{name} {value}: must be at least {least}")
    interval, accumulated = options.get("val_check_interval"), options.get("accumulate_grad_batches", 1)
    if isinstance(interval, float) or (isinstance(interval, int) and interval < 1):
        raise ValueError(
            f"--trainer.val_check_interval {interval}: must be a whole number of steps from 1, or a time such as "
            f"00:00:10:00; --trainer.limit_val_batches 0 turns validation off"
        )
    if accumulated > 1 and interval is not None and not isinstance(interval, int):
        raise ValueError(
            f"--trainer.val_check_interval {interval} with --trainer.accumulate_grad_batches {accumulated}: a time may "
            f"come amid a step; give a number of steps"
        )


def check_precision(precision: str) -> None:
    """Refuses weights in other than float32, whether an option or a plugin asks for them.

    Args:
        precision: of a Trainer that is made, such as `bf16-mixed`.

    Raises:
        ValueError: another one than `PRECISIONS`.
    """
    if precision not in PRECISIONS:
        raise ValueError(
            f"--trainer.precision {precision}: the weights are trained in float32; it may be {', '.join(PRECISIONS)}"
        )


def batches_between_validations(options: Mapping[str, Any]) -> Any:
    """`val_check_interval` as Lightning counts it, in batches; a run shorter than that ends with a validation.

    Args:
        options: the arguments of Lightning's Trainer, checked; the interval in steps, a time, or None: at the end.
    """
    interval, steps = options["val_check_interval"], options["max_steps"]
    if interval is None or isinstance(interval, int):
        return min(interval or steps, steps) * options["accumulate_grad_batches"]
    return interval
