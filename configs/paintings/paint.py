"""Paint the pictures of this folder: python configs/paintings/paint.py [FOLDER].

They are two styles of our own, so that a network can be trained without a download:
`currents.jpg` shows brush strokes along a flow field over a setting sun, `window.jpg` stained
glass. Both are seeded, and under the project's MIT licence.
"""

import colorsys
import math
import random
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

WIDTH, HEIGHT = 1280, 1024  # size in pixels while painting; files have half of it
Array = np.ndarray


def smooth_noise(rng: np.random.Generator, cells: int) -> Array:
    """Return random values of about 0 to 1, HEIGHT×WIDTH, that vary over WIDTH / cells pixels."""
    grid = rng.random((math.ceil(cells * HEIGHT / WIDTH) + 1, cells + 1)).astype(np.float32)
    return np.asarray(Image.fromarray(grid).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))


def at(field: Array, x: float, y: float) -> float:
    """Return the field's value at a place; outside the field, the nearest value."""
    return float(field[min(HEIGHT - 1, max(0, int(y))), min(WIDTH - 1, max(0, int(x)))])


def shaded(color: str, rnd: random.Random, spread: float) -> tuple[int, int, int]:
    """Return the colour #rrggbb with a small random change of lightness and hue."""
    red, green, blue = (int(color[i : i + 2], 16) / 255 for i in (1, 3, 5))
    hue, light, saturation = colorsys.rgb_to_hls(red, green, blue)
    light = min(0.97, max(0.03, light + rnd.gauss(0, spread)))
    rgb = colorsys.hls_to_rgb((hue + rnd.gauss(0, spread / 5)) % 1, light, saturation)
    return tuple(round(255 * value) for value in rgb)  # type: ignore[return-value]


def sunset(x: float, y: float, wave: float) -> list[str]:
    """Return the palette at a place, x and y in [0, 1].

    The sky has bands around a low sun. Below is the sea with the sun's reflection.
    """
    distance = math.hypot(x - 0.64, (y - 0.45) * 0.8)
    if y < 0.58 + 0.02 * wave:
        rings = [
            (0.09, ["#fff3b0", "#ffe066"]),
            (0.2, ["#ffc145", "#ff9f1c", "#fff3b0"]),
            (0.34, ["#f3722c", "#ff9f1c", "#d1495b"]),
            (0.52, ["#b23a6b", "#7b2d8b", "#f3722c"]),
        ]
        return next(
            (colors for radius, colors in rings if distance < radius + 0.03 * wave),
            ["#3a2a7d", "#27408b", "#7b2d8b"],
        )
    if abs(x - 0.64) < 0.05 + 0.35 * (y - 0.58) and wave > -0.08:
        return ["#ffc145", "#f3722c", "#ffe066", "#0f7173"]
    return ["#0b3954", "#0f7173", "#14213d", "#2a9d8f"]


def currents(seed: int = 1) -> Image.Image:
    """Paint short curved brush strokes, broad ones first, along a turbulent flow."""
    rnd, rng = random.Random(seed), np.random.default_rng(seed)
    angle = (
        2.2 * (smooth_noise(rng, 5) - 0.5) * math.pi + 0.7 * (smooth_noise(rng, 14) - 0.5) * math.pi
    )
    wave = smooth_noise(rng, 7) - 0.5
    image = Image.new("RGB", (WIDTH, HEIGHT), "#1d2140")
    draw = ImageDraw.Draw(image)
    for breadth, length, strokes in ((30, 110, 1500), (17, 90, 3200), (9, 70, 4200), (5, 46, 2600)):
        for _ in range(strokes):
            x, y = rnd.uniform(-60, WIDTH + 20), rnd.uniform(-60, HEIGHT + 20)
            color = rnd.choice(sunset(x / WIDTH, y / HEIGHT, at(wave, x, y)))
            brush_stroke(draw, angle, (x, y), breadth * rnd.uniform(0.7, 1.3), length, color, rnd)
    return image


