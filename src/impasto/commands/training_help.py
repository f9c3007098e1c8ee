"""The help of `train` and `distill`, and mistakes in the names of their options.

Lightning makes the parser of these commands, and takes seconds to import. So what needs no parser
is answered here, without it. A test compares the options below with those of the parser.
"""

import re
from itertools import pairwise

from impasto.spelling import did_you_mean, printable

_TASKS = {"fit": "train, or resume", "validate": "measure the losses on the photos kept back"}
# A number, or a word that YAML reads as none; `--seed_everything true` draws a seed.
_NUMBER = r"[-+]?[\d._]+(e[-+]?\d+)?|null|none|~|true|false"
# Options of Lightning that are not listed here.
_LIGHTNINGS = ("trainer", "optimizer", "lr_scheduler")

_TOP = """\
usage: impasto {command} {{fit,validate}} [options]

{description}

  fit         train, or resume a run
  validate    measure the losses on the photos kept for validation

`impasto {command} fit --help` lists the options.

Example: {example}
"""

_RUN = """\
usage: impasto {command} {task} [options]

{description}

This is what {config} sets, where no option and no --config says
otherwise: [default].

Photos
  --data.photos PATHS             a folder of photos; a list of folders and
                                  files; Parquet files; or the id, owner/name,
                                  of a dataset of the Hugging Face hub
                                  [detection-datasets/coco]
  --data.split NAME               split of a hub dataset [train]
  --data.image_column NAME        column of the images, if there are several
  --data.streaming BOOL           read a dataset while it downloads [False]
  --data.crop PIXELS              side of the square crops [{crop}]
  --data.batch_size N             photos per step and device [4]
  --data.val_photos N             photos kept for validation [{val_photos}]
  --data.num_workers N            processes per device that read photos [2]
  --data.seed N                   decides the order of photos and crops [0]
  --data.clips PATHS              a video, a folder of frames, or a list of
                                  them: temporal training learns from their
                                  motion too

{model}
The run
  -c FILE, --config FILE          options from a YAML file; may be repeated
  --run FOLDER                    folder for all files of the run [runs/NAME]
  --trainer.max_steps N           length of the run in steps [{max_steps}]
  --minutes X                     length of the run by the clock: the learning
                                  rate is 0 at the end, on any machine
  --ckpt_path WHICH               resume from: last, auto (the last, or a new
                                  run) or a file
{pictures}  --checkpoint.every_n_train_steps N
                                  steps between checkpoints [500]
  --checkpoint.keep N             newest checkpoints to keep [3]
  --seed_everything N             seed of everything but the photos [0]
  --weights_only BOOL             run no code from a checkpoint [True]
  --print_config                  print the whole configuration and stop
  -h, --help                      print this text
  --help-all                      print it with the options of Lightning's
                                  Trainer, such as --trainer.devices,
                                  --trainer.precision, --trainer.strategy

Example: {example}
"""

_PREVIEWS = """\
  --previews.every_n_steps N      steps between contact sheets; 0: never [500]
  --previews.photos N             photos on a sheet [4]
"""

_PICTURES = f"""\
  --try_on PHOTO                  a photo to stylize with the finished network
{_PREVIEWS}"""

