"""A stream gives each photo once an epoch, however it is shared out, cut short, and whatever the network does."""

import http.server
import io
import itertools
import logging
import re
import threading
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import skimage.data
import torch
from PIL import Image
from test_modules import grey, which

from impasto.data import streams
from impasto.data.batches import Cursors, Loader, StreamBatches
from impasto.data.streams import BEGIN, Cursor, StreamedPhotos

SIDE = 24
FILES = (500, 500, 500, 500)  # rows of each, in groups of 100


def rows(first: int, count: int) -> list[dict[str, Any]]:
    """Small parts of real photos, no two alike, with the columns of COCO."""
    pictures = [Image.fromarray(picture) for picture in (skimage.data.coffee(), skimage.data.chelsea())]
    made = []
    for n in range(first, first + count):
        picture, number = pictures[n % 2], n // 2
        left, top = number % 70 * 6, number // 70 * 12
        buffer = io.BytesIO()
        picture.crop((left, top, left + SIDE, top + SIDE)).save(buffer, "JPEG", comment=str(n).encode())
        image = {"bytes": buffer.getvalue(), "path": f"{n:012}.jpg"}
        objects = {"bbox_id": [n], "category": [1], "bbox": [[0.0, 0.0, 4.0, 4.0]], "area": [16]}
        made.append({"image_id": n, "image": image, "width": SIDE, "height": SIDE, "objects": objects})
    return made


def parquet(folder: Path, lengths: tuple[int, ...]) -> list[str]:
    import datasets

    schema = datasets.Dataset.from_list(rows(0, 1)).features | {"image": datasets.Image()}
    first, files = 0, []
    for number, length in enumerate(lengths):
        files.append(str(folder / f"train-{number:05}.parquet"))
        whole = datasets.Dataset.from_list(rows(first, length), features=datasets.Features(schema))
        whole.to_parquet(files[-1], batch_size=100)
        first += length
    return files


