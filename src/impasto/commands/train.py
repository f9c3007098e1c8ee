"""`train`, `train-any`, `distill`: LightningCLI with one folder for all files of a run."""

import os
import sys
from argparse import ArgumentError
from pathlib import Path
from pickle import UnpicklingError
from shlex import quote
from signal import SIGINT, SIGTERM, getsignal, signal
from tempfile import TemporaryDirectory
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from pytorch_lightning.plugins.io import CheckpointIO
from pytorch_lightning.plugins.precision import Precision
from pytorch_lightning.utilities.exceptions import MisconfigurationException, SIGTERMException
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from impasto.commands.training_help import EXAMPLES
from impasto.data.files import located
from impasto.data.modules import Photos
from impasto.images import read_image, write_image
from impasto.images.paintings import check_style_names
from impasto.inference import Stylizer
from impasto.perceptual.vgg import COMPACT_FILE
from impasto.shipped import shipped_config
from impasto.training.arbitrary import AnyStyles
from impasto.training.callbacks import LossTable, Previews, ShowProgress, StopSafely
from impasto.training.checkpoints import (
    Checkpoints,
    WholeCheckpoints,
    claim,
    damage,
    holds_run,
    newest_checkpoint,
)
from impasto.training.distillation import Distillation, faithfulness
from impasto.training.fixed import FixedStyles
from impasto.training.modes import batches_between_validations, check_options, check_precision
from impasto.training.schedule import Schedule
from impasto.writing import check_folder, write_text

PROFILERS = {
    "simple": pl.profilers.SimpleProfiler,
    "advanced": pl.profilers.AdvancedProfiler,
    "pytorch": pl.profilers.PyTorchProfiler,
}


