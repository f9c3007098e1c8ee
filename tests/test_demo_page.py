"""The demo's page in a real browser, headless: what it paints is what Python paints, and it says what goes wrong."""

import base64
import io
import os
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
from pictures import save
from PIL import Image

from impasto import Stylizer
from impasto.demo.runtime import find_runtime
from impasto.demo.server import open_server
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
        network = AnyStyleNet(6, 8, 1).eval()
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
        page.js(
            "const data = new DataTransfer();"
            "const bytes = Uint8Array.from(atob(arguments[0]), (letter) => letter.charCodeAt(0));"
            "data.items.add(new File([bytes], 'second.png', { type: 'image/png' }));"
            "const drop = new DragEvent('drop', { dataTransfer: data, bubbles: true, cancelable: true });"
            "document.getElementById('styles').dispatchEvent(drop)", base64.b64encode(second.read_bytes()).decode(),
        )  # fmt: skip
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
