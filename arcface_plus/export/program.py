"""Write a network as a ``torch.export`` program: PyTorch runs it without this package."""

from __future__ import annotations

import copy
import io
import json
from pathlib import Path

import torch

from arcface_plus.export.statement import Statement, file_facts
from arcface_plus.files import written_beside
from arcface_plus.models.embedding_model import EmbeddingModel
from arcface_plus.models.onnx_model import OnnxModel

FACTS = "arcface_plus.json"


def export_program(
    model: EmbeddingModel, path: str | Path, *, statement: Statement = Statement()
) -> Path:
    """Write ``model`` as a .pt2 that maps (batch, 3, size, size) float32 to embeddings.

    Its input is normalised by the model's own preprocessing, which stands with the other metadata
    in the extra file arcface_plus.json (``torch.export.load(path, extra_files=…)``). The program is
    loaded and run before it gets its name. Returns the path. Raises ValueError for a network that
    PyTorch does not run, or a result that differs from the network's.
    """
    path = Path(path)
    if path.suffix != ".pt2":
        raise ValueError(f"{path}: a torch.export program ends in .pt2; change the file's ending")
    if isinstance(model, OnnxModel):
        raise ValueError(f"{path}: {model.name} is run by onnxruntime; export it as .onnx.")
    network = copy.deepcopy(model).to("cpu").eval()
    size = model.preprocessing.size
    example = torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(0))
    program = torch.export.export(
        network, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},)
    )
    _remove_source_lines(program)
    facts = file_facts(model, model.preprocessing, "fp32", statement)
    content = io.BytesIO()
    torch.export.save(program, content, extra_files={FACTS: json.dumps(facts, sort_keys=True)})
    content.seek(0)
    loaded = torch.export.load(content).module()
    with torch.inference_mode():
        for batch in (example, example[:1]):
            if not torch.allclose(loaded(batch), network(batch), rtol=1e-4, atol=1e-5):
                raise ValueError(
                    f"{path} was not written: the exported program's embeddings differ from "
                    f"{model.name}'s; fix: report it with what arcface-plus info shows"
                )
    with written_beside(path) as beside:
        beside.write_bytes(content.getvalue())
    return path


def _remove_source_lines(program: torch.export.ExportedProgram) -> None:
    """Remove the source lines of every node, which name paths on this machine."""
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                node.meta.pop("stack_trace", None)
