"""Reads the command line of a command. The signature and docstring of its function are the options.

Torch is not imported, so that `--help` and mistakes answer at once.

The files to work on need no name. Options may stand anywhere, with dashes or underscores. A flag
needs no value. A list takes all values that follow it: `--styles a.jpg b.jpg`; or it is one word:
`--styles '[a.jpg,b.jpg]'`.
"""

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

from impasto.choices import OptimizeOptions
from impasto.commands.idle import REFERENCE_NEEDS, Needs, refuse_idle
from impasto.shipped import shipped_config
from impasto.spelling import did_you_mean

Types = dict[str, Any]  # the type of each option, by its name
# Short names, each with the options that it may stand for: the one that a command has.
SHORT = {"-o": ("output",), "-s": ("style", "styles"), "-n": ("network", "networks")}
_NAMED = "values with names"
_BOOLEANS = ("true", "false", "True", "False")
_EXPECTED = {float: "a number", int: "a whole number", bool: "true or false", str: "a text"}


def parsed(
    command: str,
    description: str,
    job: Callable[..., int],
    arguments: list[str],
    unnamed: dict[str, str],
    allowed: dict[str, str],
    *,
    several: bool = False,
    needs: Needs = {},  # noqa: B006  only read
) -> dict[str, Any]:
    """Return the arguments of `job` by name, read from a command line; --help prints and exits.

    Args:
        command: name of the command, after `impasto`.
        description: what the command does, for --help.
        job: function of the command; its signature and docstring are the options.
        arguments: the command line after the command's name.
        unnamed: the parameter that is given without a name, and its text in --help.
        allowed: by option, what it may be, for error messages; needed where the type says too
            little.
        several: whether the unnamed parameter takes any number of values.
        needs: what options need in order to act.

    Raises:
        ValueError: an unknown option, a value of another type, or an option that would be ignored;
            the message is one line.
    """
    types = {name: of for name, of in option_types(job).items() if name not in unnamed}
    parser = _parser(command, description, types)
    for name, text in unnamed.items():
        parser.add_argument(name, nargs="*" if several else None, type=str, help=text)
    parser.add_function_arguments(job, skip=set(unnamed), as_group=False)
    first, options = sorted_out(arguments, types)
    given = _parse(parser, command, [*first, *options], types, allowed)
    refuse_idle(names_of(options), given, needs)
    return given


def read_options(
    command: str,
    description: str,
    job: Callable[..., int],
    arguments: list[str],
    unnamed: Sequence[str] = (),
    example: str = "",
    needs: Needs = {},  # noqa: B006  only read
) -> tuple[dict[str, Any], OptimizeOptions]:
    """Return the arguments of `job` by name, and the options of the reference optimization.

    Defaults come from configs/optimize.yaml. `--config FILE` and options override them.

    Args:
        command: name of the command, after `impasto`.
        description: what the command does, for --help.
        job: function of the command; its signature and docstring are options too.
        arguments: the command line after the command's name.
        unnamed: parameters that take the unnamed values, in this order; a list takes the rest.
        example: a command line, for --help.
        needs: what options need in order to act, besides those of the reference.

    Raises:
        ValueError: an unknown option, a value of another type, or an option that would be ignored;
            the message is one line.
    """
    types = option_types(job, OptimizeOptions)
    parser = _parser(
        command,
        description,
        types,
        epilog=f"Example: {example}" if example else None,
        usage=" ".join([f"impasto {command}", *(name.upper() for name in unnamed), "[options]"]),
        default_config_files=[*shipped_config("optimize.yaml")],
    )
    parser.add_argument(
        "--config", action="config", help="a YAML file of these options, such as ours in configs/"
    )
    parser.add_function_arguments(job, skip={"options"}, as_group=False)
    parser.add_class_arguments(OptimizeOptions, as_group=False)
    first, options = sorted_out(arguments, types)
    given = _parse(parser, command, [*_named(first, options, unnamed, types), *options], types, {})
    refuse_idle(names_of(options), given, {**REFERENCE_NEEDS, **needs})
    reference = OptimizeOptions(
        **{option.name: given.pop(option.name) for option in fields(OptimizeOptions)}
    )
    for file in ("config", "__default_config__"):
        given.pop(file, None)
    for name, of in option_types(job).items():
        if is_dataclass(of) and isinstance(of, type) and name in given:
            given[name] = of(**given[name])
    return given, reference


