"""Pictures drawn for the tests: soft coloured shapes, so that photos differ and a painting has texture."""

from functools import cache
from io import BytesIO
from pathlib import Path

import torch
from torchvision.transforms.functional import gaussian_blur, to_pil_image

from impasto.perceptual.gaps import dead_leaves

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


def smoke_pictures(folder: Path) -> None:
    """What configs/smoke.yaml looks for: smoke/photos, twenty of them, and smoke/painting.png."""
    (folder / "smoke" / "photos").mkdir(parents=True)
    for name, content in _smoke_files().items():
        (folder / "smoke" / name).write_bytes(content)


@cache
def _smoke_files() -> dict[str, bytes]:
    """Drawn once a process. Photos unlike each other: a run measures the balance on such photos, and draws none."""
    photos = [to_pil_image(photo[:, :96]) for photo in dead_leaves(20, 128)]
    pictures = {f"photos/{number:02d}.jpg": photo for number, photo in enumerate(photos)}
    pictures["painting.png"] = to_pil_image(draw(1000, blur=1.5))
    files = {}
    for name, picture in pictures.items():
        picture.save(file := BytesIO(), "PNG" if name.endswith("png") else "JPEG")
        files[name] = file.getvalue()
    return files