def brush_stroke(
    draw: ImageDraw.ImageDraw, angle: Array, start: tuple[float, float],
    breadth: float, length: float, color: str, rnd: random.Random,
) -> None:  # fmt: skip
    """Draw a stroke of parallel bristles, each in its own shade."""
    path = [start]
    while len(path) * 5 < length:
        x, y = path[-1]
        a = at(angle, x, y)
        path.append((x + 5 * math.cos(a), y + 5 * math.sin(a)))
    across = math.atan2(path[-1][1] - start[1], path[-1][0] - start[0]) + math.pi / 2
    bristles = max(2, round(breadth / 3))
    base = shaded(color, rnd, 0.05)
    tone = "#{:02x}{:02x}{:02x}".format(*base)
    for k in range(bristles):
        off = (k / (bristles - 1) - 0.5) * breadth
        dx, dy = off * math.cos(across), off * math.sin(across)
        skip = rnd.randrange(3)  # ragged ends
        points = [(x + dx, y + dy) for x, y in path[skip : len(path) - rnd.randrange(3)]]
        draw.line(points, fill=shaded(tone, rnd, 0.035), width=4, joint="curve")


def window(seed: int = 5) -> Image.Image:
    """Paint panes of coloured glass in lead, around a rose."""
    rnd, rng = random.Random(seed), np.random.default_rng(seed)
    points, colors = panes(rnd)
    ys, xs = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
    bend = 26 * (smooth_noise(rng, 9) - 0.5)
    near = np.full((HEIGHT, WIDTH), np.inf, np.float32)
    second, owner = near.copy(), np.zeros((HEIGHT, WIDTH), int)
    for i, (x, y) in enumerate(points):
        distance = np.hypot(xs + bend - x, ys + bend - y)
        closer = distance < near
        second = np.where(closer, near, np.minimum(second, distance))
        owner, near = np.where(closer, i, owner), np.where(closer, distance, near)
    glass = np.asarray(colors, np.float32)[owner]
    light = 0.72 + 0.5 * smooth_noise(rng, 24) + 0.25 * (smooth_noise(rng, 90) - 0.5) - near / 420
    lead = np.clip((second - near - 5) / 5, 0, 1)
    ridge = 34 * np.clip(1 - np.abs(second - near - 1.5) / 3, 0, 1)  # a highlight on the lead
    picture = (glass * light[..., None] * lead[..., None]
               + (18 + ridge[..., None]) * (1 - lead[..., None]))  # fmt: skip
    return Image.fromarray(picture.clip(0, 255).astype(np.uint8)).filter(
        ImageFilter.GaussianBlur(0.8)
    )


def panes(rnd: random.Random) -> tuple[list[tuple[float, float]], list[tuple[int, int, int]]]:
    """Return centres and colours of the panes: rings of a rose, then a blue and green ground."""
    points, colors = [], []
    rings = [
        (1, 0, ["#ffd23f"]),
        (8, 95, ["#ee4266"]),
        (14, 190, ["#ffd23f", "#f77f00"]),
        (20, 290, ["#9b1d64", "#ee4266"]),
    ]
    for count, radius, palette in rings:
        for k in range(count):
            a = 2 * math.pi * (k + 0.5 * (radius > 100)) / count
            points.append(
                (WIDTH * 0.44 + radius * math.cos(a), HEIGHT * 0.5 + radius * math.sin(a))
            )
            colors.append(shaded(palette[k % len(palette)], rnd, 0.04))
    while len(points) < 190:
        x, y = rnd.uniform(-20, WIDTH + 20), rnd.uniform(-20, HEIGHT + 20)
        if (
            min(math.hypot(x - px, y - py) for px, py in points) > 62
            and math.hypot(x - WIDTH * 0.44, y - HEIGHT / 2) > 345
        ):
            points.append((x, y))
            colors.append(
                shaded(
                    rnd.choice(["#1446a0", "#0ead69", "#3bceac", "#2541b2", "#06457a", "#7c3aed"]),
                    rnd,
                    0.06,
                )
            )
    return points, colors


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    for name, picture in (("currents", currents()), ("window", window())):
        picture.resize((WIDTH // 2, HEIGHT // 2), Image.Resampling.LANCZOS).save(
            folder / f"{name}.jpg", quality=90
        )
