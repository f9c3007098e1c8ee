"""Find photos and Parquet files on disk, and files inside installed Python packages.

Commands use this module to read their command line, so it does not import torch.
"""

import re
from importlib.util import find_spec
from pathlib import Path

from impasto.choices import IMAGE_SUFFIXES
from impasto.data.folders import named_images, search, walk
from impasto.spelling import not_there


def _files(folder: str | Path) -> list[Path]:
    if not Path(folder).is_dir():
        raise ValueError(
            f"{not_there(folder, 'folder')}; give a folder of photos, or a Parquet file"
        )
    return sorted(walk(folder), key=lambda path: path.relative_to(folder).as_posix())


def find_images(folder: str | Path) -> list[Path]:
    """Return the image files below a folder, at any depth, sorted, without hidden ones.

    Raises:
        ValueError: there is no such folder, or no image in it.
    """
    if not (found := list(named_images(_files(folder)))):
        raise ValueError(
            f"{folder}: holds no image; looked at any depth for {', '.join(IMAGE_SUFFIXES)}"
        )
    return found


def located(path: str | Path) -> Path:
    """Return the path that a user's text means.

    `package:skimage/data/coffee.png` means a file inside the installed Python package skimage,
    which is found without importing it. `~` is expanded.

    Raises:
        ValueError: the package is not installed.
    """
    if not str(path).startswith("package:"):
        return Path(path).expanduser()
    name, _, inside = str(path).removeprefix("package:").partition("/")
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(
            f"{path}: no package {name} is installed; "
            "pip install -e '.[quickstart]' brings those we use"
        )
    return Path(spec.submodule_search_locations[0], inside)


def find_parquet(photos: str | Path) -> list[str]:
    """Return the Parquet files that a file name, a pattern or a folder means.

    The list is empty if nothing matches, and for a folder that also holds images.

    Raises:
        ValueError: a matching file is not a Parquet file.
    """
    path = Path(photos)
    if path.is_dir():
        inside = _files(path)
        tables = [str(file) for file in inside if file.suffix.lower() == ".parquet"]
        return [] if any(file.suffix.lower() in IMAGE_SUFFIXES for file in inside) else tables
    found = [str(file) for file in ([path] if path.exists() else search(path))]
    if others := [file for file in found if not file.endswith(".parquet")]:
        raise ValueError(
            f"{others[0]}: not a Parquet file; give a folder of photos, or Parquet files"
        )
    return found


def is_hub_id(photos: str) -> bool:
    """Whether `photos` is the id, `owner/name`, of a dataset of the Hugging Face hub.

    A path that exists, or that ends as an image or Parquet file does, is none.
    """
    of_file = photos.lower().endswith((*IMAGE_SUFFIXES, ".parquet"))
    return (
        not of_file
        and bool(re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", photos))
        and not Path(photos).exists()
    )
