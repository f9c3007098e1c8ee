"""Painted clips have the frames, times, size and sound of the clip they were. ffprobe and ffmpeg are the judges."""

import io
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clips import VARIABLE, av, decoded, drawn, make, needs_ffmpeg, seen, sound_hash, streams, times
from PIL import Image, ImageCms

from impasto.images.cicp import HLG, PQ, PRIMARIES
from impasto.images.colors import _SRGB_CURVE, matrix_profile
from impasto.video import colors
from impasto.video.clips import Frame
from impasto.video.reading import open_clip
from impasto.video.writing import ClipWriter

SEGMENT = 4


def paint(
    source: Path,
    output: Path,
    *,
    change: Callable[[np.ndarray], np.ndarray] = lambda pixels: pixels,
    audio: Any = "copy",
    overwrite: bool = False,
    **part: float,
) -> list[str]:
    """Write a clip again, each frame changed, and return all notes."""
    clip = open_clip(source, **part)
    first = change(next(clip.frames()).pixels)
    writer = ClipWriter(output, clip, first.shape[1::-1], identity="same", audio=audio, overwrite=overwrite)
    for number, frame in enumerate(clip.frames(writer.done), 1):
        writer.write(Frame(change(frame.pixels), frame.pts, frame.duration))
        if number % SEGMENT == 0:
            writer.end_segment({})
    writer.end_segment({})
    return clip.notes + writer.finish()


def difference(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one.astype(int) - other.astype(int)).mean())


@needs_ffmpeg
@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_a_variable_frame_rate_comes_back_exactly(tmp_path: Path, suffix: str) -> None:
    source = make(tmp_path / "a.mp4", times=VARIABLE, base=Fraction(1, 90_000), last=1500)
    assert paint(source, tmp_path / f"b{suffix}") == []
    theirs, mine = times(source), times(tmp_path / f"b{suffix}")
    if suffix == ".mkv":  # keeps milliseconds
        assert len(mine) == 10 and all(
            abs(a - b) <= Fraction(1, 2000) for (a, _), (b, _) in zip(theirs, mine, strict=True)
        )
    else:
        assert mine == theirs
    assert difference(seen(source), seen(tmp_path / f"b{suffix}")) < 2
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@needs_ffmpeg
def test_times_in_milliseconds_come_back_from_mkv(tmp_path: Path) -> None:
    source = make(tmp_path / "a.mkv", times=[0, 40, 81, 120, 333, 334], base=Fraction(1, 1000), last=40)
    paint(source, tmp_path / "b.mp4")
    assert [time for time, _ in times(tmp_path / "b.mp4")] == [time for time, _ in times(source)]


@needs_ffmpeg
@pytest.mark.parametrize("rotation", [90, -90, 180])
def test_a_turned_clip_is_written_upright(tmp_path: Path, rotation: int) -> None:
    source = make(tmp_path / "a.mp4", rotation=rotation, aspect=Fraction(4, 3))
    paint(source, tmp_path / "b.mp4")
    told = streams(tmp_path / "b.mp4")[0]
    assert (told["width"], told["height"]) == ((64, 48) if rotation == 180 else (48, 64))
    assert told["sample_aspect_ratio"] == ("4:3" if rotation == 180 else "3:4")
    assert "side_data_list" not in told and times(source) == times(tmp_path / "b.mp4")
    assert difference(seen(source), seen(tmp_path / "b.mp4")) < 3


@needs_ffmpeg
@pytest.mark.parametrize("size", [(1, 1), (321, 181), (64, 47)])
def test_odd_sides_stay(tmp_path: Path, size: tuple[int, int]) -> None:
    source = make(tmp_path / "a.mkv", size, codec="ffv1", pix_fmt="yuv444p", times=range(3))
    notes = paint(source, tmp_path / "b.mp4")
    assert notes == [f"{size[0]}×{size[1]} has an odd side: written as 4:4:4, which some players do not show"]
    told = streams(tmp_path / "b.mp4")[0]
    assert (told["width"], told["height"], told["pix_fmt"]) == (*size, "yuv444p") and len(
        times(tmp_path / "b.mp4")
    ) == 3
    assert difference(seen(source), seen(tmp_path / "b.mp4")) < 3


