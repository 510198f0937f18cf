"""``arcface-plus ijb``: template verification and identification on IJB-B and IJB-C."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from arcface_plus.cli.errors import refuse
from arcface_plus.cli.json_files import write_json
from arcface_plus.cli.model_options import (
    BatchSize,
    Device,
    Precision,
    Preprocessing,
    parse_preprocessing,
)
from arcface_plus.cli.progress import counted

if TYPE_CHECKING:
    from arcface_plus.data.ijb_meta import TemplatePairs
    from arcface_plus.evaluation.search.identification import IdentificationResult
    from arcface_plus.evaluation.search.ijb import IjbIdentification, IjbSearches
    from arcface_plus.evaluation.search.templates import TemplateResult, Templates

PROTOCOLS = ("1:1", "1:N", "both")


def ijb_command(
    meta: Annotated[Path, typer.Option(help="Folder of the lists (meta).")],
    target: Annotated[str, typer.Option(help="IJBB or IJBC.")],
    model: Annotated[
        Path | None, typer.Option(help="Run folder, .safetensors, .pt or .onnx file.")
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Folder of the images (loose_crop), to be aligned.")
    ] = None,
    embeddings: Annotated[
        Path | None,
        typer.Option(help="An .npz of key and embedding instead of a model and its images."),
    ] = None,
    protocol: Annotated[str, typer.Option(help="1:1, 1:N or both.")] = "1:1",
    use_flip_test: Annotated[
        bool | None, typer.Option(help="Sum f(x) + f(mirrored x); on unless said otherwise.")
    ] = None,
    use_norm_score: Annotated[
        bool, typer.Option(help="Let an embedding's norm weigh in its template.")
    ] = True,
    use_detector_score: Annotated[
        bool, typer.Option(help="Let the detector's score weigh in the template.")
    ] = True,
    json_path: Annotated[
        Path | None, typer.Option("--json", help="Write every number to this file.")
    ] = None,
    batch_size: BatchSize = 64,
    device: Device = "auto",
    precision: Precision = "fp32",
    preprocessing: Preprocessing = None,
) -> None:
    """Pool faces into templates and state TAR@FAR (1:1), rank-k and TPIR@FPIR (1:N)."""
    from arcface_plus.data.ijb_meta import read_faces, read_template_pairs
    from arcface_plus.distributed import start_world
    from arcface_plus.evaluation.embedding.embed import EmbeddingOptions
    from arcface_plus.evaluation.embedding.sets import read_embedding_set
    from arcface_plus.evaluation.search.ijb import (
        pool_embedded,
        pool_faces,
        read_searches,
        template_pool,
    )
    from arcface_plus.models import load_model

    _check_use(protocol, model, images, embeddings, use_flip_test)
    faces = read_faces(meta, target)
    pool = template_pool(
        faces, use_norm_score=use_norm_score, use_detector_score=use_detector_score
    )
    # All lists are read first: a wrong line should not show after an hour of embedding.
    pairs = None if protocol == "1:N" else read_template_pairs(meta, target, pool.ids)
    searches = None if protocol == "1:1" else read_searches(meta, target, pool.ids)
    facts: dict[str, Any] = {
        "target": target,
        "images": len(faces),
        "use_norm_score": use_norm_score,
        "use_detector_score": use_detector_score,
    }
    if embeddings is not None:
        facts["embeddings"] = str(embeddings)
        templates = pool_embedded(read_embedding_set(embeddings), faces, pool)
    else:
        assert model is not None and images is not None
        flip = use_flip_test is not False
        facts |= {"model": str(model), "use_flip_test": flip, "precision": precision}
        network = load_model(model, preprocessing=parse_preprocessing(preprocessing))
        with start_world(device) as world, counted("images", enabled=world.is_main) as progress:
            options = EmbeddingOptions(flip, batch_size, world.device, precision)
            templates = pool_faces(network, faces, images, pool, options, progress=progress)
            if not world.is_main:
                return
    _score(templates, pairs, searches, facts, json_path)


def _check_use(
    protocol: str,
    model: Path | None,
    images: Path | None,
    embeddings: Path | None,
    use_flip_test: bool | None,
) -> None:
    refuse(
        {
            f"--protocol is {protocol!r}, but must be one of {', '.join(PROTOCOLS)}.": (
                protocol not in PROTOCOLS
            ),
            "Give either --model and --images, or --embeddings.": (
                (model is None) == (embeddings is None)
            ),
            "--images is what --model embeds: give both, or --embeddings alone.": (
                (model is None) != (images is None)
            ),
            "--use-flip-test is decided when embeddings are made; with --embeddings it has no "
            "say.": embeddings is not None and use_flip_test is not None,
        }
    )


def _score(
    templates: Templates,
    pairs: TemplatePairs | None,
    searches: IjbSearches | None,
    facts: dict[str, Any],
    json_path: Path | None,
) -> None:
    from arcface_plus.evaluation.search.ijb import identify_ijb
    from arcface_plus.evaluation.search.templates import verify_templates

    console = Console()
    if pairs is not None:
        verified = verify_templates(templates, pairs)
        facts["verification"] = verified.to_dict()
        console.print(verification_table(facts["target"], verified))
    if searches is not None:
        identified = identify_ijb(templates, searches)
        facts["identification"] = identified.to_dict()
        console.print(galleries_table(facts["target"], identified))
    if json_path is not None:
        write_json(json_path, facts)
        console.print(f"Wrote {json_path}")


def verification_table(target: str, result: TemplateResult) -> Table:
    """Lay out TAR at each FAR by both rules."""
    pairs = f"{result.genuine_pairs} genuine + {result.impostor_pairs} impostor pairs"
    headings = ("FAR", "TAR", "at FAR", "cosine >", "nearest TAR", "at FAR")
    title = f"{target} 1:1: {result.templates} templates, {pairs}"
    table = Table(*headings, title=title, title_justify="left")
    for far, nearest in result.nearest_tar.items():
        other = (f"{nearest:.5f}", f"{result.nearest_far[far]:.3g}")
        if far in result.refused_fars:
            table.add_row(f"{far:g}", "refused", "", "", *other)
            continue
        mark = "*" if far in result.coarse_fars else ""
        reached, cosine = result.far_reached[far], result.tar_thresholds[far]
        tar = f"{result.tar_at_far[far]:.5f}{mark}"
        table.add_row(f"{far:g}", tar, f"{reached:.3g}", f"{cosine:.5f}", *other)
    notes = ["nearest TAR: insightface's rule, the point of the curve nearest to the FAR"]
    if result.coarse_fars:
        notes.append("* coarse: fewer than 10 false accepts allowed")
    if result.refused_fars:
        needed = ", ".join(f"{n} for {far:g}" for far, n in result.refused_fars.items())
        notes.append(f"refused: impostor pairs needed are {needed}")
    table.caption = "\n".join(notes)
    table.caption_justify = "left"
    return table


def galleries_table(target: str, result: IjbIdentification) -> Table:
    """Lay out rank-k and TPIR of each gallery, their mean, and both as one."""
    named = {**result.galleries, "both as one": result.union}
    means = result.means()
    headings = ("measure", *result.galleries, "mean", "both as one")
    table = Table(*headings, title=f"{target} 1:N", title_justify="left")

    def add(measure: str, mean: str, cells: list[str]) -> None:
        table.add_row(measure, *cells[:-1], mean, cells[-1])

    add("mated + not", "", [f"{each.mated} + {each.non_mated}" for each in named.values()])
    for k, rate in means["rank_rates"].items():
        add(f"rank-{k}", f"{rate:.5f}", [f"{each.rank_rates[k]:.5f}" for each in named.values()])
    fpirs = {f for each in named.values() for f in [*each.tpir, *each.refused_fpirs]}
    for fpir in sorted(fpirs):
        mean = f"{means['tpir'][fpir]:.5f}" if fpir in means["tpir"] else "–"
        add(f"TPIR@FPIR={fpir:g}", mean, [tpir_text(each, fpir) for each in named.values()])
    if any(each.coarse_fpirs for each in named.values()):
        table.caption = "* coarse: fewer than 10 false positives allowed"
        table.caption_justify = "left"
    return table


def tpir_text(result: IdentificationResult, fpir: float) -> str:
    """Return a TPIR as the tables show it: a rate, perhaps coarse, or what was missing."""
    if fpir in result.refused_fpirs:
        return "–" if not result.non_mated else f"needs {result.refused_fpirs[fpir]} non-mated"
    return f"{result.tpir[fpir]:.5f}{'*' if fpir in result.coarse_fpirs else ''}"
