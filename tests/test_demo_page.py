"""The demo's page in a real browser, headless: what it paints is what Python paints, and it says what goes wrong."""

import base64
import io
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from exported import exported
from pictures import save
from PIL import Image
from scipy.ndimage import uniform_filter

from impasto import Stylizer
from impasto.demo.runtime import find_runtime
from impasto.demo.server import PAGE, open_server
from impasto.export import ExportOptions, export_network
from impasto.networks.adain import AdaINNet
from impasto.networks.predictor import AnyStyleNet, with_basis
from impasto.networks.reading import AnyPaintingNet

SECONDS = 60
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


class Page:
    """The page in the browser, and what a person does with it."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, address: str, expect: str = "Ready") -> None:
        self.driver.get(address)
        self.until(lambda: self.text("timing").startswith(expect))

    def js(self, code: str, *values: object) -> Any:
        return self.driver.execute_script(code, *values)

    def until(self, condition: Callable[[], object]) -> None:
        """Waits; a page that never gets there fails with what it says."""
        end = time.monotonic() + SECONDS
        while not condition():
            assert time.monotonic() < end, self.js("return document.body.innerText")
            time.sleep(0.05)

    def text(self, name: str) -> str:
        return self.js("return document.getElementById(arguments[0]).textContent", name)

    def give(self, photo: Path) -> None:
        self.driver.find_element("id", "file").send_keys(str(photo))

    def click(self, name: str) -> None:
        self.driver.find_element("id", name).click()

    def set(self, name: str, value: str) -> None:
        """Moves a slider or chooses a size; both events, as a person's hand would make."""
        self.js(
            "const it = document.querySelector(arguments[0]); it.value = arguments[1];"
            "for (const kind of ['input', 'change']) it.dispatchEvent(new Event(kind))", name, value,
        )  # fmt: skip

    def shown(self, name: str) -> bool:
        return self.driver.find_element("id", name).is_displayed()

    def drop(self, file: Path, kind: str, on: str) -> None:
        self.js(
            "const data = new DataTransfer();"
            "const bytes = Uint8Array.from(atob(arguments[0]), (letter) => letter.charCodeAt(0));"
            "data.items.add(new File([bytes], arguments[1], { type: arguments[2] }));"
            "const drop = new DragEvent('drop', { dataTransfer: data, bubbles: true, cancelable: true });"
            "document.getElementById(arguments[3]).dispatchEvent(drop)",
            base64.b64encode(file.read_bytes()).decode(), file.name, kind, on,
        )  # fmt: skip

    def check(self, name: str, value: bool) -> None:
        """Sets a box, as a click does."""
        if self.js(f"return document.getElementById('{name}').checked") != value:
            self.click(name)

    def mix(self, weights: Mapping[int, int]) -> None:
        """Sets every slider, and lets go of the last."""
        self.js(
            "const all = [...document.querySelectorAll('#styles input')], before = all.map((it) => it.value).join();"
            "all.forEach((it, at) => { it.value = arguments[0][at] ?? 0; });"
            "if (all.map((it) => it.value).join() !== before) all[0].dispatchEvent(new Event('input'))",
            {str(number): weight for number, weight in weights.items()},
        )

    def names(self) -> list[str]:
        return self.js("return [...document.querySelectorAll('#styles .name')].map((name) => name.title)")

    def shares(self) -> list[str]:
        return self.js("return [...document.querySelectorAll('#styles output')].map((share) => share.textContent)")

    def painted(self) -> np.ndarray:
        """The picture that is shown, once nothing is being painted any more."""
        self.until(lambda: self.js("return !document.getElementById('download').disabled"))
        picture = self.js("return document.getElementById('picture').toDataURL('image/png')")
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(picture.split(",")[1]))).convert("RGB"))


SIDES = (320, 192)  # of the clip, in pixels
STILL, MOVING = (0, 0, 130, 192), (190, 0, 320, 192)  # boxes of it


def clip(frames: int = 24, noise: float = 6) -> np.ndarray:
    """Frames of T×H×W×3 bytes: still and noisy on the left, with a square that moves over stripes on the right."""
    random, (width, height) = np.random.default_rng(0), SIDES
    y, x = np.mgrid[:height, :width]
    ground = 110 + 50 * np.sin(x / 9) + 40 * np.sin(y / 7)
    made = np.repeat(ground[None, ..., None], frames, axis=0).repeat(3, axis=3)
    for number, frame in enumerate(made):
        top = 10 + 12 * (number % 12)
        frame[top : top + 40, MOVING[0] + 20 : MOVING[2] - 20] = 250
    return np.clip(made + random.normal(0, noise, made.shape), 0, 255).round().astype(np.uint8)