def option_types(job: Callable[..., int], *classes: Any) -> Types:
    """Return the type of every option of a function, by name.

    A parameter that is a dataclass adds its fields as `loss.network`. The fields of further
    dataclasses (`classes`) are options by their own names.
    """
    types = {
        name: parameter.annotation for name, parameter in inspect.signature(job).parameters.items()
    }
    nested = {name: of for name, of in types.items() if is_dataclass(of)}
    below = {
        f"{name}.{field.name}": field.type for name, of in nested.items() for field in fields(of)
    }
    return types | below | {field.name: field.type for of in classes for field in fields(of)}


def sorted_out(arguments: list[str], types: Types) -> tuple[list[str], list[str]]:
    """Split a command line into unnamed values and options, each as `--name=value`."""
    unnamed, options, rest = [], [], list(arguments)
    while rest:
        text = rest.pop(0)
        if text == "--":  # all that follows is unnamed, even with a dash
            unnamed += [f"./{name}" if name.startswith("-") else name for name in rest]
            break
        name, equals, value = text.partition("=")
        key = next(
            (key for key in SHORT.get(name, ()) if key in types),
            name.removeprefix("--").replace("-", "_"),
        )
        if not _is_option(text):
            unnamed.append(text)
        elif key not in types:
            # jsonargparse's own (--help, --config), a dictionary's (--paintings.wave), or unknown.
            takes_value = (
                not equals and name not in ("-h", "--help") and rest and not _is_option(rest[0])
            )
            options += [text, rest.pop(0)] if takes_value else [text]
        else:
            values = [value] if equals else _taken(rest, types[key])
            options.append(f"--{key}={_in_a_word(values, types[key])}" if values else f"--{key}")
    return unnamed, options


def names_of(arguments: list[str]) -> list[str]:
    """Return the names of the options in a command line, without dashes in front."""
    return [
        word.partition("=")[0].removeprefix("--").removesuffix("+")
        for word in arguments
        if word.startswith("--")
    ]


def _is_option(text: str) -> bool:
    """Whether a word begins an option. A negative number does not, nor - for standard input."""
    return bool(re.match(r"-[^\d.]", text))


def _taken(rest: list[str], of: Any) -> list[str]:
    """Remove an option's value, or all values of a list, from the front of `rest`; return them.

    A flag without a value is true.
    """
    if _item_of(of):
        end = next((place for place, text in enumerate(rest) if _is_option(text)), len(rest))
        values, rest[:end] = rest[:end], []
        return values
    flag = bool in _alternatives(of)
    there = rest and (rest[0] in _BOOLEANS if flag else not _is_option(rest[0]))
    return [rest.pop(0)] if there else ["true"] if flag else []


def _in_a_word(values: list[str], of: Any) -> str:
    """Return the values of an option as one word: a list as [a,b], any other value as it is.

    A list that was written as [a,b] stays as it is.
    """
    item, first = _item_of(of), values[0]
    if item is None or (len(values) == 1 and first.startswith("[") and not Path(first).exists()):
        return first
    return json.dumps(values, ensure_ascii=False) if item is str else f"[{','.join(values)}]"


def _item_of(of: Any) -> Any:
    """Return the type of a list's items; None for a type that is no list."""
    found = next((part for part in _alternatives(of) if get_origin(part) is list), None)
    return None if found is None else get_args(found)[0]


