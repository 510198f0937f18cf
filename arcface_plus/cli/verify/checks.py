"""Options of ``verify`` that are read, and refused, before any work."""

from __future__ import annotations

from pathlib import Path

from arcface_plus.cli.errors import refuse
from arcface_plus.cli.verify.output import TABLES


def parse_fars(text: str) -> tuple[float, ...]:
    """Return the rates of ``1e-3,1e-4``; raises ValueError for what is no rate in (0, 1]."""
    try:
        fars = tuple(float(word) for word in text.replace(",", " ").split())
    except ValueError as error:
        raise ValueError(f"--far {text!r}: give rates such as 1e-3,1e-4 ({error}).") from error
    if not fars or not all(0 < far <= 1 for far in fars):
        raise ValueError(f"--far {text!r}: give rates above 0 and up to 1, such as 1e-3,1e-4.")
    return fars


def check_use(
    model: Path | None,
    embeddings: list[Path] | None,
    sets: list[Path],
    others: list[list[Path] | Path],
    advise_far: float | None,
    pca: int | None,
    both_styles: bool,
) -> None:
    """Raise ValueError for models, sets and styles that do not go together."""
    refuse(
        {
            "Give either --model or --embeddings.": (model is None) == (not embeddings),
            "--model needs at least one pair set to embed: --pairs lfw.bin": (
                model is not None and not sets
            ),
            "--compare with a model needs the pairs' images: give --pairs and --root.": (
                any(isinstance(other, Path) for other in others) and not sets
            ),
            "--advise-far needs one space for all pairs, but --pca fits one a fold; leave one "
            "out.": pca is not None and advise_far is not None,
            "Give either --markdown or --latex.": both_styles,
        }
    )


def check_calibration(
    wanted: bool, model: Path | None, sets: list[Path], pca: int | None, against: Path | None
) -> None:
    """Raise ValueError where a calibration is ``wanted`` of what has none."""
    refuse(
        {
            "--calibrate and --card need a --model and one pair set, and no --pca.": (
                wanted and (model is None or len(sets) != 1 or pca is not None)
            ),
            "--calibrate and --card are of one model, but --against brings a second; leave one "
            "out.": wanted and against is not None,
        }
    )


def check_against(
    against: Path | None, model: Path | None, others: list[list[Path] | Path]
) -> None:
    """Raise ValueError for embeddings in files, which an old model cannot embed again."""
    of_files = model is None or any(isinstance(other, list) for other in others)
    refuse(
        {
            "--against embeds images: give models and pair sets, no --embeddings or .npz.": (
                against is not None and of_files
            )
        }
    )


def check_outputs(outputs: list[Path | None], tables: list[Path]) -> None:
    """Raise for an output whose folder does not exist, and a table of unknown form."""
    for output in outputs:
        if output is not None and not output.parent.is_dir():
            raise FileNotFoundError(f"the folder {output.parent} of {output.name} does not exist.")
    for path in tables:
        if path.suffix not in TABLES:
            raise ValueError(f"--table {path}: tables end in {', '.join(TABLES)}.")


def check_analyses(
    groups: Path | None, quality: list[str] | None, threshold: float | None, table_alone: bool
) -> None:
    """Raise ValueError for options of analyses that do not go together."""
    refuse(
        {
            "--threshold is for --groups and --quality: give one of them.": (
                threshold is not None and groups is None and not quality
            ),
            f"--threshold {threshold} is a cosine: give a number from -1 to 1.": (
                threshold is not None and not -1 <= threshold <= 1
            ),
            "--table compares models: give at least one other with --compare.": table_alone,
        }
    )