def camera_file(path: Path) -> Path:
    """The clip as Y4M, which Chromium plays as what its camera sees."""
    width, height = SIDES
    with path.open("wb") as file:
        file.write(f"YUV4MPEG2 W{width} H{height} F12:1 Ip A1:1 C420jpeg\n".encode())
        for frame in clip():
            y, cb, cr = Image.fromarray(frame).convert("YCbCr").split()
            half = (width // 2, height // 2)
            file.write(b"FRAME\n" + y.tobytes() + cb.resize(half).tobytes() + cr.resize(half).tobytes())
    return path


def clip_file(path: Path) -> Path:
    """The clip as WebM (VP8), which every browser plays; with enough bits to keep the noise."""
    av = pytest.importorskip("av", reason="needs the extra `video`")
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libvpx", rate=12)
        (stream.width, stream.height), stream.pix_fmt, stream.bit_rate = SIDES, "yuv420p", 8_000_000
        for frame in clip():
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame)))
        file.mux(stream.encode(None))
    return path


@contextmanager
def served(network: Path, runtime: Path) -> Iterator[str]:
    """The page of a network, on a free port."""
    with open_server(network, runtime, 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="module")
def runtime() -> Path:
    try:
        return find_runtime(os.environ.get("IMPASTO_ORT_WEB"))
    except ValueError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def network(request: pytest.FixtureRequest) -> Path:
    """The published gallery as the README exports it; IMPASTO_DEMO_NETWORK names one made before."""
    if made := os.environ.get("IMPASTO_DEMO_NETWORK"):
        return Path(made)
    return request.getfixturevalue("gallery_onnx")


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Headless Chromium, with the camera that it brings for tests, and a folder for downloads."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium")
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    chromedriver = shutil.which("chromedriver")
    if not browser or not chromedriver:
        pytest.skip("needs Chromium and its driver (apt-get install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1280,860",
                     "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"):  # fmt: skip
        options.add_argument(argument)
    sees = camera_file(tmp_path_factory.mktemp("camera") / "sees.y4m")
    options.add_argument(f"--use-file-for-fake-video-capture={sees}")
    downloads = {"download.default_directory": str(tmp_path_factory.mktemp("downloads"))}
    options.add_experimental_option("prefs", downloads)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(chromedriver))
    driver.downloads = Path(downloads["download.default_directory"])
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def gallery(driver: Any, network: Path, runtime: Path) -> Iterator[Page]:
    """The page with the gallery, painting on the CPU, where it is the same everywhere."""
    page = Page(driver)
    with served(network, runtime) as address:
        page.open(f"{address}?backend=wasm")
        page.address = address
        yield page