def _alternatives(of: Any) -> tuple[Any, ...]:
    """Return the members of a union, or any other type alone."""
    return get_args(of) if get_origin(of) in (Union, UnionType) else (of,)


def _named(first: list[str], options: list[str], places: Sequence[str], types: Types) -> list[str]:
    """Turn unnamed values into options.

    Each value goes to the next of `places` that no option fills. A list takes all that are left.

    Raises:
        ValueError: there are more values than places.
    """
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
    """Return a parser without options, whose description tells of flags and short names."""
    short = [f"{short} is --{key}" for short, keys in SHORT.items() for key in keys if key in types]
    about = [
        "A {true,false} option is true without a value.",
        *([f"{', '.join(short)}."] if short else []),
    ]
    return ArgumentParser(
        prog=f"impasto {command}",
        exit_on_error=False,
        allow_abbrev=False,
        description=" ".join([description, *about]),
        **more,
    )


def _parse(
    parser: ArgumentParser,
    command: str,
    arguments: list[str],
    types: Types,
    allowed: dict[str, str],
) -> dict[str, Any]:
    """Parse a command line; an error of jsonargparse becomes a ValueError of one line."""
    try:
        return parser.parse_args(arguments).as_dict()
    except ArgumentError as error:
        expected = {name: _expected(of) for name, of in types.items()} | allowed
        raise ValueError(_short(command, str(error), expected, list(types))) from error


def _short(command: str, message: str, allowed: dict[str, str], options: list[str]) -> str:
    """Return an error of jsonargparse in one line; it takes eight for a value of a wrong type."""
    if unknown := re.search(r"unrecognized arguments: --([\w.-]+)", message, re.IGNORECASE):
        meant = did_you_mean(unknown[1].replace("-", "_"), options).replace("mean ", "mean --")
        return f"{message}; {meant}`impasto {command} --help` lists the options"
    wrong = re.search(r'Parser key "([\w.]+)":.*(?:Got|Given) value: (.*)', message, re.DOTALL)
    if wrong and allowed.get(wrong[1]) == _NAMED:
        return f"--{wrong[1]} {wrong[2]}: must have a name, as in --{wrong[1]}.NAME {wrong[2]}"
    if wrong:
        return f"--{wrong[1]} {wrong[2]}: must be {allowed.get(wrong[1], 'something else')}"
    return f"{message}; `impasto {command} --help` lists the options"


def _expected(of: Any) -> str:
    """Return in words what an option may be: choices of a Literal, a kind of value, or several."""
    if get_origin(of) is dict:
        return _NAMED
    if item := _item_of(of):
        return f"{_expected(item)}, or several"
    parts = [part for part in _alternatives(of) if part is not type(None)]
    choices = [
        choice
        for part in parts
        for choice in (get_args(part) if get_origin(part) is Literal else [part])
    ]
    return " or ".join(_EXPECTED.get(part, str(part)) for part in choices)


def told_by_lightning(message: str) -> str:
    """Return what LightningCLI's parser says of a wrong value in one line and in words."""
    wrong = re.search(r'Parser key "([\w.]+)":.*(?:Got|Given) value: (.*)', message, re.DOTALL)
    if not wrong:
        return f"{message} (--help lists the options)"
    kinds = {of.__name__: words for of, words in _EXPECTED.items()}
    kinds |= {"list": "a list", "dict": _NAMED}
    told = wrong[0].split("Given value type")[0]
    expected: list[str] = []
    found = re.findall(r"<class '(\w+)'>|Literal\[(.*?)\]|(dot import path)", told)
    for kind, choices, path in found:
        if choices:
            expected += [choice.strip("'") for choice in choices.split(", ")]
        elif path:
            expected.append("the import path of a class")
        elif kind in kinds:  # others are classes of Lightning, and None
            expected.append(kinds[kind])
    allowed = " or ".join(dict.fromkeys(expected))
    return f"--{wrong[1]} {wrong[2]}: must be {allowed} (--help lists the options)"
