"""The command `train`: a network on a fixed list of paintings."""

from pathlib import Path
from shlex import quote
from typing import Any

from pytorch_lightning.cli import LightningArgumentParser

from impasto.commands.idle import only_with
from impasto.commands.training import TrainingCLI, start
from impasto.data.files import located
from impasto.images import read_image, write_image
from impasto.images.paintings import check_style_names
from impasto.inference import Stylizer
from impasto.training.callbacks import Previews
from impasto.training.fixed import FixedStyles


class FixedStylesCLI(TrainingCLI):
    """`fit` and `validate` of the command `train`."""

    needs = TrainingCLI.needs | {"model.teacher_weight": only_with("model.teacher")}

    def add_own_arguments(self, parser: LightningArgumentParser) -> None:
        """Add the options of previews, and --try_on."""
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

    def before_instantiate_classes(self) -> None:
        """Read the --try_on photo: a bad one fails now, not at the end of the run."""
        if place := self.config[self.subcommand].try_on:
            read_image(located(place))
        super().before_instantiate_classes()

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


def train(arguments: list[str]) -> int:
    """Run `impasto train` with the arguments of a command line; return the exit status."""
    return start(FixedStylesCLI, FixedStyles, "train", "default.yaml", arguments)