@pytest.fixture
def page(gallery: Page) -> Page:
    """The same for every test, in its first style and at full strength."""
    gallery.set("#strength", "100")
    gallery.check("keep", False)
    gallery.set("#strokes", "1")
    gallery.mix({0: 100})
    return gallery


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real photo, 160×128, as PNG: a JPEG is not decoded alike everywhere."""
    data = pytest.importorskip("skimage.data")
    path = tmp_path_factory.mktemp("photos") / "astronaut.png"
    Image.fromarray(data.astronaut()).crop((0, 0, 480, 384)).resize((160, 128), Image.Resampling.LANCZOS).save(path)
    return path


def assert_same(shown: np.ndarray, stylizer: Stylizer, photo: Path, mean: float = 0.02) -> None:
    """Within 2/255 of what Python paints, and closer on the whole."""
    expected = np.asarray(stylizer(Image.open(photo)))
    assert shown.shape == expected.shape
    apart = np.abs(shown.astype(int) - expected.astype(int))
    assert apart.max() <= 2 and apart.mean() < mean, (apart.max(), apart.mean())


def test_lists_the_styles_of_the_file_and_loads_nothing_from_elsewhere(page: Page) -> None:
    styles = Stylizer("gallery", "starry_night").painter.metadata["styles"]
    assert page.names() == [style["title"] for style in styles]
    assert "Vincent van Gogh, 1889" in page.text("styles")
    loaded = page.js("return performance.getEntries().map((entry) => entry.name).filter((name) => name.includes(':'))")
    assert any(name.endswith("gallery.onnx") for name in loaded)
    assert all(name.startswith((page.address, "blob:", "data:")) for name in loaded), loaded
    assert page.js("return crossOriginIsolated")


def test_paints_what_python_paints(page: Page, photo: Path, network: Path) -> None:
    page.give(photo)
    shown = page.painted()
    assert_same(shown, Stylizer(network, "starry_night"), photo)  # ONNX Runtime, the same file
    assert_same(shown, Stylizer("gallery", "starry_night"), photo)  # PyTorch
    assert "160 × 128 · 0.02 MP" in page.text("timing") and "WASM" in page.text("timing")
    page.click("download")
    file = page.driver.downloads / "astronaut_starry_night.png"
    page.until(file.exists)
    assert np.array_equal(np.asarray(Image.open(file).convert("RGB")), shown)


def test_sliders_mix_styles(page: Page, photo: Path) -> None:
    page.give(photo)
    first = page.painted()
    page.mix({1: 60, 4: 20})
    mixed = page.painted()
    assert page.shares() == ["75 %" if style == 1 else "25 %" if style == 4 else "0 %" for style in range(12)]
    assert np.abs(mixed.astype(int) - first).mean() > 5
    assert_same(mixed, Stylizer("gallery", {"great_wave": 0.75, "the_scream": 0.25}), photo)


def test_strength_blends_with_the_photo(page: Page, photo: Path) -> None:
    page.give(photo)
    page.painted()
    page.set("#strength", "40")
    # Python blends before it rounds; the page has the network's bytes.
    assert_same(page.painted(), Stylizer("gallery", "starry_night", strength=0.4), photo, mean=0.2)
    page.set("#strength", "0")
    assert np.array_equal(page.painted(), np.asarray(Image.open(photo)))


def test_strokes_are_enlarged_as_python_does_it(page: Page, photo: Path) -> None:
    """The browser scales the photo down by a filter of its own, so the two are near and not the same."""
    page.give(photo)
    trained = page.painted().astype(int)
    page.set("#strokes", "2")
    page.until(lambda: not page.js("return document.getElementById('download').disabled"))
    twice = page.painted().astype(int)
    expected = np.asarray(Stylizer("gallery", "starry_night", stroke=2.0)(Image.open(photo))).astype(int)
    assert twice.shape == expected.shape
    apart, before = (float(np.abs(shown - expected).mean()) for shown in (twice, trained))
    assert apart < 6 and apart < 0.4 * before, (apart, before)
    page.click("download")
    page.until((page.driver.downloads / "astronaut_starry_night_stroke-2.png").exists)


def test_the_colours_of_the_photo_are_kept(page: Page, photo: Path) -> None:
    page.give(photo)
    page.painted()
    page.check("keep", True)
    kept = Stylizer("gallery", "starry_night", keep_colors=True)
    assert_same(page.painted(), kept, photo, mean=0.2)  # Python keeps them before it rounds
    page.set("#strength", "40")
    page.click("download")
    page.until((page.driver.downloads / "astronaut_starry_night_strength-0.4_colors-kept.png").exists)


def test_a_tap_chooses_one_style_and_no_style_is_said(page: Page, photo: Path) -> None:
    page.give(photo)
    page.js("document.querySelectorAll('.swatch')[2].click()")
    assert page.shares()[2] == "100 %" and page.shares().count("0 %") == 11
    assert_same(page.painted(), Stylizer("gallery", "udnie"), photo)
    page.mix({})
    assert "All styles are at 0" in page.text("message")


def test_the_original_is_a_tap_away(page: Page, photo: Path) -> None:
    page.give(photo)
    painted = page.painted()
    page.click("original")
    assert np.array_equal(page.painted(), np.asarray(Image.open(photo)))
    page.click("original")
    assert np.array_equal(page.painted(), painted)


def test_an_unreadable_file_is_said_and_the_picture_stays(page: Page, photo: Path, tmp_path: Path) -> None:
    page.give(photo)
    before = page.painted()
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no photo")
    page.give(tmp_path / "broken.jpg")
    page.until(lambda: "“broken.jpg” cannot be read as a picture" in page.text("message"))
    assert np.array_equal(page.painted(), before)
    page.give(photo)
    page.until(lambda: page.text("message") == "")


def test_a_photo_that_lies_on_its_side_is_set_up(page: Page, photo: Path, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rows are columns
    Image.open(photo).save(tmp_path / "turned.jpg", exif=exif, quality=95)
    page.give(tmp_path / "turned.jpg")
    page.until(lambda: "128 × 160" in page.text("timing"))


def test_the_size_is_limited(page: Page, tmp_path: Path) -> None:
    Image.linear_gradient("L").resize((600, 300)).convert("RGB").save(tmp_path / "wide.png")
    page.set("#size", "256")
    page.give(tmp_path / "wide.png")
    page.until(lambda: "256 × 128" in page.text("timing"))
    assert page.painted().shape == (128, 256, 3)


def test_the_camera_is_painted_live_and_taken(page: Page) -> None:
    page.set("#size", "256")
    page.click("open-camera")
    page.until(lambda: "frames/s" in page.text("timing"))
    page.click("shoot")
    page.until(lambda: page.text("timing").startswith("256 ×"))
    assert page.painted().std() > 10
    assert page.js("return document.getElementById('camera').srcObject") is None
    assert not page.shown("steady-row")


@pytest.mark.parametrize(("width", "height"), [(390, 844), (320, 568), (844, 390)])
def test_a_phone_scrolls_one_way_only(page: Page, photo: Path, width: int, height: int) -> None:
    page.give(photo)
    page.painted()
    screen = {"width": width, "height": height, "deviceScaleFactor": 2, "mobile": True}
    page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    try:
        assert page.js("return innerWidth") == width
        assert page.js("return document.documentElement.scrollWidth") <= width
        heights = page.js("return [...document.querySelectorAll('.button, .swatch')].map((it) => it.offsetHeight)")
        assert not [height for height in heights if 0 < height < 44]  # fingers are larger than pointers
        assert page.js("return document.getElementById('picture').getBoundingClientRect().height") > 100
    finally:
        page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_without_webgpu_the_page_says_that_it_takes_wasm(page: Page, driver: Any, network: Path, runtime: Path) -> None:
    with served(network, runtime) as address:
        other = Page(driver)
        driver.switch_to.new_window("tab")
        try:
            other.open(f"{address}?backend=webgpu")
            if "WebGPU" in other.text("timing"):
                pytest.skip("there is WebGPU on this machine")
            assert "WebGPU could not be used here; painting is done with WASM." in other.text("message")
        finally:
            driver.close()
            driver.switch_to.window(driver.window_handles[0])


@pytest.mark.parametrize(
    ("properties", "said"),
    [(None, "There is no gallery.onnx beside this page"), ({}, "has no styles in its metadata"),
     ({"styles": "[]", "pixels": "float32"}, "takes float32 pixels; this page needs bytes"),
     ({"styles": "[]", "pixels": "uint8", "part": "part"}, "paints parts of pictures")],
)  # fmt: skip
def test_networks_it_cannot_use(
    properties: dict[str, str] | None, said: str, driver: Any, runtime: Path, tmp_path: Path
) -> None:
    helper = pytest.importorskip("onnx.helper", reason="needs the extra `export`")
    path = tmp_path / "network.onnx"
    if properties is not None:
        model = helper.make_model(helper.make_graph([], "nothing", [], []))
        helper.set_model_props(model, properties)
        path.write_bytes(model.SerializeToString())
    with served(path, runtime) as address:
        page = Page(driver)
        page.open(address, expect="Not ready")
        assert said in page.text("message")


def test_a_damaged_network(driver: Any, runtime: Path, tmp_path: Path) -> None:
    (tmp_path / "network.onnx").write_bytes(b"\x72\xff\xff\x03 cut off")
    with served(tmp_path / "network.onnx", runtime) as address:
        page = Page(driver)
        page.open(address, expect="Not ready")
        assert "damaged" in page.text("message")


@pytest.fixture(scope="module", params=["predictor", "adain"])
def any_network(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network for any painting with random weights, exported as the page needs it."""
    pytest.importorskip("onnxruntime", reason="the export extra is not installed")
    pytest.importorskip("onnxscript", reason="the export extra is not installed")
    torch.manual_seed(0)
    network: AnyPaintingNet
    if request.param == "adain":
        network = AdaINNet(8).with_encoder().eval()
        torch.nn.init.normal_(network.to_rgb.weight)  # pictures that differ
    else:
        network = AnyStyleNet(6, 8, 0).eval()  # blocks are those of the gallery, which the page paints with too
        network.load_state_dict(with_basis(network, None))
        for parameter in network.predictor.layers[-1].parameters():
            torch.nn.init.normal_(parameter)  # codes that differ
    path = tmp_path_factory.mktemp("any") / "any.onnx"
    export_network(network, path, ExportOptions(pixels="uint8"))
    return path


