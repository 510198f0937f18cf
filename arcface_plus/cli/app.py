"""The command line: ``arcface-plus VERB …``. Exit 0 done, 1 failed, 2 bad input.

Verbs import what they need when they run, so that ``--help`` answers at once.
"""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path
from typing import Annotated

import typer

from arcface_plus.cli import configs, embed, export, identify, ijb, margins, tammes
from arcface_plus.cli.data import app as data
from arcface_plus.cli.errors import exit_code_for, leave
from arcface_plus.cli.study import app as study
from arcface_plus.cli.study import repeat
from arcface_plus.cli.study.runs import TAKES_SETTINGS
from arcface_plus.cli.use import compare, index, search
from arcface_plus.cli.verify import command as verify

app = typer.Typer(
    name="arcface-plus",
    help="Train, verify and export face embeddings with ArcFace+ (ArcFace and the MMA penalty).",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(configs.app, name="configs")
app.add_typer(data.app, name="data")
app.add_typer(study.app, name="study")
app.add_typer(margins.app, name="margins")
app.command("verify")(verify.verify_command)
app.command("compare")(compare.compare_command)
app.command("search")(search.search_command)
app.add_typer(index.app, name="index")
app.command("embed")(embed.embed_command)
app.command("export")(export.export_command)
app.command("ijb")(ijb.ijb_command)
app.command("identify")(identify.identify_command)
app.command("tammes")(tammes.tammes_command)
app.command("repeat", context_settings=TAKES_SETTINGS)(repeat.repeat_command)


@app.command(
    "train",
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    epilog="Any setting of the configuration is an option too: --optim.lr 0.05 --train.steps 1000",
)
def train_command(
    context: typer.Context,
    config: Annotated[Path, typer.Argument(help="A YAML file, or a name that configs lists.")],
    resume: Annotated[
        str, typer.Option(help="never, auto (newest whole one, if any), or a checkpoint folder.")
    ] = "never",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Remove the run folder and start over.")
    ] = False,
) -> None:
    """Train, verify and save a model; also under torchrun as tools/train.py."""
    from arcface_plus.runs.train import train

    train(config, context.args, resume=resume, overwrite=overwrite)


@app.command("info")
def info_command(
    model: Annotated[
        str | None,
        typer.Option(help="A network such as iresnet50, vit_s or timm:NAME: what it costs."),
    ] = None,
    size: Annotated[int | None, typer.Option(help="Pixels of its square input.")] = None,
) -> None:
    """Show versions, devices, and what is and is not available; or what a network costs."""
    from arcface_plus.cli.info import information, model_information

    typer.echo(json.dumps(model_information(model, size) if model else information(), indent=1))


def run(words: list[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    not_ours = multiprocessing.active_children()
    try:
        app(args=words)
    except SystemExit as stopped:  # how typer ends, and a run that was asked to stop
        code = stopped.code
        leave(code if isinstance(code, int) else int(code is not None), not_ours)
    except Exception as error:  # the one place where errors become exit codes
        leave(exit_code_for(error), not_ours)
