"""Training of a network on a fixed list of paintings, its styles."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from impasto.choices import LossOptions
from impasto.images import read_image
from impasto.images.paintings import Painting, checked, thumbnail
from impasto.networks import TransformNet, load_network
from impasto.networks.layers import Padding
from impasto.networks.transform import Kernel, Patch
from impasto.perceptual.loss import PerceptualLoss
from impasto.perceptual.target import StyleTarget
from impasto.training.module import Compiled, StyleTraining
from impasto.training.resume import check_paintings, thumbnails_of, weights_from
from impasto.training.teacher import Teacher

# Arguments of the network that are those of `start_from` unless they are given.
COPIED = (
    "canvas", "grain", "upsampling", "patch", "kernel", "separable", "padding", "margin",
)  # fmt: skip


class FixedStyles(StyleTraining):
    """Trains one network on 1…N paintings: sample i of the photos learns style i mod N.

    Args:
        styles: the paintings by name: a picture file, or its image, title, artist, year, licence
            and source.
        style_size: longer side of the paintings in pixels, the scale of the strokes; 0 keeps
            their size.
        width: channels of the network at full resolution (32: Johnson et al. 2016; 16: the
            real-time network, four times cheaper).
        residual_blocks: residual blocks of the network.
        start_from: a trained network to start from, a published name or a file, of the same width
            and residual blocks. Styles that it knows by name go on from what they learned; new
            styles begin as the mean of its styles. Its grain and upsampling are copied.
        canvas: standard deviation, in grey levels, of a faint pattern added to every photo, so
            that flat areas get strokes; 0: none. If not given, that of `start_from`, or else 3.
        patch: 2 or 4 for real time: the first convolution gives one position of features for each
            square of this many pixels, and the last gives the pixels back. If not given, this and
            the next four are those of `start_from`, or else those of Johnson's network.
        kernel: side of the first and of the last kernel, in such squares: 3, 5, 7 or 9.
        separable: make all convolutions but the first and the last separable, for real time.
        padding: of the features: reflect, or zeros, which is faster.
        margin: width, in pixels, of the reflected border around a photo, in use; a multiple of 4.
        loss: the perceptual loss.
        learning_rate: highest learning rate of Muon, for all convolutions but the last; Adam, for
            all other parameters, has a tenth of it.
        warmup_steps: steps over which the learning rate rises linearly; it falls to 0 over the
            last 30 % of the run.
        gap_photos: photos on which the balance of the loss is measured, once; at least 2.
        shift_weight: weight of the squared difference between the painting of a shifted photo and
            the shifted painting. It keeps patterns, such as dots in flat areas, from locking to
            the pixel grid. Crops are then 4 pixels smaller, and every fourth is painted twice.
        temporal_weight: weight of the squared difference between the painting of the next frame
            and the painting moved there, for photos that move as if filmed; as a fraction of that
            of unrelated paintings. It keeps video steady. Crops are then 32 pixels smaller, and
            every fourth is painted twice. `shift_weight` must be 0.
        feature_weight: weight of the same difference in the network's features.
        teacher: a trained network that knows the styles by name, a published name or a file, whose
            paintings the network learns too.
        teacher_weight: weight of the mean absolute difference from the teacher's paintings, as a
            fraction of that of unrelated ones.
        compile: compile network and loss of the training steps: true, or a mode of torch.compile
            such as reduce-overhead, which replays CUDA graphs.
    """

    target: StyleTarget

    def __init__(
        self,
        styles: dict[str, str | Painting],
        style_size: int = 512,
        width: int = 32,
        residual_blocks: int = 5,
        start_from: str | None = None,
        canvas: float | None = None,
        patch: Patch | None = None,
        kernel: Kernel | None = None,
        separable: bool | None = None,
        padding: Padding | None = None,
        margin: int | None = None,
        loss: LossOptions = LossOptions(),  # noqa: B008  only read
        learning_rate: float = 0.02,
        warmup_steps: int = 100,
        gap_photos: int = 32,
        shift_weight: float = 0.0,
        temporal_weight: float = 0.0,
        feature_weight: float = 0.0,
        teacher: str | None = None,
        teacher_weight: float = 1.0,
        compile: bool | Compiled = False,
    ) -> None:
        known = checked(styles)
        other = load_network(start_from) if start_from else None
        copied = {name: other.arguments[name] for name in COPIED} if other else {}
        given = {
            "canvas": canvas, "patch": patch, "kernel": kernel, "separable": separable,
            "padding": padding, "margin": margin,
        }  # fmt: skip
        chosen = {name: value for name, value in given.items() if value is not None}
        network = TransformNet(len(styles), width, residual_blocks, **{**copied, **chosen})
        if other:
            network.load_state_dict(weights_from(other, str(start_from), network, list(styles)))
        super().__init__(
            network, style_size, start_from, loss, learning_rate, warmup_steps, gap_photos,
            shift_weight, temporal_weight, feature_weight, compile,
        )  # fmt: skip
        self.styles, self.style_names = known, list(known)
        self.teacher = Teacher(teacher, self.style_names, teacher_weight) if teacher else None
        # Thumbnails of the paintings that `start_from`, or the checkpoint, learned, by style.
        self._known_thumbnails = thumbnails_of(other.metadata if other else {})

    def prepare_targets(self, loss: PerceptualLoss) -> None:
        """Read the paintings, and compute their target.

        Raises:
            ValueError: a painting is not the one that the resumed checkpoint was trained on.
        """
        pictures = [read_image(painting.image) for painting in self.styles.values()]
        self.thumbnails = {
            name: thumbnail(picture.pixels)
            for name, picture in zip(self.styles, pictures, strict=True)
        }
        start_from = str(self.start_from) if self.restored is None else None
        check_paintings(self.styles, self.thumbnails, self._known_thumbnails, start_from)
        if self.style_size:
            pictures = [picture.resized(self.style_size) for picture in pictures]
        paintings = [picture.pixels.to(self.device) for picture in pictures]
        gaps = self.restored["gaps"] if self.restored else None
        self.target = loss.style_target(paintings, self.balance_photos(), gaps=gaps)

    def samples(self, batch: dict[str, Any]) -> tuple[Float[Tensor, "b n"], StyleTarget]:
        """Return the code and the target of each sample: sample i learns style i mod N."""
        index = batch["index"] % len(self.styles)
        code = F.one_hot(index, len(self.styles)).to(batch["content"])
        return code, self.target.select(index)

    def shown(self) -> dict[str, tuple[Float[Tensor, "1 n"], StyleTarget]]:
        """Return code and target of every style, by name."""
        numbers = torch.arange(len(self.styles), device=self.device).split(1)
        return {
            name: (F.one_hot(number, len(self.styles)).float(), self.target.select(number))
            for name, number in zip(self.styles, numbers, strict=True)
        }

    def balance(self) -> dict[str, Any]:
        """Return the measured gaps (`StyleTarget.gaps`)."""
        return {"gaps": self.target.gaps()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the balance, and remember the paintings that the checkpoint was trained on."""
        super().on_load_checkpoint(checkpoint)
        self._known_thumbnails = thumbnails_of(checkpoint.get("impasto", {}).get("network", {}))

    def metadata(self) -> dict[str, Any]:
        """Return what the published file records: besides the training, styles and balance."""
        styles = [
            {"name": name, **painting.credits(), "thumbnail": self.thumbnails[name]}
            for name, painting in self.styles.items()
        ]
        recorded = super().metadata()
        recorded["loss"]["gaps"] = self.target.gaps()
        return {"styles": styles, **recorded}
