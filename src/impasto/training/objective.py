"""The objective of training: the perceptual loss of each photo in its style, and temporal terms."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from impasto.choices import LossOptions
from impasto.data.moved import PAIRED_EVERY, Pair, frame_side, moved, shifted
from impasto.networks.preprocess import canvas, canvas_at
from impasto.networks.transform import TRAINING_MARGIN
from impasto.perceptual.loss import PerceptualLoss
from impasto.perceptual.target import StyleTarget
from impasto.perceptual.temporal import contrast, feature_error, luminance_change, temporal_error
from impasto.training.teacher import Teacher
from impasto.video.warping import positions

# Crops are then smaller, so that the second frame of a pair shows no repeated border. A shift is by
# 1 to 3 pixels.
SHIFT_MARGIN = 4  # pixels

# (photos B×3×H×W, style codes B×N, position in a larger picture, and a list for features where
# they are needed) → pictures B×3×H×W
Paint = Callable[..., Tensor]


class Objective:
    """The loss of a batch.

    It is no nn.Module, so that checkpoints leave its loss network out and DDP does not wrap it.

    Args:
        options: options of the perceptual loss.
        device: where the loss network runs.
        shift_weight: weight of the temporal term of photos that are shifted by whole pixels.
        temporal_weight: weight of the temporal term of photos that move as if filmed, to which a
            layer is pasted that moves otherwise (`data.moved`). One of the two is 0.
        feature_weight: weight of the same pairs' temporal term of the network's features.
        canvas: the network's, in grey levels.
        teacher: a network to imitate; None: none.
    """

    def __init__(
        self, options: LossOptions, device: torch.device, shift_weight: float = 0.0,
        temporal_weight: float = 0.0, feature_weight: float = 0.0, canvas: float = 0.0,
        teacher: Teacher | None = None,
    ) -> None:  # fmt: skip
        self.shift_weight, self.canvas = shift_weight, canvas
        self.teacher = teacher.to(device) if teacher else None
        self.temporal_weight, self.feature_weight = temporal_weight, feature_weight
        self.loss = PerceptualLoss(options).to(device)
        self._compiled: Callable[..., dict[str, Tensor]] | None = None

    def compile(self, mode: str) -> None:
        """Compile the loss of training steps, in a mode of torch.compile."""
        self._compiled = torch.compile(self.loss.forward, mode=mode, dynamic=False)

    def __call__(
        self,
        paint: Paint,
        content: Float[Tensor, "b 3 h w"],
        code: Float[Tensor, "_ n"],
        target: StyleTarget,
        step: int,
        filmed: dict[str, Tensor] | None = None,
    ) -> tuple[dict[str, Tensor], Float[Tensor, ""]]:
        """Return the loss terms of a batch without their weights, and their weighted sum.

        Args:
            paint: the network.
            content: photos in [0, 1].
            code: code of the style that each photo learns, B×N or 1×N.
            target: target of each photo's style.
            step: number of the training step; it decides which photos are moved, and how.
            filmed: pairs from clips, as `FilmedPairs` draws them, that take the place of moved
                photos in every second step; None: all pairs are moved photos.

        Returns:
            The terms with a weight above 0, by name, detached; and the scalar to minimize.
        """
        # Other photos are painted twice in every step, so that the pairs see all styles.
        pairs = slice(step % min(PAIRED_EVERY, len(content)), None, PAIRED_EVERY)
        content, pair = self._frames(content, pairs, step, filmed)
        code = code.to(content).expand(len(content), -1)
        features: list[Tensor] = []
        kept = (features,) if self.feature_weight else ()
        stylized = paint(content, code, (0, 0), *kept)
        terms: dict[str, Tensor] = {}
        if self.teacher:
            terms["teacher"] = self.teacher.error(stylized, content, code)
        if pair is not None:
            here, second = stylized[pairs], pair.second + self._carried_canvas(pair)
            # As a tensor, since a compiled network would be compiled again for every number. Filled
            # on the device, which is not waited for.
            origin = torch.stack([torch.full((), at, device=second.device) for at in pair.origin])
            there = paint(second, code[pairs], origin, *kept)
            change = luminance_change(pair.first, pair.second, pair.flow)
            error = temporal_error(here, there, pair.flow, pair.trusted, change)
            if self.shift_weight:
                terms["shift"] = error
            else:
                # Departure from ReCoNet: a fraction, 1 for unrelated paintings. Undivided, the
                # term is lowered most easily by less contrast, which the style then lacks.
                terms["temporal"] = error / (2 * contrast(here, there))
            if features:
                terms["feature"] = feature_error(
                    features[0][pairs], features[1], pair.flow, pair.trusted, TRAINING_MARGIN
                )
            stylized = torch.cat([stylized, there])
            each = torch.arange(len(content), device=content.device)
            target = target.select(torch.cat([each, each[pairs]]))
            content = torch.cat([content, pair.second])
        # In validation, which has no gradients, torch.compile would compile the loss again.
        judge = self._compiled if self._compiled and torch.is_grad_enabled() else self.loss
        weighted = judge(stylized, content, target)
        own = {
            "shift": self.shift_weight,
            "temporal": self.temporal_weight,
            "feature": self.feature_weight,
            "teacher": self.teacher.weight if self.teacher else 0.0,
        }
        weights, asked = {**self.loss.current, **own}, {**self.loss.options.asked, **own}
        weighted |= {name: own[name] * term for name, term in terms.items()}
        fractions = {
            name: term.detach() / weights[name] for name, term in weighted.items() if asked[name]
        }
        return fractions, torch.stack(list(weighted.values())).sum()

    def _frames(
        self,
        photos: Float[Tensor, "b 3 _ _"],
        pairs: slice,
        step: int,
        filmed: dict[str, Tensor] | None,
    ) -> tuple[Float[Tensor, "b 3 h w"], Pair | None]:
        """Return the photos to paint, and the pairs whose first frames are `photos[pairs]`."""
        side = photos.shape[-1]
        if self.shift_weight:
            side -= SHIFT_MARGIN
            pair = shifted(photos[pairs], side, 1 + step % 3, 1 + step // 3 % 3)
            return photos[..., :side, :side], pair
        if not (self.temporal_weight or self.feature_weight):
            return photos, None
        _, margin = frame_side(side)
        if filmed and step % 2:
            number = len(photos[pairs])
            pair = Pair(
                filmed["first"][:number], filmed["second"][:number],
                filmed["flow"][:number], filmed["trusted"][:number],
            )  # fmt: skip
        else:
            # A layer is part of another photo; where there is one photo only, of its mirror image.
            pair = moved(photos[pairs], photos.roll(1, 0).flip(-1)[pairs], step, margin)
        photos = photos[..., margin : side - margin, margin : side - margin].clone()
        photos[pairs] = pair.first
        return photos, pair

    def _carried_canvas(self, pair: Pair) -> Float[Tensor, "_ 1 s s"] | float:
        """Return what makes the second frame's canvas that of the first, moved with the photo.

        Otherwise strokes that follow the canvas would count as flicker, and the network would
        learn to leave the canvas aside. The network adds the fixed canvas, so this subtracts it.
        """
        if not self.canvas:
            return 0.0
        right, down = positions(pair.flow).unbind(1)
        carried = canvas_at(down, right, self.canvas)
        rows, columns = (
            start + torch.arange(pair.second.shape[-1], device=carried.device)
            for start in pair.origin
        )
        return (carried - canvas(rows, columns, self.canvas))[:, None]
