"""LightningCLI with one folder for all files of a run: what the training commands share."""

import sys
from abc import abstractmethod
from argparse import ArgumentError
from pathlib import Path
from pickle import UnpicklingError
from signal import SIGINT, SIGTERM, getsignal, signal
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import pytorch_lightning as pl
import torch
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from pytorch_lightning.plugins.io import CheckpointIO
from pytorch_lightning.plugins.precision import Precision
from pytorch_lightning.utilities.exceptions import MisconfigurationException, SIGTERMException

from impasto.commands.arguments import names_of, told_by_lightning
from impasto.commands.idle import Need, Needs, only_with, refuse_idle
from impasto.commands.run_checks import (
    checkpoint_to_go_on_from,
    has_bf16,
    minutes,
    refuse_bad_run,
    writes,
)
from impasto.commands.training_help import EXAMPLES
from impasto.data.modules import Photos
from impasto.shipped import shipped_config
from impasto.training.callbacks import LossTable, ShowProgress, StopSafely
from impasto.training.checkpoints import (
    Checkpoints,
    WholeCheckpoints,
    abandon,
    claim,
)
from impasto.training.modes import batches_between_validations, check_options, check_precision
from impasto.training.schedule import Schedule
from impasto.writing import write_text

PROFILERS = {
    "simple": pl.profilers.SimpleProfiler,
    "advanced": pl.profilers.AdvancedProfiler,
    "pytorch": pl.profilers.PyTorchProfiler,
}


class TrainingCLI(LightningCLI):
    """`fit` and `validate` of a training command.

    Each command has a config that is always read. Further configs and options override it.

    `status` is the exit status of the process: 0, or 128 + the number of the signal that stopped
    the run, as shells and schedulers expect it (143: SIGTERM).
    """

    # What options need in order to act.
    needs: ClassVar[Needs] = {
        "model.gap_photos": only_with("model.loss.balance", "relative", "dynamic"),
        "model.loss.secondary_layers": only_with("model.loss.secondary_weight"),
        "previews.photos": only_with("previews.every_n_steps"),
        "data.clips": Need(
            "acts only with --model.temporal_weight or --model.feature_weight; give one of them "
            "too, or leave it out",
            lambda given: any(
                given.model.get(name) for name in ("temporal_weight", "feature_weight")
            ),
        ),
    }
    status = 0
    new = False  # whether this run made its folder
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
        self.add_own_arguments(parser)

    def add_own_arguments(self, parser: LightningArgumentParser) -> None:
        """Add the options that this command alone has."""

    @abstractmethod
    def default_run(self, config: Any) -> str:
        """Return the name of a run without --run."""

    @abstractmethod
    def publish(self, run: Path) -> None:
        """Write the result of a finished run into its folder, and print how to use it."""

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse the command line, and find the checkpoint that --ckpt_path means.

        Lightning opens the checkpoint right after this. Our options are moved before Lightning's,
        for --help-all.
        """
        for command in self._subcommand_parsers.values():
            command._action_groups = sorted(command._action_groups, key=_is_lightnings)
        super().parse_arguments(parser, args)
        config = self.config[self.config.subcommand]
        refuse_idle(names_of(args), config, self.needs)
        config.run = (
            config.run or config.trainer.default_root_dir or f"runs/{self.default_run(config)}"
        )
        config.ckpt_path = checkpoint_to_go_on_from(config.ckpt_path, Path(config.run))

    def before_instantiate_classes(self) -> None:
        """Check the options before anything is built, and settle the folder of the run."""
        config = self.config[self.subcommand]
        run = Path(config.run)
        check_options(vars(config.trainer))
        if config.trainer.max_time is not None:
            # --minutes lowers the learning rate to 0 in time. Lightning's own timer does not.
            config.minutes, config.trainer.max_time = minutes(config), None
        if self.subcommand == "fit" and writes():
            refuse_bad_run(config, run)
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
        if not decided and has_bf16(options.accelerator):
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

    def _run_subcommand(self, subcommand: str) -> None:
        """Run `fit` or `validate`; a run that ends before its first step leaves no folder."""
        try:
            super()._run_subcommand(subcommand)
        except BaseException:
            if self.new and self.trainer.global_step == 0:
                abandon(Path(self.trainer.default_root_dir))
            raise

    def before_fit(self) -> None:
        """Lock the run's folder, write the config there, and note it for the published file."""
        run = Path(self.trainer.default_root_dir)
        if self.trainer.is_global_zero and not self.rehearsal:
            self.new = claim(run)
            write_text(run / "config.yaml", self.parser.dump(self.config), overwrite=True)
        config = self.config[self.subcommand]
        clips = self.datamodule.clips or []
        self.model.run_config = {
            "batch_size": config.data.batch_size * self.trainer.world_size,
            "crop": config.data.crop,
            "learning_rate": config.model.learning_rate,
            "minutes": config.minutes,
            "precision": str(self.trainer.precision),
            "seed": config.data.seed,
            "clips": [Path(clip).name for clip in clips],
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


def _is_lightnings(group: Any) -> bool:
    """Whether a group of options is of Lightning's Trainer, optimizer or scheduler."""
    first = next((action.dest for action in group._group_actions), "")
    return first.partition(".")[0] in ("trainer", "optimizer", "lr_scheduler")


def _listed(value: Any) -> list[Any]:
    """Return None, one value or a list of values as a new list."""
    return list(value) if isinstance(value, list) else [] if value is None else [value]


def start(
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
        raise ValueError(told_by_lightning(str(error))) from error
    except TypeError as error:
        if "`devices`" not in str(error):
            raise
        raise ValueError(f"--trainer.devices: {error}") from error
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
