"""The commands. Each script, and the console command `impasto`, is a door to one of them."""

import inspect
import io
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import FrameType

import impasto
from impasto.spelling import did_you_mean, printable

COMMANDS = {
    "train": "train a network on photos and paintings",
    "infer": "stylize photos with a network",
    "export": "write a network as an ONNX file",
    "optimize": "paint one photo by optimization, the reference",
    "evaluate": "compare networks with the reference, in a report",
    "demo": "paint photos in the browser, on a page of this machine",
    "distill": "make the compact loss network",
    "benchmark": "time training, losses, the reference, or painting, side by side",
}

_ENDING = ("SIGTERM", "SIGHUP")  # a scheduler stops the job; a terminal is closed


def main(arguments: list[str] | None = None) -> int:
    """`impasto COMMAND …`; the exit status is 2 for a mistake of the user's, said in one line."""
    _write_in_any_encoding()
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["--version"]:
        print(f"impasto {impasto.__version__}")
        return 0
    if not arguments or arguments[0] not in COMMANDS:
        asked = bool(arguments) and arguments[0] in ("-h", "--help")
        lines = "\n".join(f"  {name:11}{what}" for name, what in COMMANDS.items())
        meant = did_you_mean(arguments[0], COMMANDS).strip() if arguments and not asked else ""
        hint = f"impasto {arguments[0]}: no such command; {meant}\n" if meant else ""
        print(
            f"{hint}usage: impasto COMMAND …\n{lines}\n`impasto COMMAND --help` tells more, --version which this is",
            file=sys.stdout if asked else sys.stderr,
        )
        return 0 if asked else 2
    return run(*arguments)


def run(command: str, *arguments: str) -> int:
    """Runs one command; a ValueError or OSError becomes one line (IMPASTO_DEBUG=1 shows where it came from)."""
    _write_in_any_encoding()
    logging.basicConfig(format="%(message)s")
    for handler in logging.root.handlers:
        handler.addFilter(_made_printable)
    with _ending_as_ctrl_c() as came:
        try:
            status = _run(command, arguments)
        except SystemExit:  # Lightning's own answer to an interruption
            if not came:
                raise
        return 128 + came[0] if came else status


def _made_printable(record: logging.LogRecord) -> bool:
    """Names of photos are in what is logged."""
    if record.name == "impasto":
        record.msg, record.args = printable(record.getMessage()), ()
    return True


class Ended(KeyboardInterrupt):
    """SIGTERM or SIGHUP came. Whoever saves, or removes what was begun, on Ctrl-C does so now."""


@contextmanager
def _ending_as_ctrl_c() -> Iterator[list[int]]:
    """What has no handler yet and is not ignored, of SIGTERM and SIGHUP, raises `Ended`; gives those that came."""
    came: list[int] = []
    owner = os.getpid()

    def end(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:  # a process forked from this one, as workers are, has nothing to save
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        came.append(number)
        raise Ended

    names = [getattr(signal, name) for name in _ENDING if hasattr(signal, name)]  # Windows: the first
    ours = threading.current_thread() is threading.main_thread()
    numbers = [number for number in names if ours and signal.getsignal(number) is signal.SIG_DFL]
    try:
        for number in numbers:
            signal.signal(number, end)
        yield came
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


def _run(command: str, arguments: tuple[str, ...]) -> int:
    try:
        if command in ("train", "distill", "benchmark"):
            _ignore_lightnings_advice()
        # Each command is a function of its name in a module of its name, which is imported when asked for.
        with _ending_at_once(command):
            module = import_module(f"impasto.commands.{'train' if command == 'distill' else command}")
        function = getattr(module, command)
        if command in ("train", "distill"):
            logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)  # it sets its own on import
        if command in ("benchmark", "demo"):
            from impasto.commands.arguments import parsed

            description = (inspect.getdoc(function) or "").split("\n\nArgs:")[0]
            return int(function(**parsed(command, description, function, list(arguments), {}, {})))
        return int(function(list(arguments)))
    except (ValueError, OSError) as error:
        if os.environ.get("IMPASTO_DEBUG"):
            raise
        print(f"impasto {command}: {printable(' '.join(str(error).split()))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:  # commands that save what they have, or say how far they came, catch it
        exec("")  # where text was executed when it came, CPython would end by the signal and not with a status
        print(f"impasto {command}: interrupted", file=sys.stderr)
        return 130


@contextmanager
def _ending_at_once(command: str) -> Iterator[None]:
    """For imports, in which there is nothing to save: a signal that would raise an exception ends the process.

    The exception would pass through native code that is half loaded. NumPy makes an ImportError of it, and torch
    aborts.
    """

    def end(number: int, frame: FrameType | None) -> None:
        os.write(2, f"impasto {command}: interrupted\n".encode())  # print is not for handlers of signals
        os._exit(128 + number)

    names = [name for name in ("SIGINT", *_ENDING) if hasattr(signal, name)]
    ours = threading.current_thread() is threading.main_thread()
    former = {getattr(signal, name): signal.getsignal(getattr(signal, name)) for name in names if ours}
    raising = {number: handler for number, handler in former.items() if callable(handler)}
    for number in raising:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in raising.items():
            signal.signal(number, handler)


def _write_in_any_encoding() -> None:
    """What an encoding lacks is written as \\xd7. No line of ours fails for it, when its work is already done."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # None where there is no console
            stream.reconfigure(errors="backslashreplace")


def _ignore_lightnings_advice() -> None:
    """Warnings on what is settled here: workers, our own arguments, the logging interval, no validation."""
    for message in (
        ".*does not have many workers.*",
        ".*args parameter is intended.*",
        ".*logging interval.*",
        ".*treespec.*",
        "Total length of .* across ranks is zero",
    ):
        warnings.filterwarnings("ignore", message)
