"""Write folders of PNG files."""

import io
import shutil

from PIL import Image

from impasto.video.clips import FRAME_NAME, Frame, check_output
from impasto.video.writing.output import Stills
from impasto.video.writing.segments import Segments
from impasto.writing import new_file


class Folder(Stills):
    """A folder of PNG files."""

    def _encoded(self, frame: Frame) -> bytes:
        Image.fromarray(frame.pixels).save(file := io.BytesIO(), "PNG")
        return file.getvalue()

    def join(self, segments: Segments) -> None:
        """Write the frames into a folder beside the segments, and give it its name when whole."""
        draft = segments.folder / "frames"
        shutil.rmtree(draft, ignore_errors=True)
        for number, (data, *_) in enumerate(segments.frames(), 1):
            with new_file(draft / FRAME_NAME.format(number)) as file:
                file.write(data)
        target = self.path.resolve()
        if target.is_dir():
            check_output(self.path, self.clip.path, self.overwrite)  # only frames lie in it
            for old in target.iterdir():
                old.unlink()
            target.rmdir()
        draft.replace(target)

    def _place(self) -> str:
        return "a folder"
