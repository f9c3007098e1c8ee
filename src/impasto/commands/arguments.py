"""The command line of a command, read from the signature of its function. No torch: `--help` and mistakes are quick.

What it works on goes first and needs no name. Options stand in any place, with dashes or underscores. A flag needs no
value, a list takes what follows it: `--styles a.jpg b.jpg`, or in one word `--styles '[a.jpg,b.jpg]'`."""

import inspect
import json
import re
from argparse import ArgumentError
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from jsonargparse import ArgumentParser

from impasto.choices import LossOptions, OptimizeOptions
from impasto.shipped import shipped_config

Types = dict[str, Any]  # the type of each option, by its name
SHORT = {"-o": ("output",), "-s": ("style", "styles"), "-n": ("network", "networks")}
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
    types = {name: of for name, of in option_types(job).items() if name not in unnamed}
    parser = _parser(command, description, types)
    for name, text in unnamed.items():
        parser.add_argument(name, nargs="*" if several else None, type=str, help=text)
    parser.add_function_arguments(job, skip=set(unnamed), as_group=False)
    first, options = sorted_out(arguments, types)
    return _parse(parser, command, [*first, *options], types, allowed)


def read_options(
    command: str, description: str, job: Callable[..., int], arguments: list[str], unnamed: Sequence[str] = (),
    example: str = "",
) -> tuple[dict[str, Any], OptimizeOptions]:  # fmt: skip
    """The arguments of `job` and the options of the reference, on top of configs/optimize.yaml.

    Args:
        command, description, job, arguments: as of `parsed`.
        unnamed: the parameters that what has no name is given to, in this order; the last takes the rest.
        example: a command line, for --help.

    Raises:
        ValueError: as of `parsed`.
    """
    types = option_types(job, OptimizeOptions)
    parser = _parser(
        command, description, types, epilog=f"Example: {example}" if example else None,
        usage=" ".join([f"impasto {command}", *(name.upper() for name in unnamed), "[options]"]),
        default_config_files=[*shipped_config("optimize.yaml")],
    )  # fmt: skip
    parser.add_argument(
        "--config", action="config", help="a YAML file of these options, such as ours in configs/"
    )
    parser.add_function_arguments(job, skip={"options"}, as_group=False)
    parser.add_class_arguments(OptimizeOptions, as_group=False)
    first, options = sorted_out(arguments, types)
    given = _parse(parser, command, [*_named(first, options, unnamed, types), *options], types, {})
    reference = OptimizeOptions(
        **{option.name: given.pop(option.name) for option in fields(OptimizeOptions)}
    )
    for file in ("config", "__default_config__"):
        given.pop(file, None)
    return {**given, "loss": LossOptions(**given["loss"])}, reference


def option_types(job: Callable[..., int], *classes: Any) -> Types:
    """Every option of a function, with those of the dataclasses among its parameters (`loss.network`) and of more."""
    types = {
        name: parameter.annotation for name, parameter in inspect.signature(job).parameters.items()
    }
    nested = {name: of for name, of in types.items() if is_dataclass(of)}
    below = {
        f"{name}.{field.name}": field.type for name, of in nested.items() for field in fields(of)
    }
    return types | below | {field.name: field.type for of in classes for field in fields(of)}


def sorted_out(arguments: list[str], types: Types) -> tuple[list[str], list[str]]:
    """What has no name, and the options as jsonargparse takes them: `--name=value`."""
    unnamed, options, rest = [], [], list(arguments)
    while rest:
        text = rest.pop(0)
        if text == "--":  # what follows has no name, whatever it looks like
            unnamed += [f"./{name}" if name.startswith("-") else name for name in rest]
            break
        name, equals, value = text.partition("=")
        key = next(
            (key for key in SHORT.get(name, ()) if key in types),
            name.removeprefix("--").replace("-", "_"),
        )
        if not _is_option(text):
            unnamed.append(text)
        elif (
            key not in types
        ):  # of jsonargparse (--help, --config), below a dictionary (--paintings.wave), or unknown
            takes_value = (
                not equals and name not in ("-h", "--help") and rest and not _is_option(rest[0])
            )
            options += [text, rest.pop(0)] if takes_value else [text]
        else:
            values = [value] if equals else _taken(rest, types[key])
            options.append(f"--{key}={_in_a_word(values, types[key])}" if values else f"--{key}")
    return unnamed, options


