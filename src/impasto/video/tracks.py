"""The streams of a file beside its video: sound, subtitles, data, and pictures of a cover."""

from collections import Counter
from collections.abc import Iterator
from typing import Any


def tracks(container: Any) -> Iterator[tuple[str, Any]]:
    """Yield the streams beside the video, and how a message names them: "audio 1 (aac, eng)"."""
    numbers: Counter[str] = Counter()
    for stream in container.streams:
        if stream.type == "video":
            if is_cover(stream):
                yield "cover picture", stream
            continue
        numbers[stream.type] += 1
        known = stream.codec_context is not None
        codec = stream.codec_context.codec.canonical_name if known else "unknown"
        language = stream.metadata.get("language", "und")
        facts = codec if language == "und" else f"{codec}, {language}"
        yield f"{stream.type} {numbers[stream.type]} ({facts})", stream


def is_cover(stream: Any) -> bool:
    """Whether a video stream is a picture beside sound."""
    return "attached_pic" in str(stream.disposition)