_STYLES = """\
Paintings and network
  --model.styles.NAME FILE        a painting, and the name of its style; once
                                  for each style of the network
  --model.style_size PIXELS       longer side of the paintings: larger, larger
                                  strokes; 0 keeps their size [512]
  --model.width N                 channels at full resolution; 16 is four times
                                  cheaper [32]
  --model.residual_blocks N       [5]
  --model.start_from NETWORK      a published name or a file, of the same width
                                  and blocks, to start from
  --model.canvas LEVELS           grey levels of a faint pattern under every
                                  photo, so that flat areas get strokes; 0: none
                                  [that of start_from, or 3]
  --model.patch N                 for real time: 2 or 4 pixels a side become one
                                  position of features; this and the next four
                                  are those of start_from, if not given [1]
  --model.kernel N                side of first and last kernel: 3, 5, 7, 9 [9]
  --model.separable BOOL          separable convolutions between these [False]
  --model.padding NAME            of the features: reflect, or zeros, which is
                                  faster [reflect]
  --model.margin PIXELS           border reflected around a photo, in use [32]
  --model.learning_rate X         highest rate of Muon; Adam has a tenth [0.02]
  --model.warmup_steps N          steps over which the rate rises [100]
  --model.gap_photos N            photos that the balance is measured on [32]
  --model.shift_weight X          a shifted photo gives the shifted painting:
                                  fewer patterns lock to the pixel grid [0.0]
  --model.temporal_weight X       a filmed photo gives the moved painting: video
                                  stays steady [0.0]
  --model.feature_weight X        the same of the network's features [0.0]
  --model.teacher NETWORK         a trained network, larger say, whose paintings
                                  the network learns too; it knows the styles
  --model.teacher_weight X        how much that counts, beside the loss [1.0]
  --model.compile MODE            torch.compile: true, or one of its modes
                                  [False]

Loss
  --model.loss.style_strength X   weight of the style [1.0]
  --model.loss.content_weight X   weight of the content [1.0]
  --model.loss.tv_weight X        weight of the total variation [0.1]
  --model.loss.network NAME       vgg19, vgg16, or compact, which needs no
                                  download and is several times faster [vgg19]
  --model.loss.weights PATH       file or folder with the network's weights
                                  [IMPASTO_WEIGHTS, or a download]
  --model.loss.balance NAME       relative: terms as fractions; fixed: the
                                  papers' plain weights; dynamic: GradNorm
                                  [relative]
  --model.loss.content_layers.LAYER X
                                  weight of a content layer [relu4_2 1]
  --model.loss.style_layers.LAYER X
                                  weight of a style layer [relu1_1, relu2_1,
                                  relu3_1, relu4_1, relu5_1: 1 each]
  --model.loss.scales LIST        sum over these sizes of the picture [[1.0]]
  --model.loss.secondary_weight X
                                  weight of a second content term [0.0]
  --model.loss.secondary_layers.LAYER X
                                  weight of its layers [relu3_1 1]
  --model.loss.combined_weight X  for the command optimize only [0.0]
"""

_ANY = """\
Paintings and network
  --model.paintings LIST          folders and files of paintings, each drawn
                                  equally often
  --model.method NAME             predictor, or adain: half the arithmetic, less
                                  of the painting [predictor]
  --model.held_out LIST           folders and files kept out of training, for
                                  validation and previews [[]]
  --model.views N                 views of a painting to learn: the whole, then
                                  random parts [2]
  --model.limit N                 paintings of each folder to learn; all, if not
                                  given
  --model.style_size PIXELS       longer side of whole paintings [512]
  --model.basis N                 basis styles, which a code weighs [64]
  --model.width N                 channels at full resolution [16]
  --model.residual_blocks N       [5]
  --model.start_from NETWORK      a published name or a file, of the same width
                                  and blocks, to start from
  --model.canvas LEVELS           grey levels of a faint pattern under every
                                  photo [3.0]
  --model.learning_rate X         highest rate of Muon; Adam has a tenth [0.02]
  --model.warmup_steps N          steps over which the rate rises [100]
  --model.gap_photos N            photos that the balance is measured on [32]
  --model.own_weight X            weight of a photo's error in its own style
                                  [1.0]
  --model.shift_weight X          a shifted photo gives the shifted painting [0.0]
  --model.temporal_weight X       a filmed photo gives the moved painting: video
                                  stays steady [0.0]
  --model.feature_weight X        the same of the network's features [0.0]
  --model.compile MODE            torch.compile: true, or one of its modes
                                  [False]

"""

_COMPACT = """\
Networks
  --model.paintings FOLDER        paintings; every fifth is for validation
  --model.painters LIST           networks that stylize photos [['gallery']]
  --model.teacher NAME            vgg19 or vgg16, the one to predict [vgg19]
  --model.weights PATH            file or folder with the teacher's weights
                                  [IMPASTO_WEIGHTS, or a download]
  --model.ranks LIST              channels between the factors of a
                                  convolution, in each of five blocks
                                  [(16, 32, 64, 128, 256)]
  --model.start_from FILE         a compact network to start from
  --model.painting_size PIXELS    longer side of the paintings [512]
  --model.learning_rate X         highest learning rate of Adam [0.0005]
  --model.warmup_steps N          steps over which the rate rises [100]
  --model.gram_weight X           weight of the Gram matrices' error [1.0]
  --model.first_photos N          photos that the factors are computed on [32]
"""