def test_paintings_are_dropped_mixed_and_weakened_as_in_python(
    driver: Any, any_network: Path, runtime: Path, photo: Path, tmp_path: Path
) -> None:
    first, second = save(tmp_path / "first.png", 1, blur=1.5), save(tmp_path / "second.png", 2, blur=3.0)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    page = Page(driver)
    with served(any_network, runtime) as address:
        page.open(f"{address}?backend=wasm")
        page.give(photo)
        page.until(lambda: "Add a painting" in page.text("message"))
        driver.find_element("id", "painting").send_keys(str(first))
        page.until(lambda: page.names() == ["first"])
        assert_same(page.painted(), Stylizer(any_network, first), photo)
        assert page.js("return document.querySelectorAll('#styles .swatch canvas').length") == 1
        page.drop(second, "image/png", on="styles")
        page.until(lambda: page.names() == ["first", "second"])
        assert page.shares() == ["0 %", "100 %"]
        page.mix({0: 30, 1: 70})
        assert_same(page.painted(), Stylizer(any_network, {first: 0.3, second: 0.7}), photo)
        page.set("#strength", "40")
        assert_same(page.painted(), Stylizer(any_network, {first: 0.3, second: 0.7}, strength=0.4), photo)
        page.set("#strength", "0")
        assert np.array_equal(page.painted(), np.asarray(Image.open(photo)))
        driver.find_element("id", "painting").send_keys(str(tmp_path / "broken.png"))
        page.until(lambda: "cannot be read as a picture" in page.text("message"))
        assert page.names() == ["first", "second"]