@needs_ffmpeg
def test_colors_are_bt709_and_tagged(tmp_path: Path) -> None:
    """Colours of a folder of pictures, which has no Y'CbCr, as another FFmpeg decodes them by the tags."""
    colors = [(255, 0, 0), (0, 200, 30), (20, 40, 250), (128, 128, 128), (255, 255, 255), (0, 0, 0), (200, 150, 110)]
    (tmp_path / "frames").mkdir()
    for number, color in enumerate(colors):
        Image.new("RGB", (64, 48), color).save(tmp_path / "frames" / f"{number}.png")
    paint(tmp_path / "frames", tmp_path / "b.mp4")
    told = streams(tmp_path / "b.mp4")[0]
    assert {told[f"color_{name}"] for name in ("space", "transfer", "primaries")} == {"bt709"}
    assert (told["color_range"], told["pix_fmt"], told["avg_frame_rate"]) == ("tv", "yuv420p", "25/1")
    frames = seen(tmp_path / "b.mp4", filters="scale=in_color_matrix=bt709:in_range=tv")
    assert np.abs(frames[:, 24, 32].astype(int) - colors).max() <= 2
    back = [next_.pixels[24, 32] for next_ in open_clip(tmp_path / "b.mp4").frames()]
    assert np.abs(np.array(back).astype(int) - colors).max() <= 2


@needs_ffmpeg
@pytest.mark.parametrize("tags, note", [
    ((1, 1, 1, 1), "10 bits a channel are converted to 8"),
    ((9, HLG, 9, 1), "HDR (HLG) is converted to SDR"),
    ((9, PQ, 9, 1), "HDR (PQ) is converted to SDR"),
])  # fmt: skip
def test_ten_bits_and_hdr_become_sdr(tmp_path: Path, tags: tuple[int, int, int, int], note: str) -> None:
    source = make(tmp_path / "a.mp4", pix_fmt="yuv420p10le", tags=tags)
    assert paint(source, tmp_path / "b.mp4") == [note]
    told = streams(tmp_path / "b.mp4")[0]
    assert (told["pix_fmt"], told["color_transfer"], told["color_primaries"]) == ("yuv420p", "bt709", "bt709")
    assert times(source) == times(tmp_path / "b.mp4")


@needs_ffmpeg
def test_other_primaries_become_bt709(tmp_path: Path) -> None:
    source = make(tmp_path / "a.mp4", tags=(6, 5, 6, 1))
    assert paint(source, tmp_path / "b.mp4") == []
    told = streams(tmp_path / "b.mp4")[0]
    assert {told[f"color_{name}"] for name in ("space", "transfer", "primaries")} == {"bt709"}
    make(tmp_path / "c.mp4", tags=(1, 1, 6, 1))  # the same stored values, for which nothing is converted
    before, after, plain = (next(open_clip(tmp_path / f"{name}.mp4").frames()).pixels for name in "abc")
    assert difference(before, after) < 2 and difference(before, plain) > 10


P3, DCI_P3, BT2020 = 12, 11, 9
SCENE = [
    (255, 0, 0),
    (0, 200, 30),
    (20, 40, 250),
    (128, 128, 128),
    (255, 255, 255),
    (0, 0, 0),
    (200, 150, 110),
    (9, 9, 9),
]


def wide(path: Path, primaries: int, transfer: int) -> Path:
    """A clip of grey frames, as many as SCENE has colours, in R'G'B' with these codes."""
    return make(path, (64, 48), range(len(SCENE)), codec="ffv1", pix_fmt="bgr0", tags=(primaries, transfer, 0, 2),
                pictures=lambda number, width, height: np.full((height, width, 3), 8 * number, np.uint8))  # fmt: skip


def painted_in_scene(source: Path, output: Path) -> None:
    """Write a clip whose paintings are the colours of SCENE."""
    colors = iter([SCENE[0], *SCENE])
    paint(source, output, change=lambda pixels: np.full_like(pixels, next(colors)))