class TrainingCLI(LightningCLI):
    """`fit` and `validate` of the command `train`.

    `configs/default.yaml` is always read. Further configs and options override it.

    `status` is the exit status of the process: 0, or 128 + the number of the signal that stopped
    the run, as shells and schedulers expect it (143: SIGTERM).
    """

    status = 0
    rehearsal: TemporaryDirectory[str] | None = None  # folder of a --trainer.fast_dev_run

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Return the subcommands, with the arguments of Trainer methods that are no options."""
        return {
            "fit": {"model", "train_dataloaders", "val_dataloaders", "datamodule"},
            "validate": {"model", "dataloaders", "datamodule"},
        }

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument(
            "--run",
            type=str | None,
            default=None,
            help="folder of the run: checkpoints, losses, the network, previews (default: "
            "trainer.default_root_dir, or else runs/ and its name)",
        )
        parser.add_argument(
            "--minutes",
            type=float | None,
            default=None,
            help="train for so long, whatever the machine: the learning rate follows the clock "
            "and is 0 at the end; trainer.max_steps ends a run that comes to them before "
            "(default: steps alone decide)",
        )
        parser.add_lightning_class_args(Checkpoints, "checkpoint")
        self.add_pictures(parser)

    def add_pictures(self, parser: LightningArgumentParser) -> None:
        """Add the options of a module that paints pictures: previews and --try_on."""
        parser.add_lightning_class_args(Previews, "previews")
        parser.add_argument(
            "--try_on",
            type=str | None,
            default=None,
            help="a photo that the finished network stylizes, into the folder of the run",
        )

    def default_run(self, config: Any) -> str:
        """Return the name of a run without --run: its styles, joined by +."""
        check_style_names(config.model.styles)
        return "+".join(config.model.styles or ["none"])

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse the command line, and find the checkpoint that --ckpt_path means.

        Lightning opens the checkpoint right after this. Our options are moved before Lightning's,
        for --help-all.
        """
        for command in self._subcommand_parsers.values():
            command._action_groups = sorted(command._action_groups, key=_is_lightnings)
        super().parse_arguments(parser, args)
        config = self.config[self.config.subcommand]
        config.run = (
            config.run or config.trainer.default_root_dir or f"runs/{self.default_run(config)}"
        )
        config.ckpt_path = _checkpoint_to_go_on_from(config.ckpt_path, Path(config.run))

    def before_instantiate_classes(self) -> None:
        """Check the options before anything is built, and settle the folder of the run."""
        config = self.config[self.subcommand]
        run = Path(config.run)
        if config.get("try_on"):
            read_image(located(config.try_on))  # a bad photo fails now, not at the end of the run
        check_options(vars(config.trainer))
        if config.trainer.max_time is not None:
            # --minutes lowers the learning rate to 0 in time. Lightning's own timer does not.
            config.minutes, config.trainer.max_time = _minutes(config), None
        if self.subcommand == "fit" and _writes():
            _refuse_bad_run(config, run)
        config.trainer.default_root_dir = str(run)
        if self.subcommand == "fit" and config.trainer.fast_dev_run:
            self.rehearsal = TemporaryDirectory(prefix="impasto-")  # removed with this object
            config.trainer.default_root_dir = self.rehearsal.name

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        """Return a Trainer with our callbacks, whole checkpoints and a log for TensorBoard.

        Unless a precision is given, it trains in bfloat16 where that is faster.
        """
        self.stop = StopSafely()
        self.schedule = Schedule(self._get(self.config_init, "minutes"))
        options = self._get(self.config_init, "trainer")
        callbacks = [self.schedule, self.stop, LossTable()]
        others = any(
            isinstance(callback, pl.callbacks.ProgressBar)
            for callback in _listed(options.callbacks)
        )
        if options.enable_progress_bar is not False and not others:
            callbacks.append(ShowProgress(self.schedule))
        self.trainer_defaults = {"callbacks": callbacks}
        plugins = _listed(options.plugins)
        if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
            plugins.append(WholeCheckpoints())
        decided = options.precision is not None or any(
            isinstance(plugin, Precision) for plugin in plugins
        )
        if not decided and _has_bf16(options.accelerator):
            kwargs["precision"] = self.config[self.subcommand].trainer.precision = "bf16-mixed"
        if self.subcommand == "fit":
            kwargs["val_check_interval"] = batches_between_validations(vars(options))
        if options.profiler in PROFILERS:  # else its report goes to a log that is not shown
            kwargs["profiler"] = PROFILERS[options.profiler](options.default_root_dir, "profile")
        trainer = super().instantiate_trainer(plugins=plugins, **kwargs)
        check_precision(str(trainer.precision))
        # Schedule comes first: after a step it tells the other callbacks whether it was the last.
        trainer.callbacks.sort(key=lambda callback: not isinstance(callback, Schedule))  # type: ignore[attr-defined]
        if trainer.loggers and isinstance(trainer.logger, pl.loggers.TensorBoardLogger):
            trainer.logger = pl.loggers.TensorBoardLogger(
                trainer.default_root_dir, name="", version="tensorboard"
            )
        return trainer

    def before_fit(self) -> None:
        """Lock the run's folder, write the config there, and note it for the published file."""
        run = Path(self.trainer.default_root_dir)
        if self.trainer.is_global_zero and not self.rehearsal:
            claim(run)
            write_text(run / "config.yaml", self.parser.dump(self.config), overwrite=True)
        config = self.config[self.subcommand]
        self.model.run_config = {
            "batch_size": config.data.batch_size * self.trainer.world_size,
            "crop": config.data.crop,
            "learning_rate": config.model.learning_rate,
            "minutes": config.minutes,
            "precision": str(self.trainer.precision),
            "seed": config.data.seed,
        }

    def after_fit(self) -> None:
        """Publish the result of a finished run, or say how to resume a stopped one."""
        run = Path(self.trainer.default_root_dir)
        if not self.trainer.is_global_zero:
            return
        step, status = self.trainer.global_step, self.stop.status
        if self.rehearsal:
            print(f"rehearsed: {step} steps went well; nothing of them was kept")
            self.status = status
            return
        if status and not self.schedule.finished:
            print(
                f"stopped at step {step}; the same command with --ckpt_path last goes on from there"
            )
            self.status = status
            return
        if self.trainer.should_stop and not self.schedule.finished:
            print(f"ended at step {step}, as one of --trainer.callbacks asked")
        self.publish(run)

    def before_validate(self) -> None:
        """Say what will be measured if no checkpoint is given."""
        if self.config[self.subcommand].ckpt_path is None:
            print("no --ckpt_path: the network is measured as it is before training")

    def after_validate(self) -> None:
        """Print the losses, or that no photos are kept for validation."""
        if not self.trainer.is_global_zero:
            return
        found = self.trainer.callback_metrics
        for name, value in found.items():
            print(f"{name} {float(value):.3f}")
        if not found:
            print("no photos are kept for validation (--data.val_photos, of ten times as many)")

    def publish(self, run: Path) -> None:
        """Write the finished network, stylize the --try_on photo, and print how to go on."""
        styles = list(self.model.styles)
        published = self.model.publish(
            run / f"{styles[0] if len(styles) == 1 else run.name}.safetensors"
        )
        if place := self.config[self.subcommand].try_on:
            photo = located(place)
            picture = run / f"{photo.stem}_{styles[0]}.png"
            write_image(
                picture, Stylizer(published, styles[0]).stylize(read_image(photo)), overwrite=True
            )
            print(f"picture: {picture}")
        style = f" --style {quote(styles[0])}" if len(styles) > 1 else ""
        print(
            f"network: {published}\nstylize with it: python scripts/infer.py PHOTO "
            f"--network {quote(str(published))}{style}"
        )


