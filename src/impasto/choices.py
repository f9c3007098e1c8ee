"""The options of commands: allowed values, dataclasses and their checks.

This module does not import torch, which takes seconds. The command line can be read without it.
"""

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal, get_args

IMAGE_SUFFIXES: tuple[str, ...] = (
    ".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".avif", ".heic",
    ".jpe", ".jfif", ".mpo", ".apng", ".avifs", ".heif", ".hif",
)  # fmt: skip
VIDEO_SUFFIXES: tuple[str, ...] = (
    ".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts",
    ".wmv", ".flv", ".3gp", ".ogv", ".y4m", ".mxf",
)  # fmt: skip
WRITABLE = {
    ".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG",
    ".webp": "WEBP", ".tif": "TIFF", ".tiff": "TIFF",
}  # fmt: skip

Backend = Literal["auto", "torch", "onnx"]
Tiling = Literal["auto", "never"] | int
Stroke = Literal["auto", "pixels"] | float | int
Audio = Literal["copy", "none"]
Teacher = Literal["vgg19", "vgg16"]
LossNetwork = Literal[Teacher, "compact"]
Balance = Literal["relative", "fixed", "dynamic"]
Optimizer = Literal["lbfgs", "adam"]
Start = Literal["content", "noise", "mix"]

STYLE_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")  # Gatys et al. 2016
# Versions of ONNX's operators. 18 is the lowest that torch's exporter writes: its converter to 17
# fails. ONNX Runtime reads 18 since version 1.14 (2023).
OPSETS = (18, 19, 20, 21, 22, 23)


@dataclass
class LossOptions:
    """The loss: its network, layers, weights and balance.

    Args:
        network: the loss network.
        weights: file or folder with its weights; None: IMPASTO_WEIGHTS, torch's cache or a
            download. compact comes with the project.
        content_layers: weight of each content layer.
        style_layers: weight of each style layer.
        content_weight: weight of the content term.
        style_strength: weight of the style term; under `relative` it means the same for every
            painting.
        tv_weight: weight of the total variation.
        secondary_layers: weight of each layer of a second, lighter content term (Duggal et al.).
        secondary_weight: weight of the second content term.
        combined_weight: weight of a third content term, which compares with a blend of photo and
            painting (Duggal et al.); for the reference only.
        scales: the loss is summed over the image at these scales, 1 = full size.
        balance: relative (terms as fractions), fixed (the papers' plain weights), dynamic
            (GradNorm).
    """

    network: LossNetwork = "vgg19"
    weights: str | None = None
    content_layers: dict[str, float] = field(default_factory=lambda: {"relu4_2": 1.0})
    style_layers: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STYLE_LAYERS, 1.0))
    content_weight: float = 1.0
    style_strength: float = 1.0
    tv_weight: float = 0.1
    secondary_layers: dict[str, float] = field(default_factory=lambda: {"relu3_1": 1.0})
    secondary_weight: float = 0.0
    combined_weight: float = 0.0
    scales: list[float] = field(default_factory=lambda: [1.0])
    balance: Balance = "relative"

    def __post_init__(self) -> None:
        if self.balance not in get_args(Balance):
            raise ValueError(
                f"balance {self.balance!r}: choose from {', '.join(get_args(Balance))}"
            )
        if not self.style_layers or not self.content_layers:
            raise ValueError(
                "content_layers and style_layers: name at least one layer each, "
                "such as relu4_2: 1.0"
            )
        if not self.scales or any(not 0 < scale <= 1 for scale in self.scales):
            raise ValueError(f"scales {self.scales}: give at least one, each above 0 and at most 1")
        for name in (
            "content_weight", "style_strength", "tv_weight", "secondary_weight", "combined_weight",
        ):  # fmt: skip
            if getattr(self, name) < 0:
                raise ValueError(f"{name} {getattr(self, name)}: must not be negative")
        if self.secondary_weight and not self.secondary_layers:
            raise ValueError(
                "secondary_layers: name at least one, such as relu3_1: 1.0, "
                "or leave secondary_weight 0"
            )
        layers = [
            *self.content_layers.items(),
            *self.style_layers.items(),
            *self.secondary_layers.items(),
        ]
        if negative := [layer for layer, weight in layers if weight <= 0]:
            raise ValueError(
                f"layer weight of {', '.join(negative)}: must be above 0; "
                "leave the layer out instead"
            )

    @property
    def asked(self) -> dict[str, float]:
        """The weight of each term."""
        return {
            "content": self.content_weight,
            "secondary": self.secondary_weight,
            "combined": self.combined_weight,
            "style": self.style_strength,
            "tv": self.tv_weight,
        }