def test_a_missing_reader_is_said(driver: Any, any_network: Path, runtime: Path, tmp_path: Path) -> None:
    (tmp_path / "alone.onnx").write_bytes(any_network.read_bytes())
    with served(tmp_path / "alone.onnx", runtime) as address:
        page = Page(driver)
        page.open(address, expect="Not ready")
        assert "gallery.style.onnx" in page.text("message")


def script_of_steady_frames() -> str:
    """The page's own code of that section, which needs nothing else of the page."""
    (code,) = re.findall(r"// ---- steady frames.*?(?=// ---- the camera)", PAGE.read_text(), re.DOTALL)
    return code


def steadied(driver: Any, frames: list[np.ndarray], paintings: list[np.ndarray]) -> tuple[np.ndarray, float]:
    """What the page makes of two frames and of the painting before, and the least of its milliseconds."""
    height, width, _ = frames[0].shape
    rgba = [np.dstack([frame, np.full((height, width), 255, np.uint8)]) for frame in frames]
    texts = [base64.b64encode(values.tobytes()).decode() for values in [*rgba, *paintings]]
    result, milliseconds = driver.execute_script(
        script_of_steady_frames()
        + """
        const [texts, width, height] = arguments;
        const [first, second, previous, painted] = texts.map(
          (text) => Uint8ClampedArray.from(atob(text), (letter) => letter.charCodeAt(0)));
        const before = { photo: new ImageData(first, width, height), painted: previous };
        const photo = new ImageData(second, width, height), times = [];
        let result;
        for (let round = 0; round < 21; round++) {
          const started = performance.now();
          result = steadied(photo, painted, before);
          times.push(performance.now() - started);
        }
        let text = "";
        for (const value of result) text += String.fromCharCode(value);
        return [btoa(text), Math.min(...times)];
        """,
        texts, width, height,
    )  # fmt: skip
    return np.frombuffer(base64.b64decode(result), np.uint8).reshape(height, width, 3), milliseconds