class AnyStylesCLI(TrainingCLI):
    """`fit` and `validate` of the command `train-any`."""

    def add_pictures(self, parser: LightningArgumentParser) -> None:
        """Add the options of previews."""
        parser.add_lightning_class_args(Previews, "previews")

    def default_run(self, config: Any) -> str:
        """Return the name of a run without --run."""
        return "any"

    def publish(self, run: Path) -> None:
        """Write the finished network, and print how to go on."""
        published = self.model.publish(run / f"{run.name}.safetensors")
        print(
            f"network: {published}\nstylize with it: python scripts/infer.py PHOTO "
            f"--network {quote(str(published))} --style PAINTING"
        )


class DistillationCLI(TrainingCLI):
    """`fit` and `validate` of the command `distill`; `configs/distill.yaml` is always read."""

    def add_pictures(self, parser: LightningArgumentParser) -> None:
        """Add nothing: a loss network paints no pictures."""

    def default_run(self, config: Any) -> str:
        """Return the name of a run without --run."""
        return "compact"

    def publish(self, run: Path) -> None:
        """Write the loss network and the table of its errors, and print how to use it."""
        published, errors = run / COMPACT_FILE, self.model.errors()
        # A finished run that is resumed has no new errors. Then its file stays.
        if errors or not published.exists():
            self.model.publish(published)
        if errors:
            table = run / "faithfulness.md"
            write_text(table, faithfulness(errors), overwrite=True)
            print(f"its errors: {table}")
        print(
            f"loss network: {published}\ntrain with it: python scripts/train.py fit "
            f"--model.loss.network compact --model.loss.weights {published} …"
        )


def _is_lightnings(group: Any) -> bool:
    """Whether a group of options is of Lightning's Trainer, optimizer or scheduler."""
    first = next((action.dest for action in group._group_actions), "")
    return first.partition(".")[0] in ("trainer", "optimizer", "lr_scheduler")


def _checkpoint_to_go_on_from(asked: str | None, run: Path) -> str | None:
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
        if found and _writes():
            print(f"going on from {found}")
        return str(found) if found else None
    if asked and (why := damage(Path(asked))):
        raise ValueError(
            f"--ckpt_path {asked}: cannot be read ({why}); it may be last (the newest that is "
            "whole), auto (the same, or a new run where there is none), or a .ckpt file"
        )
    return asked


