"""The feed-forward transform network for one or many learned styles."""

from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from impasto.kernels import by_columns
from impasto.networks.layers import (
    ConvNormRelu,
    Convolution,
    Moments,
    ResidualBlock,
)
from impasto.networks.preprocess import Origin, canvas, without_grain
from impasto.networks.styles import Style, style_weights

# Pixels reflected around the picture and cut off again. Without, a network knows where the picture ends, and makes up
# there for the zero padding of the loss network. With 8, as in training, the outermost 4 pixels had 0.44 to 0.68 of the
# contrast of the same pixels inside a larger photo, with 32 0.91 and more.
MARGIN = 32
# Smaller than in use, for speed: 32 pixels around a crop of 128 are 1.8 times the arithmetic of 8. The pale border that
# a network learns with it lies outside the picture in use.
TRAINING_MARGIN = 8

Upsampling = Literal["nearest", "bilinear", "bilinear_smoothed"]
# Pixels that the layers without the blocks, 8 each, see around a pixel: 4 of the first convolution, 1 + 2 of the next,
# 4 of the last, the rest of the upsampling.
REACH: dict[Upsampling, int] = {"nearest": 18, "bilinear": 22, "bilinear_smoothed": 25}


class TransformNet(nn.Module):
    """Encoder, residual blocks, decoder (Johnson 2016) with conditional instance norm (Dumoulin 2017).

    Args:
        num_styles: how many styles are learned; every mixture of them can be painted.
        width: channels at full resolution: 32 is Johnson's network, 16 the real-time one.
        residual_blocks: blocks at a quarter of the resolution.
        canvas: standard deviation, in grey levels, of the pattern laid under every photo; 0: none (Johnson's), and in
            a photo of one colour instance norm finds nothing but the rounding of its sums.
        grain: standard deviation, in grey levels, of the noise taken out of every photo; 0: none (Johnson's).
        upsampling: how the decoder doubles the size: `nearest` neighbour, or `bilinear_smoothed`, with a binomial
            filter after its convolution. Networks of format 1, trained on few photos, have all three.
    """

    def __init__(
        self, num_styles: int = 1, width: int = 32, residual_blocks: int = 5,
        canvas: float = 3.0, grain: float = 0.0, upsampling: Upsampling = "nearest",
    ) -> None:  # fmt: skip
        super().__init__()
        for name, value, least in (("num_styles", num_styles, 1), ("width", width, 1),
                                   ("residual_blocks", residual_blocks, 0), ("canvas", canvas, 0),
                                   ("grain", grain, 0)):  # fmt: skip
            if not value >= least:
                raise ValueError(f"{name} {value}: must be at least {least}")
        if upsampling not in get_args(Upsampling):
            raise ValueError(
                f"upsampling {upsampling!r}: choose from {', '.join(get_args(Upsampling))}"
            )
        self.arguments: dict[str, Any] = {
            "num_styles": num_styles, "width": width, "residual_blocks": residual_blocks,
            "canvas": canvas, "grain": grain, "upsampling": upsampling,
        }  # fmt: skip
        self.num_styles, self.canvas, self.grain = num_styles, canvas, grain
        # How far away, in pixels, the photo can still change a pixel, at given moments.
        self.reach = REACH[upsampling] + 8 * residual_blocks + (3 if grain else 0)
        self.metadata: dict[str, Any] = {}
        self.layers = nn.ModuleList([
            ConvNormRelu(3, width, 9, num_styles),
            ConvNormRelu(width, 2 * width, 3, num_styles, stride=2),
            ConvNormRelu(2 * width, 4 * width, 3, num_styles, stride=2),
            *(ResidualBlock(4 * width, num_styles) for _ in range(residual_blocks)),
            ConvNormRelu(4 * width, 2 * width, 3, num_styles, upsampling=upsampling),
            ConvNormRelu(2 * width, width, 3, num_styles, upsampling=upsampling),
        ])  # fmt: skip
        self.to_rgb = Convolution(width, 3, 9)

    @property
    def styles(self) -> list[str]:
        """The names of the styles, in the order of their weights; style1, style2, … where its metadata has none."""
        names = [str(style["name"]) for style in self.metadata.get("styles", [])]
        complete = len(names) == self.num_styles
        return names if complete else [f"style{number + 1}" for number in range(self.num_styles)]

    def encode_style(self, style: Style | None = None) -> Float[Tensor, "1 n"]:
        """The code of a style, or of a mixture, that `forward` takes: weights of sum 1 over the learned styles.

        Args:
            style: "wave", "wave=0.3,scream=0.7", the same as a mapping; None where N = 1.

        Raises:
            ValueError: as of `style_weights`.
        """
        return style_weights(style, self.styles).to(self.to_rgb.weight.device)

    def forward(
        self, content: Float[Tensor, "b 3 h w"], code: Float[Tensor, "_ n"] | None = None, margin: int = MARGIN,
        origin: Origin = (0, 0), moments: Moments | None = None,
    ) -> Float[Tensor, "b 3 h w"]:  # fmt: skip
        """The stylized picture in [0, 1], of the size of `content`, whatever that is.

        Args:
            content: RGB in [0, 1].
            code: of the styles (`encode_style`), B×N or 1×N; may be left out where N = 1.
            margin: pixels reflected around the picture and cut off again, a multiple of four.
            origin: where in a larger picture this part of it begins, in pixels (down, right).
            moments: for that part, `Moments(whole.statistics)`, where `whole = Moments()` went with the whole before:
                with an `origin` of multiples of four, what lies `reach` pixels inside is then as in the whole.

        Raises:
            ValueError: no `code` for a network of several styles, or one of another length.
        """
        code = self._checked(code, content)
        moments = moments or Moments()
        x = self._prepared(content, margin, origin)
        for layer in self.layers:
            x = layer(x, code, moments)
        # A sigmoid instead of Johnson's scaled tanh: the same curve, in [0, 1] without an offset.
        stylized = torch.sigmoid(by_columns(self.to_rgb, x))
        h, w = content.shape[-2:]
        return stylized[..., margin : margin + h, margin : margin + w].to(content.dtype)

    def _prepared(self, content: Tensor, margin: int, origin: Origin) -> Tensor:
        """The photo as the layers get it: without its grain, padded, over a canvas. No paper has grain or canvas."""
        x = content
        # Instance norm makes the photo's faint noise large in flat areas. A network that was not trained for long
        # paints it as dots, 8 pixels apart.
        if self.grain:
            x = without_grain(x, self.grain)
        (rows, down), (columns, right) = (_padding(x, axis, margin) for axis in (-2, -1))
        x = x.index_select(-2, rows).index_select(-1, columns)
        # Where nothing varies, a network can only paint one colour. So it is given something to paint, as texture
        # networks are given noise (Ulyanov et al. 2016).
        if self.canvas:
            x = x + canvas(origin[0] + down, origin[1] + right, self.canvas).to(x.dtype)
        return x

    def _checked(self, code: Tensor | None, content: Tensor) -> Tensor:
        if code is None and self.num_styles == 1:
            return content.new_ones(1, 1)
        if code is None or code.shape[1] != self.num_styles:
            given = "none" if code is None else str(code.shape[1])
            raise ValueError(
                f"code: {given} given, this network needs {self.num_styles} weights for each picture"
            )
        return code.to(content)


def _padding(image: Tensor, axis: int, margin: int) -> tuple[Tensor, Tensor]:
    """Along an axis of the padded image: the row or column of the image that each comes from, and that of the canvas.

    The padding is `margin` pixels on every side, and more right and below up to a multiple of four (two halvings). It
    reflects image and canvas. An image smaller than the pad is replicated, and its canvas goes on. Replicated too, the
    canvas of one pixel would be flat, and rounding would decide the picture. Indices export for every size.
    """
    side = image.shape[axis]
    after = margin + -side % 4
    position = torch.arange(-margin, side + after, device=image.device)
    last = side - 1
    reflected = (last - (last - position.abs()).abs()).clamp(0, last)
    large = side + 0 * position > after
    return torch.where(large, reflected, position.clamp(0, last)), torch.where(
        large, reflected, position
    )