@needs_ffmpeg
@pytest.mark.parametrize("primaries, transfer, suffix, names", [
    (P3, 13, ".mp4", ("smpte432", "iec61966-2-1")), (P3, 1, ".mov", ("smpte432", "bt709")),
    (P3, 1, ".mkv", ("smpte432", "bt709")), (P3, 2, ".mp4", ("smpte432", "iec61966-2-1")),
    (P3, 4, ".mp4", ("smpte432", "iec61966-2-1")), (DCI_P3, 1, ".mp4", ("smpte431", "bt709")),
])  # fmt: skip
def test_a_clip_in_p3_comes_back_in_p3(tmp_path: Path, primaries: int, transfer: int, suffix: str, names) -> None:
    """FFmpeg decodes the stored levels by their tags. They are those to which Little CMS converts the painting."""
    painted_in_scene(wide(tmp_path / "a.mkv", primaries, transfer), output := tmp_path / f"b{suffix}")
    told = streams(output)[0]
    assert (told["color_primaries"], told["color_transfer"]) == names
    assert (told["color_space"], told["color_range"], told["pix_fmt"]) == ("bt709", "tv", "yuv420p")
    scene = Image.fromarray(np.array([SCENE], np.uint8))
    profile = ImageCms.ImageCmsProfile(io.BytesIO(matrix_profile(PRIMARIES[primaries], _SRGB_CURVE)))
    theirs = ImageCms.profileToProfile(scene, ImageCms.createProfile("sRGB"), profile)
    assert theirs is not None and np.abs(np.subtract(theirs, scene, dtype=int)).max() > 20
    stored = seen(output, filters="scale=in_color_matrix=bt709:in_range=tv")[:, 24, 32].astype(int)
    assert np.abs(stored - np.asarray(theirs)[0]).max() <= 2
    again = [frame.pixels[24, 32].astype(int) for frame in open_clip(output).frames()]
    assert np.abs(np.subtract(again, SCENE)).max() <= 4  # 8 bits of Y'CbCr; see the next test


@pytest.mark.parametrize("primaries", [P3, DCI_P3])
def test_levels_of_srgb_come_back_from_p3(primaries: int) -> None:
    """Before compression: greys exactly, other colours within 2 levels, but for the most saturated."""
    steps = np.arange(0, 256, 15, dtype=np.uint8)
    lattice = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(-1, 18, 3)
    stored = colors.from_srgb(lattice, primaries).astype(np.uint16) * 257
    apart = np.abs(colors.to_srgb(stored, 13, primaries).astype(int) - lattice)
    assert apart.max() <= 8 and (apart <= 2).mean() > 0.99
    assert apart[lattice.min(-1) >= 60].max() <= 2
    grey = np.arange(256, dtype=np.uint8)[None, :, None].repeat(3, 2)
    assert np.array_equal(colors.from_srgb(grey, primaries), grey)


@needs_ffmpeg
@pytest.mark.parametrize("primaries, transfer", [(BT2020, 14), (P3, PQ), (P3, HLG), (6, 6), (2, 2)])
def test_other_spaces_and_hdr_become_bt709(tmp_path: Path, primaries: int, transfer: int) -> None:
    painted_in_scene(wide(tmp_path / "a.mkv", primaries, transfer), tmp_path / "b.mp4")
    told = streams(tmp_path / "b.mp4")[0]
    assert {told[f"color_{name}"] for name in ("space", "transfer", "primaries")} == {"bt709"}
    again = [frame.pixels[24, 32].astype(int) for frame in open_clip(tmp_path / "b.mp4").frames()]
    assert np.abs(np.subtract(again, SCENE)).max() <= 2


def test_pictures_of_a_clip_in_p3_are_srgb(tmp_path: Path) -> None:
    painted_in_scene(wide(tmp_path / "a.mkv", P3, 13), tmp_path / "frames")
    for color, file in zip(SCENE, sorted((tmp_path / "frames").iterdir()), strict=True):
        image = Image.open(file)
        assert "icc_profile" not in image.info and image.getpixel((32, 24)) == color