def _minutes(config: Any) -> float:
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


def _writes() -> bool:
    """Whether this process, among those of all machines, writes the files.

    Unlike `trainer.is_global_zero` it is known before there is a Trainer.
    """
    return getattr(rank_zero_only, "rank", 0) == 0 and os.environ.get("NODE_RANK", "0") == "0"


def _refuse_bad_run(config: Any, run: Path) -> None:
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


def _listed(value: Any) -> list[Any]:
    """Return None, one value or a list of values as a new list."""
    return list(value) if isinstance(value, list) else [] if value is None else [value]


def _has_bf16(accelerator: str) -> bool:
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


def train(arguments: list[str]) -> int:
    """Run `impasto train` with the arguments of a command line; return the exit status."""
    return _start(TrainingCLI, FixedStyles, "train", "default.yaml", arguments)


def train_any(arguments: list[str]) -> int:
    """Run `impasto train-any` with the arguments of a command line; return the exit status."""
    return _start(AnyStylesCLI, AnyStyles, "train-any", "default.yaml", arguments)


def distill(arguments: list[str]) -> int:
    """Run `impasto distill` with the arguments of a command line; return the exit status."""
    return _start(DistillationCLI, Distillation, "distill", "distill.yaml", arguments)


def _start(
    cli: type[TrainingCLI],
    module: type[pl.LightningModule],
    command: str,
    config: str,
    arguments: list[str],
) -> int:
    """Run a LightningCLI, and turn its errors that users can mend into one line.

    Args:
        cli: the CLI of the command.
        module: the module that it trains.
        command: name of the command.
        config: file name of the config that is always read.
        arguments: the command line after the command's name.

    Returns:
        The exit status.

    Raises:
        ValueError: a mistake of the user; the message is one line.
        KeyboardInterrupt: Ctrl-C came before the first step.
    """
    heeding = getsignal(SIGINT)
    # --help is answered before Lightning is imported. The parser's own help has all its options.
    arguments = ["--help" if word == "--help-all" else word for word in arguments]
    epilog = f"Example: {EXAMPLES[command]}"
    options = {"exit_on_error": False, "allow_abbrev": False, "epilog": epilog}
    commands = {
        name: {
            "default_config_files": shipped_config(config),
            "usage": f"impasto {command} {name} [options]",
            **options,
        }
        for name in cli.subcommands()
    }
    try:
        return cli(
            module,
            Photos,
            args=arguments,
            save_config_callback=None,
            seed_everything_default=0,
            parser_kwargs={"prog": f"impasto {command}", **options, **commands},
        ).status
    except SIGTERMException:  # Lightning's own reaction to a signal just before training
        print(
            f"impasto {command}: stopped by SIGTERM, before there was a checkpoint to write",
            file=sys.stderr,
        )
        return 128 + SIGTERM
    except SystemExit as stop:
        # On Ctrl-C before the first step, Lightning exits with 1, without a message, and ignores
        # further Ctrl-C.
        if not isinstance(stop.__context__, KeyboardInterrupt):
            raise
        signal(SIGINT, heeding)
        raise KeyboardInterrupt from stop
    except ArgumentError as error:
        raise ValueError(f"{error} (--help lists the options)") from error
    except MisconfigurationException as error:  # such as an accelerator that is not there
        raise ValueError(str(error)) from error
    except ModuleNotFoundError as error:
        if error.name is not None:  # a broken installation; Lightning's own errors have no name
            raise
        raise ValueError(
            f"the command asks for what is not installed: {str(error).split(' HINT')[0]}"
        ) from error
    except UnpicklingError as error:
        raise ValueError(
            f"--ckpt_path: not a checkpoint of impasto ({str(error).split('.')[0]})"
        ) from error
    except torch.OutOfMemoryError as error:
        raise ValueError(
            "the GPU's memory is full: lower --data.batch_size, --data.crop or --model.width"
        ) from error
