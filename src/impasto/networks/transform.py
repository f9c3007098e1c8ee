"""The feed-forward transform network, which paints photos in one or many learned styles."""

from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from impasto.kernels import by_columns
from impasto.networks.layers import ConvNormRelu, Convolution, Moments, Padding, ResidualBlock
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
Patch = Literal[1, 2, 4]
Kernel = Literal[3, 5, 7, 9]
CORE = 4  # the residual blocks work at this fraction of the resolution


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
        patch: the first convolution gives one position of features for each square of this many
            pixels, and the last gives back all pixels of the square. Above 1, this replaces one or
            both of the strided convolutions and of the upsamplings, for real time.
        kernel: side of the first and of the last kernel, in such squares: 9 in Johnson's network.
        separable: whether all convolutions but the first and the last are separable.
        padding: of the features: `reflect`, or `zeros`, which is faster.
        margin: width, in pixels, of the reflected border that is added around every photo and
            cropped from the result; a multiple of 4.

    Attributes:
        arguments: the constructor's arguments, stored in the network's file.
        metadata: what else the file says of the network, such as its styles; see `networks.files`.
        reach: largest distance, in pixels, from which the photo affects an output pixel when the
            moments are given.
        any_picture: whether `encode_style` takes pictures, instead of names.
        multiple: sides are filled up to a multiple of this many pixels.
    """

    any_picture = False
    multiple = CORE

    def __init__(
        self, num_styles: int = 1, width: int = 32, residual_blocks: int = 5,
        canvas: float = 3.0, grain: float = 0.0, upsampling: Upsampling = "nearest",
        patch: Patch = 1, kernel: Kernel = 9, separable: bool = False,
        padding: Padding = "reflect", margin: int = MARGIN,
    ) -> None:  # fmt: skip
        super().__init__()
        for name, value, least in (("num_styles", num_styles, 1), ("width", width, 1),
                                   ("residual_blocks", residual_blocks, 0), ("canvas", canvas, 0),
                                   ("grain", grain, 0)):  # fmt: skip
            if not value >= least:
                raise ValueError(f"{name} {value}: must be at least {least}")
        for name, chosen, allowed in (("upsampling", upsampling, Upsampling),
                                      ("patch", patch, Patch), ("kernel", kernel, Kernel),
                                      ("padding", padding, Padding)):  # fmt: skip
            if chosen not in get_args(allowed):
                choices = ", ".join(map(str, get_args(allowed)))
                raise ValueError(f"{name} {chosen!r}: choose from {choices}")
        if margin < 0 or margin % CORE:
            raise ValueError(f"margin {margin}: must be 0 or a multiple of {CORE}")
        self.arguments: dict[str, Any] = {
            "num_styles": num_styles, "width": width, "residual_blocks": residual_blocks,
            "canvas": canvas, "grain": grain, "upsampling": upsampling, "patch": patch,
            "kernel": kernel, "separable": separable, "padding": padding, "margin": margin,
        }  # fmt: skip
        self.num_styles, self.canvas, self.grain = num_styles, canvas, grain
        self.patch, self.margin = patch, margin
        self.metadata: dict[str, Any] = {}
        # Between the resolution of the patches and that of the blocks, the size is halved, and the
        # channels doubled, this many times.
        halvings = [width * patch * 2**i for i in range((CORE // patch).bit_length() - 1)]
        kind: dict[str, Any] = {"padding": padding, "separable": separable}
        self.layers = nn.ModuleList([
            ConvNormRelu(3, width * patch, kernel * patch, num_styles, stride=patch,
                         padding=padding, border=kernel // 2 * patch),
            *(ConvNormRelu(c, 2 * c, 3, num_styles, stride=2, **kind) for c in halvings),
            *(ResidualBlock(CORE * width, num_styles, **kind) for _ in range(residual_blocks)),
            *(ConvNormRelu(2 * c, c, 3, num_styles, upsampling=upsampling, **kind)
              for c in reversed(halvings)),
        ])  # fmt: skip
        self._last_block = len(halvings) + residual_blocks
        self.to_rgb = Convolution(width * patch, 3 * patch**2, kernel, padding=padding)
        if patch > 1:  # all pixels of a square begin alike, against lattices (Aitken et al. 2017)
            with torch.no_grad():
                for parameter in self.to_rgb.parameters():
                    parameter.copy_(parameter[:: patch**2].repeat_interleave(patch**2, 0))
        self.reach = self._reach() + (3 if grain else 0)

    def _reach(self) -> int:
        """Return `reach` without the filter of grain.

        It goes back from pixels at every place on the grid of the blocks, layer by layer, to the
        first and the last pixel of the photo that each depends on.
        """
        given = self.arguments
        around = given["kernel"] // 2
        halvings = (CORE // self.patch).bit_length() - 1
        farthest = 0
        for pixel in range(CORE):
            first, last = pixel // self.patch - around, pixel // self.patch + around
            for _ in range(halvings):  # a convolution at twice the resolution
                border = 2 if given["upsampling"] == "bilinear_smoothed" else 1
                first, last = first - border, last + border
                between = 0 if given["upsampling"] == "nearest" else 1
                first, last = (first - between) // 2, (last + between) // 2
            first, last = (
                first - 2 * given["residual_blocks"],
                last + 2 * given["residual_blocks"],
            )
            for _ in range(halvings):
                first, last = 2 * first - 1, 2 * last + 1
            first, last = (first - around) * self.patch, (last + around + 1) * self.patch - 1
            farthest = max(farthest, pixel - first, last - pixel)
        return farthest

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
        margin: int | None = None, origin: Origin = (0, 0), moments: Moments | None = None,
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
            margin: width, in pixels, of the reflected border, a multiple of `multiple`; None: that
                of the constructor.
            origin: position (down, right), in pixels, of `content` in a larger picture.
            moments: source of the instance-norm statistics; None: measure them on `content`.
            kept: a list that receives the features after the residual blocks, at a quarter of the
                resolution of the padded content; None: they are not kept.

        Raises:
            ValueError: no `code` for a network of several styles, or one of another length.
        """
        code = self._checked(code, content)
        margin = self.margin if margin is None else margin
        x = self._prepared(content, margin, origin)
        for layer in self.layers:
            x = layer(x, code, moments)
            if kept is not None and layer is self.layers[self._last_block]:
                kept.append(x)
        # Departure from Johnson's scaled tanh: a sigmoid is the same curve, already in [0, 1].
        stylized = torch.sigmoid(self._pixels(x))
        h, w = content.shape[-2:]
        return stylized[..., margin : margin + h, margin : margin + w].to(content.dtype)

    def _pixels(self, x: Tensor) -> Tensor:
        """Return the last convolution's colours, before the sigmoid."""
        if self.patch == 1 and self.to_rgb.border:
            return by_columns(self.to_rgb, x)
        return F.pixel_shuffle(self.to_rgb(x).float(), self.patch)

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