EXAMPLES = {
    "train": "impasto train fit --data.photos photos/ --model.styles.my_painting painting.jpg",
    "train-any": "impasto train-any fit --data.photos photos/ --model.paintings '[paintings/]'",
    "distill": "impasto distill fit --data.photos photos/ --model.paintings paintings/",
}
_TEXTS = {
    "train": {
        "description": "Train a network on photos and paintings.",
        "config": "configs/default.yaml",
        "crop": 256, "val_photos": 16, "max_steps": 40000, "model": _STYLES, "pictures": _PICTURES,
    },
    "train-any": {
        "description": "Train a network for any painting, on photos and many paintings.",
        "config": "configs/default.yaml",
        "crop": 256, "val_photos": 16, "max_steps": 40000,
        "model": _ANY + _STYLES[_STYLES.index("Loss\n"):], "pictures": _PREVIEWS,
    },
    "distill": {
        "description": "Make the compact loss network, which predicts the features of VGG.",
        "config": "configs/distill.yaml",
        "crop": 128, "val_photos": 32, "max_steps": 3000, "model": _COMPACT, "pictures": "",
    },
}  # fmt: skip


def help_text(command: str, task: str | None) -> str:
    """Return the help of `train` or `distill`.

    Args:
        command: train or distill.
        task: fit or validate; None: the help that comes before either is chosen.
    """
    about = {"command": command, "task": task, "example": EXAMPLES[command], **_TEXTS[command]}
    if task == "validate":
        about["description"] = (
            "Measure the losses of a network on the photos kept for validation. Give --run and\n"
            "--ckpt_path last; without a checkpoint, an untrained network is measured."
        )
    return (_RUN if task else _TOP).format(**about)


def answered(command: str, arguments: list[str]) -> bool:
    """Print the help if it is asked for; return whether it was.

    Args:
        command: train or distill.
        arguments: the command line after the command's name.

    Raises:
        ValueError: no task, an unknown one, an unknown option, or a text where a number should be;
            the message is one line.
    """
    task = next((word for word in arguments if word in _TASKS), None)
    if {"-h", "--help"} & set(arguments):
        print(help_text(command, task), end="")
        return True
    if task is None and "--help-all" not in arguments:
        first = arguments[0] if arguments else ""
        given = f": {printable(first)}, {did_you_mean(first, _TASKS)}" if first else " "
        tasks = "; ".join(f"{name}: {what}" for name, what in _TASKS.items())
        raise ValueError(
            f"no task is given{given}({tasks}). Such as: {EXAMPLES[command]} (--help tells more)"
        )
    _check_named_painting(command, arguments)
    for word in arguments:
        option = word.partition("=")[0]
        if option.startswith("--") and not _known(option, help_text(command, "fit")):
            names = re.findall(r"--[a-z][\w.]*", help_text(command, "fit"))
            raise ValueError(
                f"{printable(option)}: no such option; {did_you_mean(option, names)}"
                "(--help lists the options)"
            )
    _check_numbers(help_text(command, "fit"), arguments)
    return False


def _check_named_painting(command: str, arguments: list[str]) -> None:
    """Raise ValueError for a painting without the name of its style."""
    words = [part for word in arguments for part in word.split("=", 1)]
    for option, value in pairwise(words):
        if command == "train" and option == "--model.styles" and not value.startswith(("{", "-")):
            raise ValueError(
                f"--model.styles {printable(value)}: give the painting a name, such as "
                f"--model.styles.my_painting {printable(value)}"
            )


def _check_numbers(text: str, arguments: list[str]) -> None:
    """Raise ValueError for an option of the help that takes a number, and is given a text.

    The parser would say so too, but only after Lightning is imported.
    """
    kinds = dict(re.findall(r"^  (--[a-z][\w.]*) (N|PIXELS|X)\b", text, re.MULTILINE))
    for option, value in pairwise(part for word in arguments for part in word.split("=", 1)):
        if option in kinds and not re.fullmatch(_NUMBER, value, re.IGNORECASE):
            kind = "a number" if kinds[option] == "X" else "a whole number"
            raise ValueError(
                f"{option} {printable(value)}: must be {kind} (--help lists the options)"
            )


def _known(option: str, text: str) -> bool:
    """Whether an option may exist: it, a part of it or a whole that it is part of is listed."""
    name = option.removesuffix("+").removesuffix(".help")
    if name.removeprefix("--").partition(".")[0] in _LIGHTNINGS:
        return True
    return any(
        name == listed
        or listed.startswith(f"{name}.")
        or (re.search(r"\.[A-Z]+", listed) and name.startswith(re.split(r"[A-Z]", listed)[0]))
        for listed in re.findall(r"--[a-z][\w.]*(?:-all)?", text)
    )
