"""Pictures drawn for the tests: soft coloured shapes, so that photos differ and a painting has texture."""

from pathlib import Path

import torch
from torchvision.transforms.functional import gaussian_blur, to_pil_image

OLD_NETWORK = Path(__file__).parent / "networks" / "format_1.safetensors"  # `starry_night` as first published


def draw(seed: int, height: int = 96, width: int = 128, blur: float = 6.0) -> torch.Tensor:
    """A random picture 3×H×W in [0, 1] with structures of about `blur` pixels."""
    noise = torch.rand(3, height, width, generator=torch.Generator().manual_seed(seed))
    smooth = gaussian_blur(noise, [2 * int(2 * blur) + 1] * 2, [blur, blur])
    return ((smooth - smooth.amin()) / (smooth.amax() - smooth.amin())).clamp(0, 1)


def save(path: Path, seed: int, **options: float) -> Path:
    """The same, in a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    to_pil_image(draw(seed, **options)).save(path)  # type: ignore[arg-type]
    return path


def smoke_pictures(folder: Path, photos: int = 20) -> None:
    """What configs/smoke.yaml looks for: smoke/photos and smoke/painting.png."""
    for number in range(photos):
        save(folder / "smoke" / "photos" / f"{number:02d}.jpg", number)
    save(folder / "smoke" / "painting.png", 1000, blur=1.5)