@pytest.fixture
def talking(tmp_path: Path) -> Path:
    """A clip with two streams of sound and one of subtitles."""
    make(tmp_path / "two.mp4", times=range(50), sounds=2)
    words = "1\n00:00:00,200 --> 00:00:00,900\nGood morning.\n\n2\n00:00:01,000 --> 00:00:01,700\nGood night.\n"
    (tmp_path / "words.srt").write_text(words)
    command = ["ffmpeg", "-v", "error", "-i", "two.mp4", "-i", "words.srt", "-map", "0", "-map", "1", "-c", "copy"]
    subprocess.run([*command, "-metadata:s:s:0", "language=eng", "a.mkv"], cwd=tmp_path, check=True)
    return tmp_path / "a.mkv"


@needs_ffmpeg
def test_sound_subtitles_and_words_about_them_are_copied(tmp_path: Path, talking: Path) -> None:
    assert paint(talking, tmp_path / "b.mkv") == []
    told = streams(tmp_path / "b.mkv")
    assert [stream["codec_type"] for stream in told] == ["video", "audio", "audio", "subtitle"]
    assert [stream["tags"]["language"] for stream in told[1:]] == ["deu", "fra", "eng"]
    assert told[0]["pix_fmt"] == "yuv420p" and av.open(str(tmp_path / "b.mkv")).metadata["title"] == "A walk"
    for number in range(2):
        assert sound_hash(tmp_path / "b.mkv", number) == sound_hash(talking, number)
        assert times(tmp_path / "b.mkv", f"a:{number}") == times(talking, f"a:{number}")
    assert times(tmp_path / "b.mkv", "s") == times(talking, "s")
    assert [time for time, _ in times(tmp_path / "b.mkv")] == [time for time, _ in times(talking)]


@needs_ffmpeg
def test_what_the_container_cannot_hold_is_named(tmp_path: Path, talking: Path) -> None:
    assert paint(talking, tmp_path / "b.mp4") == ["subtitle 1 (subrip, eng) cannot be held in .mp4: left out; try .mkv"]
    assert [stream["codec_type"] for stream in streams(tmp_path / "b.mp4")] == ["video", "audio", "audio"]
    assert sound_hash(tmp_path / "b.mp4", 1) == sound_hash(talking, 1)
    assert paint(talking, tmp_path / "b.gif", duration=0.2) == [
        "audio 1 (aac, deu) cannot be held in .gif: left out; try .mkv",
        "audio 2 (aac, fra) cannot be held in .gif: left out; try .mkv",
        "subtitle 1 (subrip, eng) cannot be held in .gif: left out; try .mkv",
    ]
    assert paint(talking, tmp_path / "c.mkv", audio="none", duration=0.2) == []
    assert [stream["codec_type"] for stream in streams(tmp_path / "c.mkv")] == ["video", "subtitle"]


@needs_ffmpeg
def test_sound_starts_before_the_frames_where_it_did(tmp_path: Path) -> None:
    """AAC's first packet is played before time 0, and only its end is heard."""
    source = make(tmp_path / "a.mp4", times=range(50), sounds=1)
    paint(source, tmp_path / "b.mp4")
    assert sound_hash(source) == sound_hash(tmp_path / "b.mp4") and times(source) == times(tmp_path / "b.mp4")
    assert times(source, "a") == times(tmp_path / "b.mp4", "a") and times(source, "a")[0][0] < 0


@needs_ffmpeg
def test_a_part_takes_its_sound_along(tmp_path: Path) -> None:
    source = make(tmp_path / "a.mp4", times=range(50), sounds=1)
    paint(source, tmp_path / "b.mp4", start=0.5, duration=1)
    assert [time for time, _ in times(tmp_path / "b.mp4")] == [Fraction(n, 25) for n in range(25)]
    shift = Fraction(13, 25)  # the first frame that is not before 0.5 s
    whole = [time for time, _ in times(source, "a")]
    wanted = [time - shift for time in whole if shift <= time < Fraction(3, 2)]
    part = [time for time, _ in times(tmp_path / "b.mp4", "a")]
    assert len(part) == len(wanted) and all(abs(a - b) <= Fraction(1, 44100) for a, b in zip(part, wanted, strict=True))


