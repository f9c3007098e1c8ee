"""Arguments of a command: what it works on first and without a name, options after it or before."""

import inspect
import re
from argparse import ArgumentError
from collections.abc import Callable
from typing import Any, get_args

from jsonargparse import ArgumentParser

_BOOLEANS = ("true", "false", "True", "False")
_EXPECTED = {float: "a number", int: "a whole number", bool: "true or false", str: "a text"}


def parsed(
    command: str, description: str, job: Callable[..., int], arguments: list[str], unnamed: dict[str, str],
    allowed: dict[str, str], *, several: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """The arguments of `job`, by name; --help prints and exits.

    Args:
        command: its name, after `impasto`.
        description: what it does.
        job: the function whose signature and docstring are the options.
        arguments: of the command line.
        unnamed: the parameter that is given without a name, and what to say of it.
        allowed: what to say that an option may be, where its type says too little.
        several: of what has no name, any number.

    Raises:
        ValueError: an unknown option or a value of another type, in one line.
    """
    parser = ArgumentParser(
        prog=f"impasto {command}", exit_on_error=False, allow_abbrev=False,
        description=f"{description} A {{true,false}} option is true without a value.",
    )  # fmt: skip
    for name, text in unnamed.items():
        parser.add_argument(name, nargs="*" if several else None, type=str, help=text)
    parser.add_function_arguments(job, skip=set(unnamed), as_group=False)
    parameters = inspect.signature(job).parameters
    try:
        return parser.parse_args(_unnamed_first(arguments, parameters)).as_dict()
    except ArgumentError as error:
        allowed = {name: _expected(parameter.annotation) for name, parameter in parameters.items()} | allowed
        raise ValueError(_short(command, str(error), allowed)) from error


def _unnamed_first(arguments: list[str], parameters: Any) -> list[str]:
    """What argparse lacks: options in any place, dashes as underscores, flags without a value."""
    unnamed, options, rest = [], [], list(arguments)
    while rest:
        text = rest.pop(0)
        if text == "--":  # what follows has no name, whatever it looks like
            unnamed += [f"./{name}" if name.startswith("-") else name for name in rest]
            break
        name, equals, value = text.partition("=")
        key = name.removeprefix("--").replace("-", "_")
        if not text.startswith("-"):
            unnamed.append(text)
        elif key not in parameters or equals:
            options.append(f"--{key}={value}" if key in parameters else text)
        else:
            options.append(_with_value(key, rest, flag=parameters[key].annotation is bool))
    return unnamed + options


def _with_value(key: str, rest: list[str], *, flag: bool) -> str:
    """--key=value, the value taken from the front of `rest`, if there is one; alone, a flag is true."""
    there = rest and (rest[0] in _BOOLEANS if flag else not rest[0].startswith("--"))
    value = rest.pop(0) if there else "true" if flag else ""
    return f"--{key}={value}" if value else f"--{key}"


def _short(command: str, message: str, allowed: dict[str, str]) -> str:
    """jsonargparse explains a value of the wrong type in eight lines; one says it."""
    wrong = re.search(r'Parser key "(\w+)":.*(?:Got|Given) value: (.*)', message, re.DOTALL)
    if wrong:
        return f"--{wrong[1]} {wrong[2]}: must be {allowed.get(wrong[1], 'something else')}"
    return f"{message}; `impasto {command} --help` lists the options"


def _expected(annotation: Any) -> str:
    """What a parameter may be: the choices of a Literal, or a kind of value."""
    parts = [part for part in get_args(annotation) or (annotation,) if part is not type(None)]
    return " or ".join(_EXPECTED.get(part, str(part)) for part in parts)