def test_where_nothing_moves_the_previous_painting_is_blended_in(driver: Any) -> None:
    """Against the formula in numpy and scipy, on a picture that is no square, with noise, and with a movement."""
    random, (first, second) = np.random.default_rng(1), clip(2, noise=3)
    previous, painted = (random.integers(0, 256, first.shape, dtype=np.uint8) for _ in range(2))
    shown, _ = steadied(driver, [first, second], [previous, painted])
    change = np.abs(second.astype(float) - first).mean(axis=2)
    t = ((12 - uniform_filter(change, 5, mode="nearest")) / 8).clip(0, 1)
    share = 0.8 * (3 * t**2 - 2 * t**3)[..., None]
    expected = painted + share * (previous.astype(float) - painted)
    assert np.abs(shown - expected).max() <= 0.51
    moved = t == 0
    assert 0.02 < moved.mean() < 0.5 and np.array_equal(shown[moved], painted[moved])
    assert share[:, : STILL[2]].mean() > 0.7  # noise is no movement
    # The same photo: the whole of it. Another one: the painting as it is.
    same, _ = steadied(driver, [first, first], [previous, painted])
    assert np.abs(same - (0.2 * painted + 0.8 * previous.astype(float))).max() <= 0.51
    other, _ = steadied(driver, [first, 255 - first], [previous, painted])
    assert np.array_equal(other, painted) or (other == painted).mean() > 0.98


def test_steadying_takes_little_of_a_frame(driver: Any) -> None:
    frames = [np.asarray(Image.fromarray(frame).resize((640, 360))) for frame in clip(2)]
    _, milliseconds = steadied(driver, frames, frames)
    print(f"640×360: {milliseconds:.1f} ms")
    assert milliseconds < 40  # some 5 ms where the machine has nothing else to do


# Distinct pictures of the page's canvas; of each two in a row, the mean change in two boxes.
FLICKER = """
const [number, boxes, done] = [arguments[0], arguments[1], arguments[2]], found = [];
let last = null;
const look = () => {
  const canvas = document.getElementById("picture"), { width, height } = canvas;
  const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
  if (last && last.length === data.length && data.some((level, at) => level !== last[at])) {
    found.push(boxes.map(([left, top, right, bottom]) => {
      let sum = 0, count = 0;
      for (let y = Math.ceil(top * height); y < Math.floor(bottom * height); y++) {
        for (let x = Math.ceil(left * width); x < Math.floor(right * width); x++) {
          for (let k = 4 * (y * width + x); k % 4 < 3; k++, count++) sum += Math.abs(data[k] - last[k]);
        }
      }
      return sum / count;
    }));
  }
  last = data;
  if (found.length < number) requestAnimationFrame(look); else done(found);
};
look();
"""


def flicker(page: Page, steady: bool) -> tuple[float, float]:
    """Median change between frames that are shown one after the other: of the still part, and of the moving one."""
    page.check("steady", steady)
    time.sleep(0.5)
    boxes = [[box[0] / SIDES[0], box[1] / SIDES[1], box[2] / SIDES[0], box[3] / SIDES[1]] for box in (STILL, MOVING)]
    still, moving = np.median(page.driver.execute_async_script(FLICKER, 16, boxes), axis=0)
    return float(still), float(moving)


@pytest.fixture
def plain(driver: Any, runtime: Path, tmp_path: Path) -> Iterator[Page]:
    """The page with a network that gives back the photo, so that only the photo's noise and movement are seen."""
    page = Page(driver)
    driver.set_script_timeout(SECONDS)
    with served(exported(tmp_path / "photo.onnx"), runtime) as address:
        page.open(f"{address}?backend=wasm")
        yield page


@pytest.mark.parametrize("kind", ["camera", "clip"])
def test_the_camera_and_a_clip_are_steady_where_nothing_moves(kind: str, plain: Page, tmp_path: Path) -> None:
    assert not plain.shown("steady-row")
    if kind == "camera":
        plain.click("open-camera")
    else:
        plain.drop(clip_file(tmp_path / "trip.webm"), "video/webm", on="frame")
    plain.until(lambda: "frames/s" in plain.text("timing"))
    assert plain.shown("steady-row") and plain.js("return document.getElementById('steady').checked")
    assert plain.text("close-camera") == ("Close camera" if kind == "camera" else "Close the clip")
    (on, moving), (off, moving_off) = flicker(plain, True), flicker(plain, False)
    print(f"{kind}: still {off:.2f} to {on:.2f}, moving {moving_off:.2f} to {moving:.2f}")
    assert 0 < on < 0.4 * off
    assert moving > 0.5 * moving_off > off  # most of the box is ground, which is steadied
    if kind == "clip":
        # Without the switch, it is what was painted: here, the frame itself. The clip has no more pixels than these.
        plain.js("document.getElementById('camera').pause()")
        time.sleep(1)
        apart = plain.js(
            """
            const shown = document.getElementById("picture"), canvas = document.createElement("canvas");
            [canvas.width, canvas.height] = [shown.width, shown.height];
            const context = canvas.getContext("2d", { willReadFrequently: true });
            context.imageSmoothingQuality = "high";
            context.drawImage(document.getElementById("camera"), 0, 0, canvas.width, canvas.height);
            const of = (it) => it.getContext("2d").getImageData(0, 0, it.width, it.height).data, frame = of(canvas);
            return of(shown).reduce((most, level, at) => Math.max(most, Math.abs(level - frame[at])), 0);
            """
        )
        assert apart == 0
    plain.click("shoot")
    plain.until(lambda: plain.text("timing").startswith("320 × 192"))
    assert not plain.shown("steady-row") and not plain.shown("camera")
    assert plain.js("return document.getElementById('camera').getAttribute('src')") is None
    plain.click("download")
    plain.until((plain.driver.downloads / f"{'camera' if kind == 'camera' else 'trip'}_wave.png").exists)