@pytest.fixture(scope="module")
def coco(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return parquet(tmp_path_factory.mktemp("coco"), FILES)


def number(title: str) -> int:
    return int(title.split("/")[-1].split(" ")[-1].removesuffix(".jpg"))


class Numbered(StreamBatches):
    """Batches that also tell which photos they hold."""

    def _next(self, records: Iterator[Any], k: int) -> dict[str, Any]:
        taken = list(itertools.islice(records, self.batch_size))
        told = {"photos": [(cursor.epoch, int(record["path"].split(".")[0])) for record, cursor in taken]}
        return super()._next(iter(taken), k) | told


def loader(
    stream: StreamedPhotos, rank: int, world: int, workers: int, start: int = 0, cursors: Cursors | None = None
) -> Loader:
    batches = Numbered(stream, 16, 5, seed=3, rank=rank, world=world)
    return Loader(batches, lambda: start, cursors or Cursors(workers), workers, pinned=False)


def told(batches: list[dict[str, Any]]) -> list[tuple[int, int]]:
    return [(epoch, photo) for batch in batches for epoch, photo in batch["photos"]]


def take(batches: Any, count: int) -> list[dict[str, Any]]:
    return list(itertools.islice(batches, count))


def test_two_ranks_of_two_workers_see_each_photo_once_an_epoch(coco: list[str]) -> None:
    stream, total = StreamedPhotos(coco, "train", None, held_out=4), sum(FILES) - 4
    held = {number(stream.name(i)) for i in range(len(stream))}
    assert held == {9, 19, 29, 39}
    for epoch in take_epochs(stream, world=2, workers=2, batches=2 * sum(FILES) // 10 + 10):
        assert len(epoch) == len(set(epoch)) == total and not held & set(epoch)


def take_epochs(stream: StreamedPhotos, world: int, workers: int, batches: int) -> list[list[int]]:
    """The photos of the first two epochs over all ranks, each in the order it came."""
    seen = [told(take(loader(stream, rank, world, workers), batches)) for rank in range(world)]
    return [[photo for rank in seen for at, photo in rank if at == epoch] for epoch in range(2)]


def of_part(stream: StreamedPhotos, part: int, parts: int, cursor: Any = BEGIN) -> Iterator[tuple[int, Any]]:
    return ((int(record["path"][:12]), after) for record, after in stream.records(3, part, parts, cursor))


def epoch_of(stream: StreamedPhotos, part: int, parts: int, epoch: int = 0) -> list[int]:
    """What one part gives in an epoch."""
    begun = of_part(stream, part, parts, Cursor(epoch))
    return [photo for photo, after in itertools.takewhile(lambda item: item[1].epoch == epoch, begun)]


@pytest.mark.parametrize("parts", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("lengths", [(40, 40, 40), (90, 10, 1, 30), (37,)])
def test_any_number_of_parts_share_an_epoch_without_a_gap(tmp_path: Path, lengths: tuple[int, ...], parts: int) -> None:
    """Also more parts than files, and files of unequal length: then parts are unequal, and an epoch is still one."""
    stream = StreamedPhotos(parquet(tmp_path, lengths), "train", None, held_out=0)
    for epoch in (0, 1):
        shares = [epoch_of(stream, part, parts, epoch) for part in range(parts)]
        assert sorted(itertools.chain(*shares)) == list(range(sum(lengths)))
        if len(set(lengths)) == 1:
            assert max(map(len, shares)) - min(map(len, shares)) <= lengths[0] // 2


def test_a_part_without_photos_is_refused(tmp_path: Path) -> None:
    stream = StreamedPhotos(parquet(tmp_path, (2,)), "train", None, held_out=0)
    with pytest.raises(ValueError, match=r"^[^\n]*too few photos to share out; set --data.num_workers to 0$"):
        next(stream.records(0, 2, 3))


def test_photos_are_shuffled_in_files_and_blocks_and_anew_each_epoch(coco: list[str]) -> None:
    stream = StreamedPhotos(coco, "train", None, held_out=0)
    first, second = (epoch_of(stream, 0, 2, epoch) for epoch in (0, 1))
    assert first != second != sorted(second)
    files = [[photo // 500 for photo in epoch] for epoch in (first, second)]
    assert [len(set(part)) for part in files] == [2, 2] and files[0] != files[1]
    apart = [abs(photo - i) for i, photo in enumerate(sorted(first[:200]))]
    assert max(apart) - min(apart) == 0  # a block holds the rows that follow each other,
    assert sum(a + 1 == b for a, b in itertools.pairwise(first[:200])) < 20  # and mixes them
    again = of_part(StreamedPhotos(coco, "train", None, held_out=0), 0, 2)
    assert [photo for photo, _ in itertools.islice(again, 9)] == first[:9]


def test_a_place_leads_to_exactly_the_rest(coco: list[str]) -> None:
    stream = StreamedPhotos(coco, "train", None, held_out=4)
    whole = list(itertools.islice(of_part(stream, 1, 3), 1000))  # beyond the first epoch
    for done in (1, 137, 199, 200, 201, 500, 664, 665, 666, 667, 668, 900):
        rest = of_part(stream, 1, 3, whole[done - 1][1])
        assert list(itertools.islice(rest, 30)) == whole[done : done + 30], done


class Server(http.server.ThreadingHTTPServer):
    """Serves a folder over HTTP, in ranges, and remembers what it was asked for; it can be told to fail.

    Every `bad` requests for data: an answer that breaks off in the middle, or 503, in turns.
    """

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.folder, self.bad, self.asked, self.down = folder, 0, 0, False
        self.sent: Counter[str] = Counter()

    def urls(self) -> list[str]:
        return [f"http://127.0.0.1:{self.server_port}/{file.name}" for file in sorted(self.folder.glob("*.parquet"))]

    def trouble(self) -> str:
        self.asked += 1
        if self.down:
            return "503"
        return ("cut", "503")[self.asked // self.bad % 2] if self.bad and self.asked % self.bad == 0 else ""

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client may leave when it likes."""


class Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        name = self.path.strip("/")
        whole = (self.server.folder / name).read_bytes()
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        first, last = (int(asked[1]), int(asked[2] or len(whole) - 1)) if asked else (0, len(whole) - 1)
        data = whole[first : last + 1]
        trouble = self.server.trouble() if body else ""
        self.send_response(503 if trouble == "503" else 206 if asked else 200)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Range", f"bytes {first}-{first + len(data) - 1}/{len(whole)}")
        self.send_header("Content-Length", "0" if trouble == "503" else str(len(data)))
        self.end_headers()
        if body and trouble != "503":
            data = data[: len(data) // 2] if trouble else data
            self.wfile.write(data)
            self.server.sent[name] += len(data)
            self.close_connection = bool(trouble)

    def log_message(self, format: str, *args: Any) -> None: ...


@pytest.fixture
def server(coco: list[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    import datasets
    import fsspec
    import pyarrow.dataset

    for name in ("READ", "OPEN"):  # the patience `datasets` has itself, two minutes, comes before ours
        monkeypatch.setattr(datasets.config, f"STREAMING_{name}_MAX_RETRIES", 1)
        monkeypatch.setattr(datasets.config, f"STREAMING_{name}_RETRY_INTERVAL", 0)
    monkeypatch.setattr(streams, "PAUSES", (0.01, 0.02, 0.04))
    # Several requests a file, as of large ones.
    monkeypatch.setitem(fsspec.config.conf, "http", {"block_size": 2**14})
    small = pyarrow.dataset.ParquetFragmentScanOptions(pre_buffer=False)
    monkeypatch.setattr(datasets, "load_dataset", partial(datasets.load_dataset, fragment_scan_options=small))
    with Server(Path(coco[0]).parent) as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield found
        found.shutdown()


def test_going_on_asks_for_no_file_before(server: Server) -> None:
    stream = StreamedPhotos(server.urls(), "train", None, held_out=0)
    order = [server.urls()[file].split("/")[-1] for file, *_ in stream._shares(3, 0, 0, 1)]
    whole = list(itertools.islice(of_part(stream, 0, 1), 1400))
    server.sent.clear()
    assert list(itertools.islice(of_part(stream, 0, 1, whole[1299][1]), 100)) == whole[1300:]  # in the third file
    assert list(server.sent) == [order[2]]
    assert len(list(itertools.islice(of_part(stream, 0, 1, whole[1299][1]), 600))) == 600
    assert set(server.sent) == set(order[2:])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_network_that_fails_now_and_then_costs_no_photo(
    server: Server, workers: int, caplog: pytest.LogCaptureFixture
) -> None:
    stream = StreamedPhotos(server.urls(), "train", None, held_out=4)
    whole = told(take(loader(stream, 0, 1, workers), 420))
    assert not caplog.records
    server.bad, server.asked = 23, 0
    assert told(take(loader(stream, 0, 1, workers), 420)) == whole
    first = [photo for epoch, photo in whole if epoch == 0]
    assert len(first) == len(set(first)) == sum(FILES) - 4
    assert server.asked > 3 * server.bad
    if not workers:  # or it is said in other processes
        lost = [record.getMessage() for record in caplog.records if record.name == "impasto"]
        assert len(lost) >= 3 and all(line.endswith("next try in 0.01 s") for line in lost)
        at = [int(re.search(r"connection lost at row (\d+) ", line)[1]) for line in lost]
        assert any(0 < row < FILES[0] for row in at)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_network_that_stays_away_ends_the_run_in_one_line_with_a_way_on(server: Server, workers: int) -> None:
    stream = StreamedPhotos(server.urls(), "train", None, held_out=4)
    batches = iter(loader(stream, 0, 1, workers))
    next(batches)
    server.down, server.asked = True, 0
    with pytest.raises(ValueError) as refused:
        take(batches, 800)
    said = r"http:[^\n]+: connection lost, tried 3 times more in 0.07 seconds: [^\n]+ --ckpt_path last goes on"
    assert re.fullmatch(said, str(refused.value))
    assert 4 <= server.asked <= 8 * max(1, workers)


def test_a_retry_of_the_library_is_told_once(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """`datasets` prints it itself; the command's own handler, at the root, does not repeat it."""
    said = io.StringIO()
    ours = logging.StreamHandler(said)
    logging.getLogger().addHandler(ours)  # as `impasto.commands.run` does
    for library in ("datasets", "huggingface_hub"):
        (theirs,) = (h for h in logging.getLogger(library).handlers if type(h) is logging.StreamHandler)
        monkeypatch.setattr(theirs, "stream", said)
    try:
        records = StreamedPhotos(server.urls(), "train", None, held_out=4).records()
        next(records)
        server.down = True
        with pytest.raises(ValueError, match="connection lost, tried 3 times more"):
            list(records)
        logging.getLogger("huggingface_hub.utils._http").warning("Retrying in 1s [Retry 1/5].")
    finally:
        logging.getLogger().removeHandler(ours)
    lines = said.getvalue().splitlines()
    assert sum("Got disconnected from remote data host" in line for line in lines) == 4  # of each of our tries
    assert sum("next try in" in line for line in lines) == 3
    assert sum("[Retry 1/5]" in line for line in lines) == 1


def test_what_is_not_there_is_not_tried_again(coco: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = parquet(tmp_path, (30,))[0]
    stream = StreamedPhotos([file], "train", None, held_out=0)
    Path(file).unlink()
    monkeypatch.setattr(streams, "PAUSES", (1000,))
    with pytest.raises(ValueError, match=r"^[^\n]*the stream cannot be read on: [^\n]*No such file[^\n]*$"):
        next(stream.records())


@pytest.mark.parametrize("done", [6, 7, 41, 203])
def test_two_ranks_of_two_workers_go_on_from_a_checkpoint(coco: list[str], tmp_path: Path, done: int) -> None:
    """Also in the middle of a round, and in the second epoch; the state passes through a file that runs no code."""
    stream = StreamedPhotos(coco, "train", None, held_out=4)
    for rank in range(2):
        whole = take(loader(stream, rank, 2, 2), done + 9)
        cursors = Cursors(2)
        for batch in whole[:done]:
            cursors.note(*batch["cursor"])
        torch.save(cursors.before(done), tmp_path / "cursors")
        loaded = Cursors(2)
        for k, cursor in torch.load(tmp_path / "cursors", weights_only=True).items():
            loaded.note(k, cursor)
        assert len(loaded.before(done)) == 2 + done % 2
        rest = take(loader(stream, rank, 2, 2, done, loaded), 9)
        assert told(rest) == told(whole[done:])
        assert all(torch.equal(a["content"], b["content"]) for a, b in zip(rest, whole[done:], strict=True))


def test_bad_records_are_replaced_by_what_does_not_depend_on_the_start() -> None:
    class Stream:
        def records(self, seed: int | None, part: int, parts: int, cursor: Cursor = BEGIN) -> Iterator[Any]:
            return (({"bytes": b"bad" if n is None else grey(n)}, cursor) for n in itertools.cycle(stored))

        def title(self, record: Any) -> str:
            return "bad"

    def batches(size: int, start: int, count: int) -> list[dict[str, Any]]:
        return take(StreamBatches(Stream(), 16, size, start=start), count)

    def seen(found: list[dict[str, Any]]) -> list[int]:
        return [number for batch in found for number in which(batch["content"])]

    stored = [None, 1, None, 2, None, None, 3, 4]
    assert seen(batches(4, 0, 4)) == [1, 1, 1, 2, 1, 1, 3, 4] * 2
    assert [len(batch["skipped"]) for batch in batches(4, 0, 4)] == [2, 2, 2, 2]
    contents = [[batch["content"] for batch in batches(4, start, 4 - start)] for start in (0, 1)]
    assert all(torch.equal(a, b) for a, b in zip(contents[0][1:], contents[1], strict=True))
    stored = [None, None, None, 5, None, None, 6, None]
    assert seen(batches(8, 0, 1)) == [5, 5, 5, 5, 5, 5, 6, 6]