@needs_ffmpeg
def test_a_broadcast_begins_at_0(tmp_path: Path) -> None:
    make(tmp_path / "a.mp4", times=range(50), sounds=1)
    subprocess.run(["ffmpeg", "-v", "error", "-i", "a.mp4", "-c", "copy", "a.ts"], cwd=tmp_path, check=True)
    paint(tmp_path / "a.ts", tmp_path / "b.mp4")
    video, sound = (times(tmp_path / "b.mp4", kind)[0][0] for kind in "va")
    theirs, heard = (times(tmp_path / "a.ts", kind)[0][0] for kind in "va")
    assert theirs > 1 and min(video, sound) == 0 and abs((video - sound) - (theirs - heard)) < Fraction(1, 10_000)


@needs_ffmpeg
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".gif", ".webp", ""])
def test_one_frame_is_a_clip(tmp_path: Path, suffix: str) -> None:
    paint(make(tmp_path / "a.mp4", times=[0]), tmp_path / f"b{suffix}")
    assert len(list(open_clip(tmp_path / f"b{suffix}").frames())) == 1


@needs_ffmpeg
def test_of_a_cut_file_what_is_there_is_written_with_its_sound(tmp_path: Path) -> None:
    source = make(tmp_path / "a.mkv", times=range(50), sounds=1, options={"bf": "0"})
    source.write_bytes(source.read_bytes()[: source.stat().st_size * 6 // 10])
    notes = paint(source, tmp_path / "b.mkv")
    assert any(note.startswith("ends early after frame") for note in notes)
    assert [time for time, _ in times(source)] == [time for time, _ in times(tmp_path / "b.mkv")]
    assert sound_hash(source) == sound_hash(tmp_path / "b.mkv")


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
def test_an_animation_keeps_durations_loop_and_transparency(tmp_path: Path, suffix: str) -> None:
    images = [Image.fromarray(drawn(number, 40, 30)).convert("RGBA") for number in range(5)]
    for image in images:
        image.paste((0, 0, 0, 0), (20, 20, 30, 30))
    lengths = [70, 200, 30, 100, 1000]
    images[0].save(tmp_path / "a.gif", save_all=True, append_images=images[1:], duration=lengths, loop=2, disposal=2)
    assert paint(tmp_path / "a.gif", tmp_path / f"b{suffix}") == []
    source, copy = open_clip(tmp_path / "a.gif"), open_clip(tmp_path / f"b{suffix}")
    assert copy.plays == source.plays == 3 and copy.size == (40, 30)
    for one, other in zip(source.frames(), copy.frames(), strict=True):
        assert one.duration * source.time_base == other.duration * copy.time_base
        shown = one.pixels[..., 3] > 0
        assert np.array_equal(one.pixels[..., 3], other.pixels[..., 3])
        assert difference(one.pixels[shown], other.pixels[shown]) < 6


@needs_ffmpeg
def test_ffmpeg_reads_the_gif_and_its_durations(tmp_path: Path) -> None:
    """24 frames a second are no whole hundredths; the ends are rounded, so the whole is as long."""
    source = make(tmp_path / "a.mp4", times=range(48), base=Fraction(1, 24))
    paint(source, tmp_path / "b.gif")
    told = times(tmp_path / "b.gif")
    assert (
        len(told) == 48
        and told[-1][0] == Fraction(196, 100)
        and {length for _, length in told} <= {Fraction(4, 100), Fraction(5, 100)}
    )
    assert difference(seen(source), seen(tmp_path / "b.gif")) < 6


def test_a_webp_of_equal_frames_keeps_them_all(tmp_path: Path) -> None:
    source = make(tmp_path / "a.mp4", pictures=lambda number, width, height: np.full((height, width, 3), 90, np.uint8))
    paint(source, tmp_path / "b.webp")
    assert [frame.duration for frame in open_clip(tmp_path / "b.webp").frames()] == [40] * 10


def test_a_transparent_clip_is_laid_on_white_in_a_video(tmp_path: Path) -> None:
    Image.new("RGBA", (8, 6), (0, 0, 0, 0)).save(tmp_path / "a.webp", save_all=True, lossless=True)
    assert paint(tmp_path / "a.webp", tmp_path / "b.mp4") == [".mp4 has no transparency: laid on white"]
    assert decoded(tmp_path / "b.mp4")[0].min() >= 253


def test_a_folder_of_frames_comes_back_as_one(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number in range(6):
        Image.fromarray(drawn(number, 33, 21)).save(tmp_path / "in" / f"f{number}.png")
    paint(tmp_path / "in", tmp_path / "out")
    names = [path.name for path in sorted((tmp_path / "out").iterdir())]
    assert names == [f"{number:06d}.png" for number in range(1, 7)]
    for number, name in enumerate(names):
        assert np.array_equal(np.asarray(Image.open(tmp_path / "out" / name)), drawn(number, 33, 21))
    with pytest.raises(ValueError, match="out: holds frames already; --overwrite replaces them"):
        paint(tmp_path / "in", tmp_path / "out")
    (tmp_path / "in" / "f5.png").unlink()
    paint(tmp_path / "in", tmp_path / "out", overwrite=True)
    assert len(list((tmp_path / "out").iterdir())) == 5
    (tmp_path / "out" / "diary.txt").touch()
    with pytest.raises(ValueError, match=r"out: the folder holds diary\.txt: choose a new or an empty one"):
        paint(tmp_path / "in", tmp_path / "out", overwrite=True)


def test_outputs_that_cannot_be_are_refused_in_one_line(tmp_path: Path) -> None:
    source, taken = make(tmp_path / "a.mp4", times=range(2)), tmp_path / "taken.mp4"
    taken.write_bytes(b"mine")
    (tmp_path / "link.mp4").hardlink_to(source)
    for output, overwrite, message in [
        (
            "b.avi",
            False,
            r"b\.avi: '\.avi' cannot be written: name it \.mp4, \.mov, .*, \.webp, or a folder without suffix",
        ),
        ("a.mp4", True, r"a\.mp4: is the clip given, never written over; choose another --output"),
        ("link.mp4", True, r"link\.mp4: is the clip given"),
        ("taken.mp4", False, r"taken\.mp4: exists already; --overwrite replaces it"),
        ("taken.mp4/b.mp4", False, r"b\.mp4: cannot be written \(.*\): choose another folder"),
    ]:
        with pytest.raises(ValueError, match=message) as caught:
            paint(source, tmp_path / output, overwrite=overwrite)
        assert "\n" not in str(caught.value)
    assert taken.read_bytes() == b"mine"
    paint(source, taken, overwrite=True)
    assert len(decoded(taken)) == 2


def test_segments_of_another_run_are_refused(tmp_path: Path) -> None:
    source, output = make(tmp_path / "a.mp4"), tmp_path / "b.mp4"
    frames = list(open_clip(source).frames())
    state = {
        "mean": np.linspace(0, 1, 7, dtype=np.float32)[::2],
        "mask": np.eye(3, dtype=np.uint8).T,
        "one": np.float32(0.1),
    }

    def begin(identity: str, **options: Any) -> ClipWriter:
        return ClipWriter(output, open_clip(source), (64, 48), identity=identity, **options)

    writer = begin("wave")
    assert (writer.done, writer.state) == (0, None)
    for frame in frames[:6]:
        writer.write(frame)
        if frame is frames[3]:
            writer.end_segment(state)
    again = begin("wave")  # frames 5 and 6 were in no whole segment
    assert again.done == 4 and again.state is not None and set(again.state) == set(state)
    for name, value in state.items():
        assert np.array_equal(again.state[name], value) and again.state[name].dtype == value.dtype
    for other in ({"identity": "scream"}, {"identity": "wave", "crf": 20}):
        left = r"b\.mp4: an interrupted run with another clip, network or options left \.b\.mp4\.parts; "
        with pytest.raises(ValueError, match=left + "repeat its command to go on, or pass --overwrite to start anew"):
            begin(**other)
    assert begin("wave", overwrite=True).done == 4  # the same command goes on
    make(source, tags=(P3, 1, 1, 1))  # the same pictures: segments in two spaces are never joined
    with pytest.raises(ValueError, match=left):
        begin("wave")
    assert begin("wave", overwrite=True).done == 0
    make(source)
    assert begin("scream", overwrite=True).done == 0


def test_a_clip_without_frames_is_not_written(tmp_path: Path) -> None:
    writer = ClipWriter(tmp_path / "b.mp4", open_clip(make(tmp_path / "a.mp4")), (64, 48), identity="x")
    with pytest.raises(ValueError, match=r"b\.mp4: no frame was written: nothing to join"):
        writer.finish()


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".gif"])
def test_a_full_disk_is_said_and_the_segments_stay(tmp_path: Path, suffix: str) -> None:
    """While joining: the whole is larger than any segment."""
    source = make(tmp_path / "a.mp4", times=range(24), sounds=1)
    clip = open_clip(source)
    writer = ClipWriter(tmp_path / f"b{suffix}", clip, clip.size, identity="x")
    for number, frame in enumerate(clip.frames(), 1):
        writer.write(frame)
        if number % SEGMENT == 0:
            writer.end_segment({})
    largest = max(path.stat().st_size for path in (tmp_path / f".b{suffix}.parts").iterdir())
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handled = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, before[1]))
    try:
        with pytest.raises(ValueError, match=rf"b\{suffix}: File too large") as caught:
            writer.finish()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handled)
    assert "\n" not in str(caught.value) and not (tmp_path / f"b{suffix}").exists()
    writer = ClipWriter(tmp_path / f"b{suffix}", clip, clip.size, identity="x")
    assert writer.done == 24
    writer.finish()
    assert len(list(open_clip(tmp_path / f"b{suffix}").frames())) == 24


