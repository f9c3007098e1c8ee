"""The command `impasto video`: stylizes a clip, steadily."""

from pathlib import Path

from impasto.choices import Audio, Backend, Stroke, Tiling
from impasto.commands.arguments import parsed

_ALLOWED = {
    "start": "a number of seconds",
    "duration": "a number of seconds",
    "strength": "a number from 0 to 1",
    "size": "a whole number of pixels",
    "stroke": "auto, pixels or a number from 0.1 to 10",
    "tile": "auto, never or a whole number of pixels",
    "steady": "a number from 0 to 1",
    "crf": "a whole number from 0 to 51",
}
_CLIP = "a clip, an animated GIF or WebP, or a folder of frames"


def video(arguments: list[str]) -> int:
    """Run the command with the arguments of a command line; return its exit status.

    Returns:
        0: done; 1: the clip is damaged, and what there is of it was painted; 130: interrupted.

    Raises:
        ValueError: a mistake of the user.
    """
    description = "Stylize a clip, so that it does not flicker."
    given = parsed("video", description, stylize_clip, arguments, {"clip": _CLIP}, _ALLOWED)
    return stylize_clip(**given)


def stylize_clip(
    clip: str,
    network: str | None = None,
    style: str | None = None,
    output: str = "stylized",
    start: float = 0.0,
    duration: float | None = None,
    fps: float | None = None,
    size: int | None = None,
    steady: float = 0.5,
    strength: float = 1.0,
    keep_colors: bool = False,
    stroke: Stroke = "auto",
    tile: Tiling = "auto",
    crf: int = 18,
    audio: Audio = "copy",
    preview: int = 0,
    device: str = "auto",
    backend: Backend = "auto",
    overwrite: bool = False,
) -> int:
    """Stylize a clip; the same command continues one that was interrupted.

    Args:
        clip: a clip, an animated GIF or WebP, or a folder of frames
        network: a published name or a file; if not given, the published network that knows the
            style, or starry_night
        style: a style of the network, a mixture, or styles by their time in seconds, which change
            gradually from one to the next: "0:starry_night, 5:great_wave"
        output: a file, by its suffix .mp4, .mov, .mkv, .gif or .webp; or a folder for the result
        start: where to begin in the clip, in seconds
        duration: how much of the clip to paint, in seconds; if not given, all
        fps: frames a second of the result; if not given, the clip's own frames and times
        size: longer side of the result in pixels; if not given, that of the clip
        steady: from 0 (every frame by itself) to 1 (what has been painted is only moved)
        strength: from 0 (the clip) to 1 (fully stylized)
        keep_colors: keep the colours of the clip and paint only its brightness
        stroke: auto, pixels or a number, as for `impasto infer`
        tile: auto, never or a number of pixels, as for `impasto infer`
        crf: quality of H.264, from 0 (lossless) to 51 (worst)
        audio: copy: sound and subtitles as they are; none: leave them out
        preview: paint only so many frames, spread over the clip, into one picture
        device: auto (cuda, else mps, else cpu), cpu, cuda, cuda:N or mps
        backend: torch; onnx, for exported files; auto, as for `impasto infer`
        overwrite: replace an earlier result, or what is left of an interrupted one
    """
    path = Path(clip).expanduser()
    from impasto.video.reading import open_clip

    found = open_clip(path, start=start, duration=duration, fps=fps)
    # Imported here because torch takes seconds to import. Mistakes above are answered without it.
    from impasto.commands import clips, painting
    from impasto.inference import Stylizer
    from impasto.inference.steady import SteadyPainter
    from impasto.networks import find_network

    times = clips.style_times(style)
    weights = find_network(network or painting.default_network(clips.all_styles(times)))
    stylizer = Stylizer(
        weights, times[0][1], strength=strength, keep_colors=keep_colors, size=size, stroke=stroke,
        device=device, backend=backend, tile=tile,
    )  # fmt: skip
    job = clips.Painted(found, SteadyPainter(stylizer, steady), times, weights)
    if preview:
        return clips.preview(job, Path(output).expanduser(), preview, overwrite)
    return clips.stylize(job, Path(output).expanduser(), crf, audio, overwrite)
