"""Clips are read with their own times, upright, and in sRGB."""

import io
import re
import struct
import subprocess
import sys
import zlib
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from clips import VARIABLE, av, decoded, drawn, make, needs_ffmpeg, seen
from PIL import Image

from impasto.images import read_image
from impasto.images.cicp import HLG, PQ, PRIMARIES, xyz_matrix
from impasto.video import colors
from impasto.video.reading import Clip, open_clip


def grey(level: int):
    """Pictures of one level, for `make`."""
    return lambda number, width, height: np.full((height, width, 3), level, np.uint8)


def flat(path: Path, planes: tuple[int, ...], pix_fmt: str, tags: tuple[int, int, int, int], size=(64, 48)) -> Clip:
    """A clip of two frames whose stored Y'CbCr values are given, without loss."""
    with av.open(str(path), mode="w") as container:
        video = container.add_stream("ffv1", rate=25)
        context = video.codec_context
        context.width, context.height, context.pix_fmt = *size, pix_fmt
        context.color_primaries, context.color_trc, context.colorspace, context.color_range = tags
        for number in range(2):
            frame = av.VideoFrame(*size, pix_fmt)
            for plane, value in zip(frame.planes, planes, strict=True):
                kind = np.uint16 if pix_fmt.endswith("le") else np.uint8
                plane.update(np.full(plane.buffer_size // kind().itemsize, value, kind).tobytes())
            frame.pts, frame.time_base = number, Fraction(1, 25)
            frame.color_primaries, frame.color_trc, frame.colorspace, frame.color_range = tags
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
    return open_clip(path)


def only(clip: Clip) -> tuple[int, ...]:
    """The colour of a clip of one colour."""
    colors = np.unique(next(clip.frames()).pixels.reshape(-1, 3), axis=0)
    assert len(colors) == 1
    return tuple(colors[0].tolist())


def test_every_frame_comes_with_its_time_and_duration(tmp_path: Path) -> None:
    clip = open_clip(make(tmp_path / "a.mp4", times=VARIABLE, base=Fraction(1, 90_000), last=1500))
    frames = list(clip.frames())
    assert clip.time_base == Fraction(1, 90_000) and clip.count == 10 and not clip.notes and not clip.damaged
    assert [frame.pts for frame in frames] == VARIABLE
    assert [frame.duration for frame in frames] == [*np.diff(VARIABLE).tolist(), 1500]
    assert clip.seconds == pytest.approx(91_500 / 90_000)
    for number, frame in enumerate(frames):  # 4:2:0 blurs the colours of the square's edges
        assert np.abs(frame.pixels - drawn(number, 64, 48).astype(int)).mean() < 2


def test_frames_from_a_number_on_are_those_of_the_whole(tmp_path: Path) -> None:
    path = make(tmp_path / "a.mp4", times=range(30), options={"g": "12", "qp": "20", "bf": "2"})
    for options in ({}, {"start": 0.5}, {"fps": 40}, {"fps": 7, "start": 0.2, "duration": 0.8}):
        whole = list(open_clip(path, **options).frames())
        rest = list(open_clip(path, **options).frames(3))
        assert len(whole) == open_clip(path, **options).count
        assert [(frame.pts, frame.duration) for frame in rest] == [(frame.pts, frame.duration) for frame in whole[3:]]
        assert all(np.array_equal(one.pixels, other.pixels) for one, other in zip(rest, whole[3:], strict=True))


def test_a_part_has_the_same_frames_from_time_0(tmp_path: Path) -> None:
    path = make(tmp_path / "a.mp4", times=range(30), options={"g": "12", "qp": "20", "bf": "2"})
    whole = list(open_clip(path).frames())
    clip = open_clip(path, start=0.5, duration=0.4)
    part = list(clip.frames())
    assert [frame.pts for frame in part] == list(range(10)) and clip.count == 10
    assert clip.shift == Fraction(13, 25)  # the first frame that is not before 0.5 s
    assert all(np.array_equal(one.pixels, other.pixels) for one, other in zip(part, whole[13:23], strict=True))


@pytest.mark.parametrize("fps, numbers", [
    (25, range(10)), (50, [n // 2 for n in range(20)]), (12.5, range(0, 10, 2)), (10, [0, 2, 5, 7]),
])  # fmt: skip
def test_a_constant_rate_shows_the_frame_of_that_time(tmp_path: Path, fps: float, numbers: list[int]) -> None:
    path = make(tmp_path / "a.mp4")
    whole, clip = list(open_clip(path).frames()), open_clip(path, fps=fps)
    frames = list(clip.frames())
    assert [frame.pts * clip.time_base for frame in frames] == [n / Fraction(fps) for n in range(len(numbers))]
    assert all(frame.duration * clip.time_base == 1 / Fraction(fps) for frame in frames) and clip.rate == fps
    assert all(np.array_equal(one.pixels, whole[n].pixels) for one, n in zip(frames, numbers, strict=True))


@needs_ffmpeg
@pytest.mark.parametrize("rotation", [0, 90, -90, 180])
def test_frames_are_upright(tmp_path: Path, rotation: int) -> None:
    path = make(tmp_path / "a.mp4", rotation=rotation, aspect=Fraction(4, 3))
    clip, frames = open_clip(path), seen(path)
    assert clip.size == frames.shape[2:0:-1] == ((48, 64) if rotation in (90, -90) else (64, 48))
    assert clip.aspect == (Fraction(3, 4) if rotation in (90, -90) else Fraction(4, 3))
    for mine, theirs in zip(clip.frames(), frames, strict=True):  # they do not smooth colours
        assert np.abs(mine.pixels - theirs.astype(int)).mean() < 2.5


def test_frames_are_mirrored_as_the_file_says(tmp_path: Path) -> None:
    plain = next(open_clip(make(tmp_path / "a.mp4")).frames()).pixels
    with av.open(str(tmp_path / "a.mp4")) as source, av.open(str(tmp_path / "b.mp4"), mode="w") as target:
        copy = target.add_stream_from_template(source.streams.video[0], opaque=True)
        copy.set_display_rotation(0, hflip=True)
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = copy
                target.mux(packet)
    assert np.array_equal(next(open_clip(tmp_path / "b.mp4").frames()).pixels, plain[:, ::-1])


# Stored values and the colour they mean, by the formulas of ITU-R BT.709 and BT.601.
@pytest.mark.parametrize("planes, pix_fmt, tags, color", [
    ((63, 102, 240), "yuv444p", (1, 1, 1, 1), (255, 0, 0)),
    ((81, 90, 240), "yuv444p", (1, 6, 6, 1), (254, 0, 0)),
    ((81, 90, 240), "yuv420p", (2, 2, 2, 1), (254, 0, 0)),  # says nothing, and is small: BT.601
    ((173, 42, 26), "yuv444p", (1, 1, 1, 1), (0, 255, 1)),
    ((16, 128, 128), "yuv420p", (1, 1, 1, 1), (0, 0, 0)),
    ((235, 128, 128), "yuv420p", (1, 1, 1, 1), (255, 255, 255)),
    ((100, 128, 128), "yuv420p", (1, 1, 1, 2), (100, 100, 100)),  # full range
    ((504, 512, 512), "yuv420p10le", (1, 1, 1, 1), (128, 128, 128)),
])  # fmt: skip
def test_colors_are_what_the_stored_values_mean(tmp_path: Path, planes, pix_fmt, tags, color) -> None:
    clip = flat(tmp_path / "a.mkv", planes, pix_fmt, tags)
    assert np.abs(np.subtract(only(clip), color)).max() <= 2
    assert clip.notes == (["10 bits a channel are converted to 8"] if "10" in pix_fmt else [])


def test_a_large_clip_that_says_nothing_is_bt709(tmp_path: Path) -> None:
    assert (
        np.abs(
            np.subtract(
                only(flat(tmp_path / "a.mkv", (63, 102, 240), "yuv444p", (2, 2, 2, 1), (1280, 16))), (255, 0, 0)
            )
        ).max()
        <= 2
    )


# BT.2100: PQ's signal of 203, 26 and 1 cd/m² is 0.5807, 0.3800 and 0.1499; HLG's reference white is 0.75.
# BT.2390's curve leaves 26 cd/m² as it is: sRGB's level of 26/203 is 100. It brings 203 cd/m² to 160: level 229.
@pytest.mark.parametrize("transfer, name, signals, levels", [
    (PQ, "PQ", (0.0, 0.1499, 0.3800, 0.5807, 0.7518, 1.0), (0, 16, 100, 229, 255, 255)),
    (HLG, "HLG", (0.0, 0.75, 1.0), (0, 229, 255)),
])  # fmt: skip
def test_hdr_becomes_sdr_with_its_white(tmp_path: Path, transfer: int, name: str, signals, levels) -> None:
    for number, (signal, level) in enumerate(zip(signals, levels, strict=True)):
        clip = flat(
            tmp_path / f"{number}.mkv", (round(64 + 876 * signal), 512, 512), "yuv420p10le", (9, transfer, 9, 1)
        )
        assert np.abs(np.subtract(only(clip), level)).max() <= 2
        assert clip.notes == [f"HDR ({name}) is converted to SDR"]


@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_brighter_light_never_gets_darker(transfer: int) -> None:
    ramp = np.arange(65536, dtype=np.uint16)[None, :, None].repeat(3, 2)
    assert (np.diff(colors.to_srgb(ramp, transfer, 9)[0].astype(int), axis=0) >= 0).all()


@needs_ffmpeg
def test_dark_hdr_colors_are_those_of_zscale(tmp_path: Path) -> None:
    """Below the roll-off, the conversion is plain colorimetry, which zimg does independently."""
    for number, planes in enumerate([(300, 560, 480), (330, 480, 540), (280, 512, 530)]):
        path = tmp_path / f"{number}.mkv"
        mine = only(flat(path, planes, "yuv444p10le", (9, PQ, 9, 1)))
        linear = "zscale=t=linear:npl=203,format=gbrpf32le,zscale=p=bt709,zscale=t=iec61966-2-1:r=full,format=gbrp"
        try:
            theirs = seen(path, filters=linear)
        except subprocess.CalledProcessError:
            pytest.skip("this ffmpeg has no zscale")
        assert np.abs(np.subtract(mine, theirs[0, 10, 10].astype(int))).max() <= 2


def test_wide_colors_without_hdr_are_converted(tmp_path: Path) -> None:
    """BT.2020's red in SDR is outside sRGB: it becomes the purest red, and says so."""
    clip = flat(tmp_path / "a.mkv", (294, 387, 960), "yuv444p10le", (9, 14, 9, 1))
    assert np.abs(np.subtract(only(clip), (255, 0, 0))).max() <= 2
    assert clip.notes == ["its wide colours are converted to those of sRGB"]


def palette(number: int, width: int, height: int) -> np.ndarray:
    """Colours all over the cube, each in a square of 4×4, and a ramp of grey."""
    steps = np.array([0, 50, 110, 170, 220, 255], np.uint8)
    colors = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(12, 18, 3)
    grey = np.linspace(0, 255, 18).astype(np.uint8)[None, :, None].repeat(3, -1)
    return np.concatenate([colors, grey]).repeat(4, 0).repeat(4, 1)


def palette_in(path: Path, primaries: int, transfer: int) -> Clip:
    """A clip of the palette, stored as RGB without loss."""
    return open_clip(make(path, (72, 52), range(1), pictures=palette, codec="ffv1", pix_fmt="bgr0",
                          tags=(primaries, transfer, 0, 2)))  # fmt: skip


# Display P3, BT.2020 and DCI-P3 with its greenish white; NTSC, PAL; linear light and the powers 2.2 and 2.8.
@pytest.mark.parametrize(
    ("primaries", "transfer"),
    [(12, 13), (9, 1), (11, 4), (6, 6), (7, 1), (5, 5), (1, 4), (1, 8), (6, 8), (1, 13), (2, 2)],
)
def test_a_clip_has_the_colors_of_a_png_of_the_same_scene(tmp_path: Path, primaries: int, transfer: int) -> None:
    """Little CMS converts the PNG, whose cICP has the same codes."""
    Image.fromarray(palette(0, 72, 52)).save(file := io.BytesIO(), "PNG")
    data, codes = file.getvalue(), b"cICP" + bytes([primaries, transfer, 0, 1])
    picture = read_image(
        "it", data[:33] + struct.pack(">L", 4) + codes + struct.pack(">L", zlib.crc32(codes)) + data[33:]
    )
    theirs = 255 * picture.pixels[0].permute(1, 2, 0).numpy()
    clip = palette_in(tmp_path / "a.mkv", primaries, transfer)
    mine = next(clip.frames()).pixels
    plain = np.abs(palette(0, 72, 52).astype(int) - mine).max()
    assert np.abs(mine - theirs).max() <= (2 if transfer == 8 else 1)  # swscale errs by 0.14 of 255 before
    assert plain == 0 if (primaries, transfer) in ((1, 13), (2, 2)) else plain > 5
    assert clip.notes == (["its wide colours are converted to those of sRGB"] if primaries in (9, 11, 12) else [])


# Linear RGB to that of BT.709, as published: SMPTE RP 177's matrix for SMPTE C, and that of Display P3.
@pytest.mark.parametrize(("primaries", "transfer", "matrix"), [
    (6, 6, [[0.939555, 0.050173, 0.010272], [0.017775, 0.965795, 0.016430], [-0.001622, -0.004371, 1.005993]]),
    (12, 13, [[1.224940, -0.224940, 0.0], [-0.042057, 1.042057, 0.0], [-0.019638, -0.078636, 1.098274]]),
    (1, 8, np.eye(3)),
    (1, 4, np.eye(3)),
])  # fmt: skip
def test_colors_are_those_of_the_formula(tmp_path: Path, primaries: int, transfer: int, matrix) -> None:
    signal = palette(0, 72, 52) / 255
    power = {8: 1.0, 4: 2.2}.get(transfer)
    light = signal**power if power else np.where(signal <= 0.04045, signal / 12.92, ((signal + 0.055) / 1.055) ** 2.4)
    light = (light @ np.array(matrix).T).clip(0, 1)
    expected = 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    mine = next(palette_in(tmp_path / "a.mkv", primaries, transfer).frames()).pixels
    assert np.abs(mine - expected).max() <= (2 if transfer == 8 else 1)
    assert np.allclose(np.linalg.solve(xyz_matrix(PRIMARIES[1]), xyz_matrix(PRIMARIES[primaries])), matrix, atol=2e-5)


@pytest.mark.parametrize("planes, pix_fmt, color_range", [
    ((235, 128, 128), "yuv420p", 1), ((255, 128, 128), "yuv444p", 2),
    ((940, 512, 512), "yuv420p10le", 1), ((1023, 512, 512), "yuv444p10le", 2), ((1023, 1023, 1023), "gbrp10le", 2),
])  # fmt: skip
def test_white_stays_white(tmp_path: Path, planes, pix_fmt: str, color_range: int) -> None:
    matrix = 0 if pix_fmt.startswith("gbr") else 6
    assert only(flat(tmp_path / "a.mkv", planes, pix_fmt, (6, 6, matrix, color_range))) == (255, 255, 255)


# ITU-R BT.709: black is 16, white 235 of 255, times 4 in 10 bits. A range that is not named is the full one.
@pytest.mark.parametrize("pix_fmt, color_range, values, levels", [
    ("gray", 1, (0, 16, 17, 126, 234, 235, 255), (0, 0, 1, 128, 254, 255, 255)),
    ("gray10le", 1, (0, 64, 504, 940, 1023), (0, 0, 128, 255, 255)), ("gray12le", 1, (256, 3760), (0, 255)),
    ("gray16le", 1, (4096, 60160), (0, 255)),
    ("gray", 2, (0, 16, 235, 255), (0, 16, 235, 255)), ("gray10le", 2, (0, 1023), (0, 255)),
    ("gray", 0, (0, 16, 235, 255), (0, 16, 235, 255)), ("gray10le", 0, (0, 1023), (0, 255)),
])  # fmt: skip
@pytest.mark.parametrize("primaries, transfer", [(1, 1), (2, 2), (6, 6), (9, 14), (12, 13)])
def test_grey_has_the_range_that_it_names(
    tmp_path: Path, pix_fmt: str, color_range: int, values, levels, primaries: int, transfer: int
) -> None:
    for number, (value, level) in enumerate(zip(values, levels, strict=True)):
        clip = flat(tmp_path / f"{number}.mkv", (value,), pix_fmt, (primaries, transfer, 2, color_range))
        assert only(clip) == (level, level, level)


def test_limited_grey_has_the_light_of_its_transfer_function(tmp_path: Path) -> None:
    """The middle of the range in linear light is sRGB's level 188; PQ's signal of 26 cd/m² is its level 100."""
    assert only(flat(tmp_path / "a.mkv", (502,), "gray10le", (1, 8, 2, 1))) == (188, 188, 188)
    clip = flat(tmp_path / "b.mkv", (round(64 + 876 * 0.38),), "gray10le", (9, PQ, 2, 1))
    assert np.abs(np.subtract(only(clip), 100)).max() <= 2


def test_sd_red_is_converted_from_stored_values(tmp_path: Path) -> None:
    """SMPTE C's red has 0.9396 of BT.709's, 0.0178 of its green, and no blue."""
    clip = flat(tmp_path / "a.mkv", (81, 90, 240), "yuv444p", (6, 6, 6, 1))
    assert np.abs(np.subtract(only(clip), (247, 36, 0))).max() <= 2 and clip.notes == []


def test_a_gif_keeps_times_transparency_and_loop(tmp_path: Path) -> None:
    images = [Image.new("RGBA", (9, 7), color) for color in ((255, 0, 0, 255), (0, 255, 0, 255), (0, 0, 255, 255))]
    for image in images:
        image.putpixel((3, 3), (0, 0, 0, 0))
    images[0].save(
        tmp_path / "a.gif", save_all=True, append_images=images[1:], duration=[70, 200, 30], loop=3, disposal=2
    )
    clip = open_clip(tmp_path / "a.gif")
    frames = list(clip.frames())
    assert [(frame.pts, frame.duration) for frame in frames] == [(0, 7), (7, 20), (27, 3)]
    assert (clip.time_base, clip.count, clip.seconds, clip.plays) == (Fraction(1, 100), 3, 0.3, 4)
    assert [tuple(frame.pixels[0, 0].tolist()) for frame in frames] == [
        (255, 0, 0, 255),
        (0, 255, 0, 255),
        (0, 0, 255, 255),
    ]
    assert clip.transparent and all(frame.pixels[3, 3, 3] == 0 for frame in frames)


@pytest.mark.parametrize("suffix, base", [(".webp", Fraction(1, 1000)), (".png", Fraction(1, 300))])
def test_animated_webp_and_png_keep_times(tmp_path: Path, suffix: str, base: Fraction) -> None:
    images = [Image.fromarray(drawn(number, 32, 24)) for number in range(3)]
    lengths = [40, 75, 41] if suffix == ".webp" else [1000 / 30, 50, 1000 / 30]
    images[0].save(
        tmp_path / f"a{suffix}", save_all=True, append_images=images[1:], duration=lengths, loop=2, lossless=True
    )
    clip = open_clip(tmp_path / f"a{suffix}")
    frames = list(clip.frames())
    if suffix == ".webp":
        assert [frame.duration * base for frame in frames] == [Fraction(length, 1000) for length in lengths]
        assert clip.plays == 2
    assert [frame.pts for frame in frames] == [0, *np.cumsum([frame.duration for frame in frames])[:2].tolist()]
    assert all(np.array_equal(frame.pixels, drawn(number, 32, 24)) for number, frame in enumerate(frames))


def test_a_folder_is_read_in_natural_order(tmp_path: Path) -> None:
    for number in (10, 9, 1):
        Image.new("RGB", (8, 6), (number, 0, 0)).save(tmp_path / f"frame{number}.png")
    (tmp_path / "notes.txt").touch()
    clip = open_clip(tmp_path, fps=12)
    frames = list(clip.frames())
    assert [frame.pixels[0, 0, 0] for frame in frames] == [1, 9, 10]
    assert [frame.pts for frame in frames] == [0, 1, 2] and clip.time_base == Fraction(1, 12) and clip.rate == 12
    assert open_clip(tmp_path).rate == 25 and clip.count == 3
    Image.new("RGB", (8, 7)).save(tmp_path / "frame11.png")
    with pytest.raises(ValueError, match=r"frame1\.png and frame11\.png differ in size: all frames of a clip must"):
        open_clip(tmp_path)


def cut(path: Path, share: float) -> Path:
    """Leave only a part of a file."""
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    return path


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
def test_of_a_file_that_was_cut_off_what_is_there_is_read(tmp_path: Path, suffix: str) -> None:
    path = make(tmp_path / f"a{suffix}", times=range(50), pictures=noise, options={"bf": "0"})
    if suffix == ".mp4":  # with the index at the start
        with (
            av.open(str(path)) as source,
            av.open(str(tmp_path / "b.mp4"), mode="w", container_options={"movflags": "faststart"}) as target,
        ):
            copy = target.add_stream_from_template(source.streams.video[0], opaque=True)
            for packet in source.demux(video=0):
                if packet.dts is not None:
                    packet.stream = copy
                    target.mux(packet)
        path = tmp_path / "b.mp4"
    clip = open_clip(cut(path, 0.6))
    frames = list(clip.frames())
    assert 25 <= len(frames) <= 31 and clip.damaged
    ends = rf"ends early after frame {len(frames)}, at 1\.\d\d s of 2\.00 s: the rest is missing"
    assert any(re.fullmatch(ends, note) for note in clip.notes) and all("\n" not in note for note in clip.notes)
    assert np.abs(frames[20].pixels - noise(20, 64, 48).astype(int)).mean() < 20


def noise(number: int, width: int, height: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (height, width, 1), np.uint8).repeat(3, 2)


def test_bytes_lost_in_the_middle_leave_the_rest(tmp_path: Path) -> None:
    path = make(tmp_path / "a.mp4", times=range(50), options={"g": "10"}, pictures=noise)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 3000] = bytes(3000)
    path.write_bytes(content)
    clip = open_clip(path)
    frames = list(clip.frames())
    assert 30 <= len(frames) <= 50 and clip.damaged and clip.notes[0].startswith("damaged")
    assert all(before.pts < after.pts for before, after in pairwise(frames))


def test_a_cut_gif_gives_its_whole_frames(tmp_path: Path) -> None:
    images = [Image.fromarray(noise(number, 40, 30)) for number in range(6)]
    images[0].save(tmp_path / "a.gif", save_all=True, append_images=images[1:], duration=50)
    clip = open_clip(cut(tmp_path / "a.gif", 0.6))
    assert len(list(clip.frames())) in (2, 3) and clip.damaged and clip.notes[0].startswith("ends early after frame")


def sound_only(path: Path) -> Path:
    with av.open(str(path), mode="w") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), "fltp", "stereo")
        frame.sample_rate = 44100
        container.mux(stream.encode(frame) + stream.encode(None))
    return path


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("given, message", [
    (lambda t: t / "none.mp4", "none.mp4: no such clip"),
    (lambda t: sound_only(t / "a.m4a"), "a.m4a: no video stream in it (audio only)"),
    (lambda t: written(t / "a.txt", b"Some words.\n" * 99), "a.txt: not a video"),
    (lambda t: written(t / "a.mp4", b"Some words.\n" * 99), "a.mp4: not a video"),
    (lambda t: written(t / "a.mp4", b""), "a.mp4: the file is empty, get it again"),
    (lambda t: cut(make(t / "a.mp4"), 0.6), "a.mp4: no index (moov atom missing): the recording or the copy was "
                                            "cut off; copy it again, or repair it with untrunc"),
    (lambda t: t, "no pictures in it; they end in .jpg"),
    (lambda t: save(t / "a.png"), "a.png: is a picture: `impasto infer` paints it"),
    (lambda t: save(t / "a.jpg"), "a.jpg: is a picture: `impasto infer` paints it"),
    (lambda t: cut(save(t / "a.gif"), 0.5), "a.gif: damaged, get the file again"),
])  # fmt: skip
def test_what_is_no_clip_is_refused_in_one_line(tmp_path: Path, given, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        open_clip(given(tmp_path))
    assert message in str(caught.value) and "\n" not in str(caught.value)


def save(path: Path) -> Path:
    Image.fromarray(noise(0, 64, 48)).save(path)
    return path


@pytest.mark.parametrize("options, message", [
    ({"start": 5}, r"--start 5: beyond the end of .*a\.mp4, which ends at 0\.40 s"),
    ({"start": 0.39}, r"--start 0\.39: beyond the end"),  # the last frame begins at 0.36 s
    ({"start": -1}, r"--start -1: must be 0 or more seconds"),
    ({"start": float("nan")}, r"--start nan: must be"),
    ({"duration": 0}, r"--duration 0: must be above 0 seconds"),
    ({"fps": 0}, r"--fps 0: must be above 0"),
])  # fmt: skip
def test_a_part_that_is_none_is_refused(tmp_path: Path, options: dict[str, float], message: str) -> None:
    path = make(tmp_path / "a.mp4")
    with pytest.raises(ValueError, match=message):
        open_clip(path, **options)


def test_without_pyav_the_message_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make(tmp_path / "a.mp4")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ValueError, match=r"clips need PyAV: pip install 'impasto\[video\]'"):
        open_clip(path)


def test_a_real_clip(shared: Path) -> None:
    clip = open_clip(shared / "data" / "video" / "cutBunny.mp4", start=4, duration=0.5)
    frames = list(clip.frames())
    assert (clip.size, clip.rate, clip.count, len(frames), clip.tracks) == ((640, 360), 24, 12, 12, ["audio 1 (aac)"])
    assert decoded(clip.path)[96].shape == frames[0].pixels.shape
