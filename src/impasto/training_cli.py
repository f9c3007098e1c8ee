"""The training command: LightningCLI over FixedStyles and Photos, with one folder for everything a run leaves."""

from argparse import ArgumentError
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI

from impasto.callbacks import LossTable, Previews, ShowProgress, StopSafely
from impasto.data.modules import Photos
from impasto.training import FixedStyles

DEFAULTS = [folder / "configs" / "default.yaml" for folder in (Path(__file__).parents[2], Path(__file__).parent)]


class TrainingCLI(LightningCLI):
    """`fit` and `validate`; `configs/default.yaml` is always read, other files and options go on top."""

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        return {"fit": {"model", "train_dataloaders", "val_dataloaders", "datamodule"},
                "validate": {"model", "dataloaders", "datamodule"}}  # fmt: skip

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument(
            "--run", type=str | None, default=None,
            help="folder of the run: checkpoints, previews, losses, the network (default: runs/STYLES)",
        )  # fmt: skip
        parser.add_lightning_class_args(ModelCheckpoint, "checkpoint")
        parser.add_lightning_class_args(Previews, "previews")

    def before_instantiate_classes(self) -> None:
        config = self.config[self.subcommand]
        run = Path(config.run or "runs/" + "+".join(config.model.styles or ["none"]))
        _refuse_bad_run(config, run)
        config.trainer.default_root_dir = str(run)
        config.checkpoint.dirpath = str(run / "checkpoints")
        interval = config.trainer.val_check_interval
        if self.subcommand == "fit" and isinstance(interval, int):  # a short run ends with a validation too
            config.trainer.val_check_interval = min(interval, config.trainer.max_steps)
        if config.trainer.precision is None and config.trainer.accelerator != "cpu" and _device_has_bf16():
            config.trainer.precision = "bf16-mixed"

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        """Adds the callbacks every run has, and TensorBoard in the run's folder."""
        self.stop = StopSafely()
        self.trainer_defaults = {"callbacks": [self.stop, LossTable(), ShowProgress()]}
        trainer = super().instantiate_trainer(**kwargs)
        if trainer.loggers and isinstance(trainer.logger, pl.loggers.TensorBoardLogger):
            trainer.logger = pl.loggers.TensorBoardLogger(trainer.default_root_dir, name="", version="tensorboard")
        return trainer

    def before_fit(self) -> None:
        """Keeps the config beside the results, and in the published file."""
        run = Path(self.trainer.default_root_dir)
        if self.trainer.is_global_zero:
            run.mkdir(parents=True, exist_ok=True)
            self.parser.save(self.config, run / "config.yaml", overwrite=True, multifile=False)
        config = self.config[self.subcommand]
        self.model.run_config = {
            "batch_size": config.data.batch_size * self.trainer.world_size,
            "crop": config.data.crop,
            "learning_rate": config.model.learning_rate,
            "precision": str(self.trainer.precision),
            "seed": config.data.seed,
        }

    def after_fit(self) -> None:
        """Publishes a finished run; says how to go on with a stopped one."""
        run = Path(self.trainer.default_root_dir)
        if not self.trainer.is_global_zero:
            return
        if self.trainer.global_step < self.trainer.max_steps:
            print(
                f"stopped at step {self.trainer.global_step}; the same command with --ckpt_path last goes on from there"
            )
            return
        name = next(iter(self.model.styles)) if len(self.model.styles) == 1 else run.name
        published = self.model.publish(run / f"{name}.safetensors")
        style = f" --style {next(iter(self.model.styles))}" if len(self.model.styles) > 1 else ""
        print(f"network: {published}\nstylize with it: python scripts/infer.py PHOTO --network {published}{style}")


def _refuse_bad_run(config: Any, run: Path) -> None:
    """What would lose an earlier run, never end, or fail after hours for want of a folder."""
    if config.trainer.max_epochs not in (None, -1):
        raise ValueError("training is counted in steps, not epochs: use --trainer.max_steps N")
    if (config.trainer.max_steps or -1) < 1 and "ckpt_path" in config:
        raise ValueError(f"--trainer.max_steps {config.trainer.max_steps}: must be at least 1")
    if (run / "checkpoints" / "last.ckpt").exists() and not config.ckpt_path:
        raise ValueError(f"{run} holds a run already: go on with --ckpt_path last, or choose another folder with --run")
    if config.ckpt_path == "last" and not (run / "checkpoints" / "last.ckpt").exists():
        raise ValueError(
            f"{run} holds no checkpoint to go on from: check --run and the styles, or leave --ckpt_path out"
        )
    try:
        run.mkdir(parents=True, exist_ok=True)
        (run / ".writable").touch()
        (run / ".writable").unlink()
    except OSError as error:
        raise ValueError(f"--run {run}: cannot be written ({error.strerror}); choose another folder") from error


def _device_has_bf16() -> bool:
    return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)


def train(arguments: list[str]) -> None:
    """Runs `fit` or `validate` with the arguments of a command line."""
    defaults = [str(path) for path in DEFAULTS if path.exists()][:1]
    commands = {
        name: {"default_config_files": defaults, "exit_on_error": False, "allow_abbrev": False}
        for name in TrainingCLI.subcommands()
    }
    try:
        TrainingCLI(
            FixedStyles,
            Photos,
            args=arguments,
            save_config_callback=None,
            seed_everything_default=0,
            parser_kwargs={"prog": "impasto train", "exit_on_error": False, "allow_abbrev": False, **commands},
        )
    except ArgumentError as error:
        raise ValueError(f"{error} (--help lists the options)") from error