@dataclass
class OptimizeOptions:
    """How a picture is optimized.

    Args:
        steps: number of iterations, divided evenly among the sizes.
        optimizer: lbfgs (Gatys et al. 2016) or adam.
        learning_rate: learning rate of the optimizer; None: 1 for lbfgs, 0.02 for adam.
        line_search: strong Wolfe conditions for lbfgs: slower iterations that never diverge.
        start: content, noise, or mix: noise_ratio · content + (1 − noise_ratio) · noise.
        noise_ratio: share of the content in a mix: 1 is the content, 0 noise.
        coarse: longer sides in pixels to work at before the full size, such as [128, 256].
        clamp: keep the picture in [0, 1] at every step, not only at the end.
        blend: share of the photo in the blend with the paintings, for `loss.combined_weight`.
        checkpointing: recompute features instead of keeping them: less memory for large pictures,
            more time.
        patience: stop after so many steps in which the loss fell by less than 0.1 %; 0: never.
        seed: seed of the noise.
    """

    steps: int = 300
    optimizer: Optimizer = "lbfgs"
    learning_rate: float | None = None
    line_search: bool = False
    start: Start = "content"
    noise_ratio: float = 0.5
    coarse: list[int] = field(default_factory=list)
    clamp: bool = True
    blend: float = 0.5
    checkpointing: bool = False
    patience: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.patience < 0:
            raise ValueError(
                f"steps {self.steps}, patience {self.patience}: steps from 1, "
                "patience from 0 (never stop)"
            )
        if self.learning_rate is not None and not self.learning_rate > 0:
            raise ValueError(f"learning_rate {self.learning_rate}: must be above 0")
        for name, known in (("optimizer", get_args(Optimizer)), ("start", get_args(Start))):
            if (value := getattr(self, name)) not in known:
                raise ValueError(f"{name} {value!r}: choose from {', '.join(known)}")
        for name, of_nothing in (("noise_ratio", "noise"), ("blend", "the paintings")):
            if not 0 <= (share := getattr(self, name)) <= 1:
                raise ValueError(f"{name} {share}: from 0 ({of_nothing}) to 1 (the content)")
        if self.noise_ratio != 0.5 and self.start != "mix":
            raise ValueError(
                f"noise_ratio {self.noise_ratio}: only a start of mix uses it, not {self.start}"
            )
        if any(a >= b for a, b in pairwise([0, *self.coarse])):
            raise ValueError(f"coarse {self.coarse}: sizes in pixels that grow, such as [128, 256]")


@dataclass
class ClipOptions:
    """How the frames of a clip are optimized one after another (Ruder, Dosovitskiy, Brox 2016).

    Args:
        temporal_weight: weight of a painting's distance from the one before, moved along with the
            picture; 0: frames only start from it.
        steps: iterations of every frame but the first of a scene, which has those of a photo.
        reach: how many frames back to look, nearest first; [1, 2, 4, 8] also brings back what
            something had covered for a while (their long-term consistency).
        passes: times the clip is gone through, forward and backward by turns.
        blend: share of the neighbour's painting in what a frame starts from in a later pass.
        start: where in the clip to begin, in seconds.
        duration: seconds to paint; None: up to the end.
        fps: frames a second to paint; None: those of the clip.
    """

    temporal_weight: float = 30.0
    steps: int = 100
    reach: list[int] = field(default_factory=lambda: [1])
    passes: int = 1
    blend: float = 0.5
    start: float = 0.0
    duration: float | None = None
    fps: float | None = None

    def __post_init__(self) -> None:
        if self.steps < 1 or self.passes < 1:
            raise ValueError(f"clip.steps {self.steps}, clip.passes {self.passes}: from 1")
        if not 0 <= self.temporal_weight < float("inf"):
            raise ValueError(f"clip.temporal_weight {self.temporal_weight}: from 0")
        if not 0 <= self.blend <= 1:
            raise ValueError(f"clip.blend {self.blend}: from 0 (its own painting) to 1")
        if not self.reach or any(a >= b for a, b in pairwise([0, *self.reach])):
            raise ValueError(f"clip.reach {self.reach}: numbers that grow, such as [1, 2, 4]")