def _is_option(text: str) -> bool:
    """Whether it begins an option: not a number below 0, nor the - of standard input and output."""
    return bool(re.match(r"-[^\d.]", text))


def _taken(rest: list[str], of: Any) -> list[str]:
    """The value, or of a list all values, taken from the front of `rest`; alone, a flag is true."""
    if _item_of(of):
        end = next((place for place, text in enumerate(rest) if _is_option(text)), len(rest))
        values, rest[:end] = rest[:end], []
        return values
    flag = bool in _alternatives(of)
    there = rest and (rest[0] in _BOOLEANS if flag else not _is_option(rest[0]))
    return [rest.pop(0)] if there else ["true"] if flag else []


def _in_a_word(values: list[str], of: Any) -> str:
    """The values of a list as one; what is written so already, and the value of another option, stay as they are."""
    item, first = _item_of(of), values[0]
    if item is None or (len(values) == 1 and first.startswith("[") and not Path(first).exists()):
        return first
    return json.dumps(values, ensure_ascii=False) if item is str else f"[{','.join(values)}]"


def _item_of(of: Any) -> Any:
    """The type of a list's items; None for what is no list."""
    found = next((part for part in _alternatives(of) if get_origin(part) is list), None)
    return None if found is None else get_args(found)[0]


def _alternatives(of: Any) -> tuple[Any, ...]:
    """The parts of a union; of any other type, itself."""
    return get_args(of) if get_origin(of) in (Union, UnionType) else (of,)


def _named(first: list[str], options: list[str], places: Sequence[str], types: Types) -> list[str]:
    """What has no name, as options: one for each place that no option fills, the rest for the last."""
    given = {option.removeprefix("--").partition("=")[0] for option in options}
    free = [place for place in places if place not in given]
    named: list[str] = []
    while first and free:
        place = free.pop(0)
        if _item_of(types[place]):
            return [*named, f"--{place}={json.dumps(first, ensure_ascii=False)}"]
        named.append(f"--{place}={first.pop(0)}")
    if first:
        raise ValueError(
            f"{first[0]}: there is no place for it; the options are named, `--help` lists them"
        )
    return named


def _parser(command: str, description: str, types: Types, **more: Any) -> ArgumentParser:
    short = [f"{short} is --{key}" for short, keys in SHORT.items() for key in keys if key in types]
    about = [
        "A {true,false} option is true without a value.",
        *([f"{', '.join(short)}."] if short else []),
    ]
    return ArgumentParser(
        prog=f"impasto {command}", exit_on_error=False, allow_abbrev=False,
        description=" ".join([description, *about]), **more,
    )  # fmt: skip


def _parse(
    parser: ArgumentParser,
    command: str,
    arguments: list[str],
    types: Types,
    allowed: dict[str, str],
) -> dict[str, Any]:
    try:
        return parser.parse_args(arguments).as_dict()
    except ArgumentError as error:
        expected = {name: _expected(of) for name, of in types.items()} | allowed
        raise ValueError(_short(command, str(error), expected)) from error


def _short(command: str, message: str, allowed: dict[str, str]) -> str:
    """jsonargparse explains a value of the wrong type in eight lines; one says it."""
    wrong = re.search(r'Parser key "([\w.]+)":.*(?:Got|Given) value: (.*)', message, re.DOTALL)
    if wrong:
        return f"--{wrong[1]} {wrong[2]}: must be {allowed.get(wrong[1], 'something else')}"
    return f"{message}; `impasto {command} --help` lists the options"


def _expected(of: Any) -> str:
    """What an option may be: the choices of a Literal, a kind of value, or several of it."""
    if item := _item_of(of):
        return f"{_expected(item)}, or several"
    parts = [part for part in _alternatives(of) if part is not type(None)]
    choices = [
        choice
        for part in parts
        for choice in (get_args(part) if get_origin(part) is Literal else [part])
    ]
    return " or ".join(_EXPECTED.get(part, str(part)) for part in choices)
