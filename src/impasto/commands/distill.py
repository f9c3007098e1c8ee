"""The command `distill`: the compact loss network."""

from pathlib import Path
from typing import Any

from impasto.commands.training import TrainingCLI, start
from impasto.perceptual.vgg import COMPACT_FILE
from impasto.training.distillation import Distillation, faithfulness
from impasto.writing import write_text


class DistillationCLI(TrainingCLI):
    """`fit` and `validate` of the command `distill`; `configs/distill.yaml` is always read."""

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


def distill(arguments: list[str]) -> int:
    """Run `impasto distill` with the arguments of a command line; return the exit status."""
    return start(DistillationCLI, Distillation, "distill", "distill.yaml", arguments)