def test_on_a_phone_frames_grow_as_far_as_the_rate_allows(plain: Page) -> None:
    """This network takes no time, so the side of the frames grows to that of the camera; its rate is shown."""
    screen = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    plain.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    try:
        plain.click("open-camera")
        plain.until(lambda: re.match(r"live · 224 × 134 · [\d.]+ frames/s · WASM", plain.text("timing")))
        plain.until(lambda: re.match(r"live · 320 × 192 · [\d.]+ frames/s · WASM", plain.text("timing")))
        assert plain.js("return document.documentElement.scrollWidth") <= 390
        plain.click("close-camera")
    finally:
        plain.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.mark.parametrize(
    ("side", "milliseconds", "fitting"),
    [
        (224, 66.6, 224), (224, 20, 320), (224, 300, 128), (640, 5, 640), (384, 66, 384), (384, 80, 320),
        (128, 500, 128), (320, 55, 320),  # at 384 a frame would take 79 ms
        (320, 43, 320),  # at 384 it would just fit, and the side might go up and down
    ],
)  # fmt: skip
def test_the_side_of_live_frames_is_the_largest_that_keeps_the_rate(
    side: int, milliseconds: float, fitting: int, plain: Page
) -> None:
    """15 frames a second leave 66.7 ms for one; the time grows with the pixels."""
    source = PAGE.read_text()
    constants = re.findall(r"^const (?:LIVE_SIDES|WANTED_RATE) = .*?;", source, re.MULTILINE)
    function = re.search(r"function fittingSide.*?\n}", source, re.DOTALL)
    assert function and len(constants) == 2
    assert plain.js(f"{' '.join(constants)} {function[0]} return fittingSide({side}, {milliseconds})") == fitting


def test_another_style_is_not_blended_with_the_one_before(plain: Page, tmp_path: Path) -> None:
    """Of two styles: the frame after a tap is painted in the new one alone."""
    alike = re.search(r"function alike.*?\n}", PAGE.read_text(), re.DOTALL)
    assert alike
    frame = "({ photo: { width: 4, height: 3 }, mixture: Float32Array.of(1, 0) })"
    cases = {
        f"alike(null, {frame})": False, f"alike({frame}, {frame})": True,
        f"alike({frame}, {{ ...{frame}, mixture: Float32Array.of(0, 1) }})": False,
        f"alike({frame}, {{ ...{frame}, mixture: null }})": False,
        f"alike({frame}, {{ ...{frame}, mixture: Float32Array.of(1) }})": False,
        f"alike({frame}, {{ ...{frame}, photo: {{ width: 3, height: 4 }} }})": False,
    }  # fmt: skip
    assert plain.js(f"{alike[0]} return [{', '.join(cases)}]") == [*cases.values()]


def test_a_clip_that_cannot_be_played_is_said_and_the_photo_stays(plain: Page, photo: Path, tmp_path: Path) -> None:
    plain.give(photo)
    before = plain.painted()
    (tmp_path / "broken.mp4").write_bytes(b"no clip")
    plain.drop(tmp_path / "broken.mp4", "video/mp4", on="frame")
    plain.until(lambda: "“broken.mp4” cannot be played here. MP4 and WebM usually can." in plain.text("message"))
    assert np.array_equal(plain.painted(), before) and not plain.shown("camera")
