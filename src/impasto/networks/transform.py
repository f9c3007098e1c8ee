"""The feed-forward transform network, which paints photos in one or many learned styles."""

from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from impasto.kernels import by_columns
from impasto.networks.layers import ConvNormRelu, Convolution, Moments, ResidualBlock
from impasto.networks.preprocess import Origin, canvas, padding, without_grain
from impasto.networks.styles import Style, style_weights

# Width, in pixels, of the reflected border that is added around a picture and cropped from the
# output. Without it, a network learns where the picture ends, and compensates there for the zero
# padding of the loss network. The outermost 4 pixels then lose contrast, compared with the same
# pixels inside a larger photo: a margin of 8 leaves 0.44 to 0.68 of it, 32 leaves 0.91 or more.
MARGIN = 32
# Training uses a smaller margin for speed: around a crop of 128 pixels, 32 costs 1.8 times the
# arithmetic of 8. With it, the network learns to paint a pale border. In use, MARGIN moves that
# border outside the picture.
TRAINING_MARGIN = 8

Upsampling = Literal["nearest", "bilinear", "bilinear_smoothed"]
# Receptive field of the network without its residual blocks, as a radius in pixels: 4 for the first
# convolution, 1 + 2 for the two strided ones, 4 for the last, the rest for the upsampling.
# Each residual block adds 8.
REACH: dict[Upsampling, int] = {"nearest": 18, "bilinear": 22, "bilinear_smoothed": 25}


class TransformNet(nn.Module):
    """Encoder, residual blocks and decoder, with one γ and β per style.

    The layers follow Johnson et al. 2016, with the conditional instance norm of Dumoulin et al.
    2017. Departures are marked where they occur.

    Args:
        num_styles: number N of learned styles; the network also paints any mixture of them.
        width: channels at full resolution: 32 in Johnson's network, 16 in the real-time one.
        residual_blocks: number of blocks, which work at a quarter of the resolution.
        canvas: standard deviation, in grey levels, of a pattern added to every photo. 0 adds none,
            as Johnson does; a photo of one colour then gives instance norm only rounding errors.
        grain: standard deviation, in grey levels, of the noise removed from every photo; 0 removes
            none, as Johnson does.
        upsampling: how the decoder doubles the size: `nearest`, `bilinear`, or `bilinear_smoothed`,
            which filters the result of the convolution that follows.

    Attributes:
        arguments: the constructor's arguments, stored in the network's file.
        metadata: what else the file says of the network, such as its styles; see `networks.files`.
        reach: largest distance, in pixels, from which the photo affects an output pixel when the
            moments are given.
        any_picture: whether `encode_style` takes pictures, instead of names.
        multiple: sides are filled up to a multiple of this many pixels, since the network halves
            the size twice.
    """

    any_picture = False
    multiple = 4

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
        """Names of the styles, in the order of a code's weights.

        They come from the metadata. Without them, the names are style1, style2, ….
        """
        names = [str(style["name"]) for style in self.metadata.get("styles", [])]
        complete = len(names) == self.num_styles
        return names if complete else [f"style{number + 1}" for number in range(self.num_styles)]

    def encode_style(self, style: Style | None = None) -> Float[Tensor, "1 n"]:
        """Return the code of a style or mixture, for `forward`: 1×N weights that sum to 1.

        Args:
            style: a name ("wave"), a mixture ("wave=0.3,scream=0.7"), or a mapping of names to
                weights. None is allowed where N = 1.

        Raises:
            ValueError: an unknown style or a bad weight; see `style_weights`.
        """
        return style_weights(style, self.styles).to(self.to_rgb.weight.device)

    def example_codes(self, number: int, generator: torch.Generator) -> Float[Tensor, "b n"]:
        """Return codes to try the network with: random mixtures."""
        weights = torch.rand(number, self.num_styles, generator=generator)
        return weights / weights.sum(1, keepdim=True)

    def forward(
        self, content: Float[Tensor, "b 3 h w"], code: Float[Tensor, "_ n"] | None = None,
        margin: int = MARGIN, origin: Origin = (0, 0), moments: Moments | None = None,
        kept: list[Tensor] | None = None,
    ) -> Float[Tensor, "b 3 h w"]:  # fmt: skip
        """Return the stylized pictures, in [0, 1] and in the size of `content`.

        A part of a larger picture comes out as in the whole if it gets the whole's statistics:

            whole = Moments()
            network(picture, code, moments=whole)
            network(part, code, origin=origin, moments=Moments(whole.statistics))

        With an `origin` of multiples of `multiple`, pixels at least `reach` inside the part are
        then those of the whole.

        Args:
            content: photos B×3×H×W, RGB in [0, 1], of any size.
            code: styles B×N or 1×N, from `encode_style`; None is allowed where N = 1.
            margin: width, in pixels, of the reflected border, a multiple of `multiple`.
            origin: position (down, right), in pixels, of `content` in a larger picture.
            moments: source of the instance-norm statistics; None: measure them on `content`.
            kept: a list that receives the features after the residual blocks, at a quarter of the
                resolution of the padded content; None: they are not kept.

        Raises:
            ValueError: no `code` for a network of several styles, or one of another length.
        """
        code = self._checked(code, content)
        moments = moments or Moments()
        x = self._prepared(content, margin, origin)
        for layer in self.layers:
            x = layer(x, code, moments)
            if kept is not None and layer is self.layers[-3]:  # two layers of upsampling follow
                kept.append(x)
        # Departure from Johnson's scaled tanh: a sigmoid is the same curve, already in [0, 1].
        stylized = torch.sigmoid(by_columns(self.to_rgb, x))
        h, w = content.shape[-2:]
        return stylized[..., margin : margin + h, margin : margin + w].to(content.dtype)

    def _prepared(self, content: Tensor, margin: int, origin: Origin) -> Tensor:
        """Return the photo with its grain removed, the margin padded and the canvas added.

        Removing grain and adding a canvas are departures from the papers.
        """
        x = content
        # Instance norm amplifies faint noise in flat areas. A network that was trained only briefly
        # paints this noise as dots 8 pixels apart.
        if self.grain:
            x = without_grain(x, self.grain)
        (rows, down), (columns, right) = (
            padding(x, axis, margin, self.multiple) for axis in (-2, -1)
        )
        x = x.index_select(-2, rows).index_select(-1, columns)
        # Where a photo does not vary, a network can only paint one colour. The canvas gives it a
        # pattern to paint from, as noise does for texture networks (Ulyanov et al. 2016).
        if self.canvas:
            x = x + canvas(origin[0] + down, origin[1] + right, self.canvas).to(x.dtype)
        return x

    def _checked(self, code: Tensor | None, content: Tensor) -> Tensor:
        if code is None and self.num_styles == 1:
            return content.new_ones(1, 1)
        if code is None or code.shape[1] != self.num_styles:
            given = "none" if code is None else str(code.shape[1])
            raise ValueError(
                f"code: {given} given, this network needs {self.num_styles} weights "
                "for each picture"
            )
        return code.to(content)
