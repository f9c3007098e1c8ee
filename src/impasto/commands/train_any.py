"""The command `train-any`: a network for any painting."""

from pathlib import Path
from shlex import quote
from typing import Any

from pytorch_lightning.cli import LightningArgumentParser

from impasto.commands.idle import only_with
from impasto.commands.training import TrainingCLI, start
from impasto.training.arbitrary import AnyStyles
from impasto.training.callbacks import Previews


class AnyStylesCLI(TrainingCLI):
    """`fit` and `validate` of the command `train-any`."""

    needs = TrainingCLI.needs | dict.fromkeys(
        ("model.basis", "model.residual_blocks"), only_with("model.method", "predictor")
    )

    def add_own_arguments(self, parser: LightningArgumentParser) -> None:
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


def train_any(arguments: list[str]) -> int:
    """Run `impasto train-any` with the arguments of a command line; return the exit status."""
    return start(AnyStylesCLI, AnyStyles, "train-any", "default.yaml", arguments)
