"""The commands of impasto. The scripts, and the console command `impasto`, start them."""

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
from impasto.shipped import with_shipped_configs
from impasto.spelling import did_you_mean, printable

COMMANDS = {
    "train": "train a network on photos and paintings",
    "train-any": "train a network for any painting, on folders of paintings",
    "infer": "stylize photos with a network",
    "video": "stylize a clip, so that it does not flicker",
    "live": "paint a camera in a window, in real time",
    "export": "write a network as an ONNX file",
    "styles": "keep styles of your own, made of one painting each",
    "optimize": "paint one photo by optimization, the reference",
    "evaluate": "compare networks with the reference, in a report",
    "demo": "paint photos in the browser, on a page of this machine",
    "distill": "make the compact loss network",
    "benchmark": "time training, losses, the reference, or painting, side by side",
}

TRAINING = ("train", "train-any", "distill")  # commands of LightningCLI
_ENDING = ("SIGTERM", "SIGHUP")  # sent when a scheduler stops a job, and when a terminal closes


def main(arguments: list[str] | None = None) -> int:
    """Run `impasto COMMAND …`; return the exit status.

    Args:
        arguments: the command line after `impasto`; None: that of this process.

    Returns:
        2 for a mistake of the user, which one line explains; else the status of the command.
    """
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
            f"{hint}usage: impasto COMMAND …\n{lines}\n"
            "`impasto COMMAND --help` tells more, --version which this is",
            file=sys.stdout if asked else sys.stderr,
        )
        return 0 if asked else 2
    return run(*arguments)


def run(command: str, *arguments: str) -> int:
    """Run one command; return its exit status.

    A ValueError or OSError becomes one line and status 2. IMPASTO_DEBUG=1 shows the traceback.
    """
    _write_in_any_encoding()
    logging.basicConfig(format="%(message)s")
    for handler in logging.root.handlers:
        handler.addFilter(_made_printable)
    with _ending_as_ctrl_c() as came:
        try:
            status = _run(command, arguments)
        except SystemExit:  # Lightning may answer a signal with it
            if not came:
                raise
        return 128 + came[0] if came else status


def _made_printable(record: logging.LogRecord) -> bool:
    """Escape unprintable characters in our log messages, which may hold names of files."""
    if record.name == "impasto":
        record.msg, record.args = printable(record.getMessage()), ()
    return True


class Ended(KeyboardInterrupt):
    """SIGTERM or SIGHUP came. Code that saves or cleans up on Ctrl-C does the same now."""


@contextmanager
def _ending_as_ctrl_c() -> Iterator[list[int]]:
    """Let SIGTERM and SIGHUP raise `Ended`; yield the list of those that came.

    A signal that has a handler already, or is ignored, is left alone.
    """
    came: list[int] = []
    owner = os.getpid()

    def end(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:
            # A worker forked from this process has nothing to save: let the signal end it.
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        came.append(number)
        raise Ended

    names = [getattr(signal, name) for name in _ENDING if hasattr(signal, name)]
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
    """Import and call the function of a command, and turn its errors into a line and a status."""
    arguments = tuple(with_shipped_configs(arguments))
    try:
        if command in (*TRAINING, "benchmark"):
            _ignore_lightnings_advice()
        if command in TRAINING:
            from impasto.commands.training_help import answered

            if answered(command, list(arguments)):
                return 0
        # A command is a function in a module of its own name. Only that module is imported.
        name = command.replace("-", "_")
        with _ending_at_once(command):
            module = import_module(f"impasto.commands.{name}")
        function = getattr(module, name)
        if command in TRAINING:
            # Not before: Lightning sets this level itself when it is imported.
            logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
        if command in ("benchmark", "demo"):
            from impasto.commands.arguments import parsed

            description = (inspect.getdoc(function) or "").split("\n\nArgs:")[0]
            needs = getattr(module, "NEEDS", {})
            given = parsed(command, description, function, list(arguments), {}, {}, needs=needs)
            return int(function(**given))
        return int(function(list(arguments)))
    except (ValueError, OSError) as error:
        if os.environ.get("IMPASTO_DEBUG"):
            raise
        print(f"impasto {command}: {printable(' '.join(str(error).split()))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        # Commands that save what they have, or that say how far they came, catch it themselves.
        # If Ctrl-C came while a string was executed, CPython would end the process by the signal,
        # without a status. Executing another string clears that.
        exec("")
        print(f"impasto {command}: interrupted", file=sys.stderr)
        return 130


@contextmanager
def _ending_at_once(command: str) -> Iterator[None]:
    """Let a signal that would raise an exception end the process at once, during imports.

    There is nothing to save then. The exception would pass through half-loaded native code: NumPy
    makes an ImportError of it, and torch aborts.
    """

    def end(number: int, frame: FrameType | None) -> None:
        # print is not safe in a signal handler.
        os.write(2, f"impasto {command}: interrupted\n".encode())
        os._exit(128 + number)

    names = [name for name in ("SIGINT", *_ENDING) if hasattr(signal, name)]
    ours = threading.current_thread() is threading.main_thread()
    former = {
        getattr(signal, name): signal.getsignal(getattr(signal, name)) for name in names if ours
    }
    raising = {number: handler for number, handler in former.items() if callable(handler)}
    for number in raising:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in raising.items():
            signal.signal(number, handler)


def _write_in_any_encoding() -> None:
    """Escape characters that the output's encoding lacks, as \\xd7, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # None without a console
            stream.reconfigure(errors="backslashreplace")


def _ignore_lightnings_advice() -> None:
    """Hide warnings about workers, arguments, the logging interval and missing validation.

    A run of ours has decided all of these.
    """
    for message in (
        ".*does not have many workers.*",
        ".*args parameter is intended.*",
        ".*logging interval.*",
        ".*treespec.*",
        "Total length of .* across ranks is zero",
    ):
        warnings.filterwarnings("ignore", message)
