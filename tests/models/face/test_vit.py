"""ViT: layout and values against a functional reading, training's random parts, options."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from arcface_plus.export.onnx_file import export_onnx
from arcface_plus.models import build_model, load_model, save_model
from arcface_plus.models.face.vit import LAYOUTS, Layout, VisionTransformer, drop_path
from arcface_plus.models.preprocessing import INSIGHTFACE

# width, blocks, heads, patch, ratio of the MLP: arcface_torch's get_model, CVLface's from_config.
PUBLISHED = {
    "vit_t": (256, 12, 8, 9, 4),
    "vit_s": (512, 12, 8, 9, 4),
    "vit_b": (512, 24, 8, 9, 4),
    "vit_l": (768, 24, 8, 9, 4),
    "vit_h": (1024, 48, 8, 9, 4),
    "vit_s8": (512, 12, 8, 8, 5),
    "vit_b8": (512, 24, 16, 8, 3),
}
PARAMETERS = {  # as the public code has them, counted there
    "vit_t": 19_137_792,
    "vit_s": 76_023_296,
    "vit_b": 113_833_472,
    "vit_l": 255_684_352,
    "vit_h": 756_393_984,
}


def published_layout(name: str, *, width: int, size: int, dim: int) -> dict[str, tuple[int, ...]]:
    _, blocks, _, patch, ratio = PUBLISHED[name]
    count = (size // patch) ** 2
    shapes: dict[str, tuple[int, ...]] = {
        "pos_embed": (1, count, width),
        "mask_token": (1, 1, width),
        "patch_embed.proj.weight": (width, 3, patch, patch),
        "patch_embed.proj.bias": (width,),
    }
    for block in range(blocks):
        at = f"blocks.{block}"
        for norm in ("norm1", "norm2"):
            shapes |= {f"{at}.{norm}.weight": (width,), f"{at}.{norm}.bias": (width,)}
        shapes[f"{at}.attn.qkv.weight"] = (3 * width, width)
        shapes |= {f"{at}.attn.proj.weight": (width, width), f"{at}.attn.proj.bias": (width,)}
        hidden = ratio * width
        shapes |= {f"{at}.mlp.fc1.weight": (hidden, width), f"{at}.mlp.fc1.bias": (hidden,)}
        shapes |= {f"{at}.mlp.fc2.weight": (width, hidden), f"{at}.mlp.fc2.bias": (width,)}
    shapes |= {"norm.weight": (width,), "norm.bias": (width,)}
    shapes["feature.0.weight"] = (width, width * count)
    shapes["feature.2.weight"] = (dim, width)
    for at, numbers in (("feature.1", width), ("feature.3", dim)):
        for key in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{at}.{key}"] = (numbers,)
        shapes[f"{at}.num_batches_tracked"] = ()
    return shapes


def naive_vit(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    """Read the published order of operations straight from the state dict, in eval mode."""
    _, blocks, heads, patch, _ = PUBLISHED[name]

    def linear(at: str, x: Tensor) -> Tensor:
        return F.linear(x, state[f"{at}.weight"], state.get(f"{at}.bias"))

    def layer_norm(at: str, x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        scale = (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return centred / scale * state[f"{at}.weight"] + state[f"{at}.bias"]

    def batch_norm(at: str, x: Tensor) -> Tensor:
        scale = (state[f"{at}.running_var"] + 2e-5).sqrt()
        x = (x - state[f"{at}.running_mean"]) / scale
        return x * state[f"{at}.weight"] + state[f"{at}.bias"]

    x = F.conv2d(x, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], stride=patch)
    x = x.flatten(2).transpose(1, 2) + state["pos_embed"]
    for block in range(blocks):
        at = f"blocks.{block}"
        qkv = linear(f"{at}.attn.qkv", layer_norm(f"{at}.norm1", x))
        n, length, three = qkv.shape
        q, k, v = qkv.reshape(n, length, 3, heads, three // 3 // heads).permute(2, 0, 3, 1, 4)
        attention = (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(-1)
        read = (attention @ v).transpose(1, 2).reshape(n, length, three // 3)
        x = x + linear(f"{at}.attn.proj", read)
        hidden = linear(f"{at}.mlp.fc1", layer_norm(f"{at}.norm2", x)).clamp(0, 6)
        x = x + linear(f"{at}.mlp.fc2", hidden)
    x = layer_norm("norm", x).flatten(1)
    x = batch_norm("feature.1", linear("feature.0", x))
    return batch_norm("feature.3", linear("feature.2", x))


def narrow(name: str = "vit_t", **options: object) -> VisionTransformer:
    torch.manual_seed(0)
    return VisionTransformer(name, **({"width": 16, "size": 32, "embedding_dim": 12} | options))


@pytest.mark.parametrize("name", PUBLISHED)
def test_keys_and_shapes_are_the_published_ones(name: str) -> None:
    with torch.device("meta"):
        model = build_model(name)
    found = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    width = PUBLISHED[name][0]
    assert found == published_layout(name, width=width, size=112, dim=512)
    if name in PARAMETERS:
        assert sum(p.numel() for p in model.parameters()) == PARAMETERS[name]
    assert set(PUBLISHED) == set(LAYOUTS)


@pytest.mark.parametrize(("name", "size"), [("vit_t", 32), ("vit_s8", 40), ("vit_b8", 32)])
def test_values_equal_a_functional_reading(
    name: str, size: int, make_state, tmp_path: Path
) -> None:
    shapes = published_layout(name, width=16, size=size, dim=12)
    state = make_state(shapes)
    model = narrow(name, size=size).double().eval()
    model.load_state_dict(state, strict=True)
    x = torch.randn(2, 3, size, size, dtype=torch.float64)
    expected = naive_vit(state, name, x)
    assert expected.std() > 0.1
    assert (model(x) - expected).norm() < 1e-10 * expected.norm()
    # As a file of others: the name is found in the shapes, and CVLface's prefix is taken off. Its
    # nets that were trained without masking have no token for it.
    floats = {k: v.float() if v.is_floating_point() else v for k, v in state.items()}
    if name == "vit_s8":
        floats = {f"net.{k}": v for k, v in floats.items() if k != "mask_token"}
    torch.save(floats, tmp_path / "theirs.pt")
    loaded = load_model(tmp_path / "theirs.pt")
    # 32 pixels give 3 × 3 patches of 9, as 27 do: a file does not tell which.
    seen = loaded.preprocessing.size
    assert (loaded.name, seen) == (name, 27 if name == "vit_t" else size)
    assert (loaded.preprocessing.mean, loaded.preprocessing.std) == (INSIGHTFACE.mean, 127.5)
    embedded = loaded(x[:, :, :seen, :seen].float())
    assert (embedded - expected).norm() < 1e-5 * expected.norm()


def test_the_size_of_a_published_file_is_112(tmp_path: Path) -> None:
    model = narrow(size=112)
    torch.save(model.state_dict(), tmp_path / "vit.pt")
    assert load_model(tmp_path / "vit.pt").preprocessing.size == 112
    saved = load_model(save_model(narrow(mask=0.3, drop_path=0.2), tmp_path / "a.safetensors"))
    assert (saved.mask, saved.blocks[-1].drop) == (0.3, pytest.approx(0.2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"patch_embed.proj.weight": torch.zeros(16, 3, 7, 7)}, "no ViT has patches of 7"),
        ({"pos_embed": torch.zeros(1, 8, 16)}, "pos_embed has 8 positions"),
        ({"blocks.0.mlp.fc1.weight": torch.zeros(17, 16)}, "17 numbers of a hidden token"),
        ({"blocks.12.attn.proj.bias": torch.zeros(16)}, "13 blocks"),
        ({"norm.bias": torch.zeros(15)}, r"norm.bias is \(15,\), expected \(16,\)"),
        ({"pos_embed": torch.zeros(3)}, "pos_embed must be a tensor of 3 dimensions"),
    ],
)
def test_files_of_other_transformers_are_refused(tmp_path: Path, change, message) -> None:
    torch.save(narrow().state_dict() | change, tmp_path / "vit.pt")
    with pytest.raises(ValueError, match=f"vit.pt: .*{message}"):
        load_model(tmp_path / "vit.pt")


def test_masked_tokens_are_replaced_where_they_stood() -> None:
    """Blocks that change nothing: what is left out comes back as the mask token, in its place."""
    model = narrow(size=96, mask=0.25, drop_path=0.0)
    for block in model.blocks:
        torch.nn.init.zeros_(block.attn.proj.weight)
        torch.nn.init.zeros_(block.mlp.fc2.weight)
    model.norm = torch.nn.Identity()
    seen: list[Tensor] = []
    model.feature[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    x = torch.randn(4, 3, 96, 96)
    model.train()(x)
    tokens = seen[0].unflatten(1, (100, 16))
    whole = model.patch_embed(x) + model.pos_embed
    masked = (tokens == model.mask_token).all(dim=2)
    assert (masked.sum(dim=1) == 25).all()
    assert torch.equal(tokens[~masked], whole[~masked])
    assert len({tuple(row.tolist()) for row in masked}) == 4  # each image loses others
    model.eval()(x)
    assert torch.equal(seen[1].unflatten(1, (100, 16)), whole)


def test_drop_path_drops_whole_images_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    x = torch.ones(20_000, 3, 2)
    dropped = drop_path(x, 0.2)
    assert set(dropped.unique().tolist()) == {0.0, 1.25}
    assert ((dropped == 0).flatten(1).all(1) == (dropped == 0).flatten(1).any(1)).all()
    assert dropped.mean().item() == pytest.approx(1.0, abs=0.02)
    assert drop_path(x, 0.0) is x
    rates = [block.drop for block in narrow(drop_path=0.11).blocks]
    assert rates == pytest.approx([0.01 * k for k in range(12)])


def test_checkpointed_gradients_equal_plain_ones() -> None:
    """Although blocks draw random numbers: the second run draws the same."""
    x, direction = torch.randn(4, 3, 32, 32), torch.randn(4, 12)
    found = []
    for checkpointed in (False, True):
        model = narrow(checkpoint_gradients=checkpointed, drop_path=0.5)
        torch.manual_seed(1)
        (model(x) * direction).sum().backward()
        after = torch.rand(1)
        found.append(([p.grad for p in model.parameters()], after))
    (plain, number), (recomputed, same_number) = found
    assert torch.equal(number, same_number)
    gradients = [(a, b) for a, b in zip(plain, recomputed, strict=True) if a is not None]
    assert len(gradients) > 100 and all(torch.equal(a, b) for a, b in gradients)


def test_every_trained_parameter_has_a_gradient() -> None:
    """DDP waits for the others: without masking the mask token is none of them."""
    for mask in (0.0, 0.1):
        model = narrow(mask=mask, drop_path=0.0)
        model(torch.randn(4, 3, 32, 32)).square().sum().backward()
        missing = {k for k, p in model.named_parameters() if p.requires_grad and p.grad is None}
        assert missing == set()
        assert model.mask_token.requires_grad is (mask > 0)
    assert not narrow().feature[3].weight.requires_grad
    assert narrow(fix_last_gain=False).feature[3].weight.requires_grad


def test_autocast_body_is_bf16_and_head_is_fp32() -> None:
    model, seen = narrow(), {}
    for key in ("blocks.3.attn.qkv", "feature.0", "feature.3"):
        model.get_submodule(key).register_forward_hook(
            lambda _, inputs, output, key=key: seen.update({key: output.dtype})
        )
    with torch.autocast("cpu", torch.bfloat16):
        embeddings = model(torch.randn(4, 3, 32, 32))
    assert seen["blocks.3.attn.qkv"] == torch.bfloat16
    assert embeddings.dtype == seen["feature.0"] == seen["feature.3"] == torch.float32


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 20}, "width must be a multiple of 8, got 20; use"),
        ({"size": 8}, "size must be at least a patch of vit_t, 9, got 8"),
        ({"mask": 1.0}, r"mask must be a number in \[0, 1\), got 1.0"),
        ({"drop_path": -0.1}, "drop_path must be"),
        ({"dropout": 0.1}, "vit_t has no option dropout"),
        ({"init": "xavier"}, "vit_t has no option init"),
        ({"se": True}, "vit_t has no option se"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_model("vit_t", **options)


def test_first_weights_are_narrow_and_biases_zero() -> None:
    model = narrow(width=64, size=112, embedding_dim=64)
    for weight in (model.blocks[2].mlp.fc1.weight, model.pos_embed, model.feature[0].weight):
        assert weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert not model.blocks[2].mlp.fc1.bias.any()
    assert model.stem is model.patch_embed.proj


def test_onnx_files_give_the_same_embeddings(tmp_path: Path, monkeypatch) -> None:
    pytest.importorskip("onnxscript")
    monkeypatch.setitem(LAYOUTS, "vit_t", Layout(16, 2))
    model = narrow(size=36).eval()
    state = copy.deepcopy(model.state_dict())
    path = export_onnx(model, tmp_path / "vit.onnx")
    loaded = load_model(path)
    x = torch.randn(3, 3, 36, 36)
    theirs = loaded(x * (model.preprocessing.std / loaded.preprocessing.std))
    torch.testing.assert_close(theirs, model(x), atol=1e-5, rtol=1e-4)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