# Each frame is painted from the last result, as steady painting does: what follows depends on the state.
BLENDED = f"""
import sys
from pathlib import Path

import numpy as np

from impasto.video.clips import Frame
from impasto.video.reading import open_clip
from impasto.video.writing import ClipWriter

clip = open_clip(Path(sys.argv[1]), fps=30)
writer = ClipWriter(Path(sys.argv[2]), clip, clip.size, identity="blended")
last = None if writer.state is None else writer.state["last"]
for number, frame in enumerate(clip.frames(writer.done), 1):
    new = frame.pixels.astype(np.float32)
    last = new if last is None else np.float32(0.7) * last + np.float32(0.3) * new
    writer.write(Frame(last.round().astype(np.uint8), frame.pts, frame.duration))
    print(writer.done, flush=True)
    if number % {SEGMENT} == 0:
        writer.end_segment({{"last": last}})
writer.finish()
"""


def test_killed_at_random_moments_the_frames_are_the_same(tmp_path: Path) -> None:
    """Compared without loss, in a folder of PNG files: x264 itself does not always repeat itself to the bit."""
    source, output = (
        make(tmp_path / "a.mp4", times=range(60), options={"bf": "2", "g": "9", "qp": "20"}),
        tmp_path / "out",
    )
    dice, done = random.Random(0), []
    for kill in (True, True, True, False):
        with subprocess.Popen(
            [sys.executable, "-c", BLENDED, source, output], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout and process.stderr
            for _ in range(dice.randrange(5, 22) if kill else 1000):
                line = process.stdout.readline()
                if not line:
                    break
                done.append(int(line))
            time.sleep(dice.uniform(0, 0.02))
            if kill:
                process.kill()
            else:
                assert process.wait() == 0, process.stderr.read()
    assert len({0, *done}) > 5  # it went on, and did not start anew
    last = None
    frames = list(open_clip(source, fps=30).frames())
    assert len(frames) == 72 == len(list(output.iterdir()))
    for frame, file in zip(frames, sorted(output.iterdir()), strict=True):
        new = frame.pixels.astype(np.float32)
        last = new if last is None else np.float32(0.7) * last + np.float32(0.3) * new
        assert np.array_equal(np.asarray(Image.open(file)), last.round().astype(np.uint8)), file.name


@pytest.mark.parametrize(
    ("suffix", "primaries"), [(".mp4", 1), (".mp4", P3), (".mkv", 1), (".mkv", DCI_P3), (".gif", 1), (".webp", P3)]
)
def test_a_run_that_goes_on_gives_the_clip_of_one_without_a_pause(tmp_path: Path, suffix: str, primaries: int) -> None:
    source = make(tmp_path / "a.mp4", times=VARIABLE, base=Fraction(1, 90_000), sounds=1, tags=(primaries, 1, 1, 1))
    paint(source, tmp_path / f"whole{suffix}")
    writer = ClipWriter(tmp_path / f"b{suffix}", clip := open_clip(source), clip.size, identity="same")
    for number, frame in enumerate(clip.frames(), 1):
        if number == 7:  # of which two are in no whole segment
            break
        writer.write(frame)
        if number == SEGMENT:
            writer.end_segment({})
    del writer
    paint(source, tmp_path / f"b{suffix}")
    ours, whole = (list(open_clip(tmp_path / f"{name}{suffix}").frames()) for name in ("b", "whole"))
    assert [(frame.pts, frame.duration) for frame in ours] == [(frame.pts, frame.duration) for frame in whole]
    for one, other in zip(ours, whole, strict=True):
        if suffix in (".gif", ".webp"):
            assert np.array_equal(one.pixels, other.pixels)
        else:
            assert difference(one.pixels, other.pixels) < 0.5


def test_memory_stays_constant_over_a_thousand_frames(tmp_path: Path) -> None:
    source = make(tmp_path / "a.mp4", (160, 120), times=range(1000), options={"qp": "30"})
    clip = open_clip(source)
    writer = ClipWriter(tmp_path / "b.mp4", clip, clip.size, identity="x")
    pages = lambda: int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()  # noqa: E731
    for number, frame in enumerate(clip.frames(), 1):
        writer.write(frame)
        if number % 50 == 0:
            writer.end_segment({"last": frame.pixels})
        if number == 400:
            early = pages()
    writer.finish()
    assert number == 1000 and pages() - early < 16e6  # the frames in between are 35 MB, the parts less than 2


HOLDING = """
import sys
from pathlib import Path

from impasto.video.reading import open_clip
from impasto.video.writing import ClipWriter

clip = open_clip(Path(sys.argv[1]))
writer = ClipWriter(Path(sys.argv[2]), clip, clip.size, identity="same")
for frame in clip.frames(writer.done):
    writer.write(frame)
    if frame.pts == 3:
        writer.end_segment({})
        print("has it", flush=True)
        sys.stdin.readline()
writer.finish()
"""


@pytest.fixture
def second(tmp_path: Path) -> Iterator[subprocess.Popen]:
    """Another process that writes a.mp4 to b.mp4. It waits with its first segment stored."""
    make(tmp_path / "a.mp4")
    command = [sys.executable, "-c", HOLDING, tmp_path / "a.mp4", tmp_path / "b.mp4"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "has it\n"
        yield process
        process.kill()


@pytest.mark.parametrize("overwrite", [False, True])
def test_two_runs_cannot_share_segments(tmp_path: Path, second: subprocess.Popen, overwrite: bool) -> None:
    source, output = tmp_path / "a.mp4", tmp_path / "b.mp4"
    before = sorted(path.name for path in (tmp_path / ".b.mp4.parts").iterdir())
    told = rf"b\.mp4: process {second.pid} on .* is writing it: wait until it ends, or choose another --output$"
    for identity in ("same", "another"):
        with pytest.raises(ValueError, match=told) as caught:
            ClipWriter(output, open_clip(source), (64, 48), identity=identity, overwrite=overwrite)
        assert "\n" not in str(caught.value)
    assert sorted(path.name for path in (tmp_path / ".b.mp4.parts").iterdir()) == before
    second.communicate("\n")
    assert second.returncode == 0 and len(decoded(output)) == 10, "the first run is not disturbed"
    assert not (tmp_path / ".b.mp4.parts").exists()


def test_a_killed_run_holds_nothing(tmp_path: Path, second: subprocess.Popen) -> None:
    second.kill()
    second.wait()
    clip = open_clip(tmp_path / "a.mp4")
    assert ClipWriter(tmp_path / "b.mp4", clip, clip.size, identity="same").done == 4
    paint(tmp_path / "a.mp4", tmp_path / "b.mp4")
    assert len(decoded(tmp_path / "b.mp4")) == 10 and not (tmp_path / ".b.mp4.parts").exists()
