"""What all classification nets promise: sizes, features, precision, first weights, files."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from arcface_plus.models import MODELS, build_model, load_model, model_hash, save_model
from arcface_plus.models.embedding_model import EmbeddingModel
from arcface_plus.models.face import iresnet, mobilefacenet, vit
from arcface_plus.models.initialization import initialize
from arcface_plus.models.onnx_model import OnnxModel
from arcface_plus.models.preprocessing import Preprocessing

# name -> features, and parameters with a classifier of 10 classes. As published, in millions: 0.27,
# 0.46, 0.66, 0.85, 1.7 (He et al., Table 6); 11.0 and 36.5 (Zagoruyko and Komodakis, Tables 3 and
# 5); 1.0 (Huang et al., Table 2). For VGG-19 on CIFAR "about 20 million" is what is usually said.
COUNTS = {
    "resnet20": (64, 269_722),
    "resnet32": (64, 464_154),
    "resnet44": (64, 658_586),
    "resnet56": (64, 853_018),
    "resnet110": (64, 1_727_962),
    "vgg16_bn": (512, 14_728_266),
    "vgg19_bn": (512, 20_040_522),
    "wrn_16_8": (512, 10_961_370),
    "wrn_28_10": (640, 36_479_194),
    "densenet_40_12": (448, 1_019_722),
}
PUBLISHED = {
    "resnet20": (0.27, 2),
    "resnet32": (0.46, 2),
    "resnet44": (0.66, 2),
    "resnet56": (0.85, 2),
    "resnet110": (1.7, 1),
    "vgg19_bn": (20, 0),
    "wrn_16_8": (11.0, 1),
    "wrn_28_10": (36.5, 1),
    "densenet_40_12": (1.0, 1),
}
# A narrow net of each kind: its width and features.
NARROW = {
    "resnet20": (4, 16),
    "vgg16_bn": (2, 16),
    "wrn_16_8": (1, 32),
    "densenet_40_12": (2, 88),
}


def narrow(name: str, **options: object) -> EmbeddingModel:
    torch.manual_seed(0)
    return build_model(name, **({"width": NARROW[name][0]} | options))


@pytest.mark.parametrize("name", COUNTS)
def test_features_and_parameter_counts(name):
    features, parameters = COUNTS[name]
    with torch.device("meta"):
        model = build_model(name)
        classifier = nn.Linear(model.embedding_dim, 10)
        out = model(torch.empty(2, 3, 32, 32))
    found = sum(p.numel() for part in (model, classifier) for p in part.parameters())
    assert (model.embedding_dim, found) == (features, parameters)
    assert out.shape == (2, features) and out.dtype == torch.float32
    if name in PUBLISHED:
        millions, digits = PUBLISHED[name]
        assert round(found / 1e6, digits) == millions
    assert all(p.requires_grad for p in model.parameters())


def test_every_net_is_among_these_or_a_face_net():
    faces = {*iresnet.DEPTHS, *mobilefacenet.LAYOUTS, *vit.LAYOUTS}
    assert {name for name in MODELS if name not in faces} == set(COUNTS)


@pytest.mark.parametrize("name", NARROW)
@pytest.mark.parametrize("size", [32, 64])
def test_any_batch_and_size(name, size):
    model = narrow(name, size=size).eval()
    assert model.preprocessing == Preprocessing(size=size)
    assert model.embedding_dim == NARROW[name][1]
    pixels = torch.randint(0, 256, (3, size, size, 3), dtype=torch.uint8)
    with torch.no_grad():
        x = model.preprocessing.apply(pixels)
        together = model(x)
        alone = torch.cat([model(row[None]) for row in x])
    assert together.shape == (3, model.embedding_dim) and together.dtype == torch.float32
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["resnet20", "wrn_16_8", "densenet_40_12"])
def test_digits_of_sixteen_pixels(name):
    assert narrow(name, size=16)(torch.randn(2, 3, 16, 16)).shape == (2, NARROW[name][1])
    with pytest.raises(ValueError, match="size must be a multiple of 4, got 18; use 16"):
        narrow(name, size=18)


@pytest.mark.parametrize("name", NARROW)
def test_options_of_the_trainer(name):
    """What every run passes is accepted; what the net lacks is refused by name."""
    wanted = Preprocessing(mean=120.0, std=64.0, size=64)
    model = build_model(
        name,
        embedding_dim=None,
        dropout=None,
        size=64,
        width=NARROW[name][0],
        preprocessing=wanted,
        init=None,
        fix_last_gain=True,
        checkpoint_gradients=False,
    )
    assert model.preprocessing == wanted and model.training
    assert build_model(name, width=NARROW[name][0], embedding_dim=NARROW[name][1]) is not None
    for option, value in (
        ("init", "xavier"),
        ("fix_last_gain", False),
        ("checkpoint_gradients", True),
    ):
        with pytest.raises(ValueError, match=f"{name} has no option {option}; leave it unset"):
            narrow(name, **{option: value})
    if name != "wrn_16_8":
        with pytest.raises(ValueError, match=f"{name} has no option dropout"):
            narrow(name, dropout=0.2)


@pytest.mark.parametrize("name", NARROW)
def test_options_out_of_range(name):
    features = NARROW[name][1]
    for wrong in (512, 0, features + 1):
        with pytest.raises(
            ValueError, match=rf"gives {features} features, .*unset, or set it to {features}"
        ):
            narrow(name, embedding_dim=wrong)
    for option, value in (("width", 0), ("width", 2.5), ("size", True), ("width", 70_000)):
        with pytest.raises(ValueError, match=f"{option} must be a whole number"):
            narrow(name, **{option: value})
    with pytest.raises(ValueError, match=r"preprocessing.size is 112 but the model's .* 32"):
        narrow(name, preprocessing=Preprocessing())


def test_face_nets_keep_their_defaults():
    with torch.device("meta"):
        model = build_model("iresnet18")
    assert (model.embedding_dim, model.preprocessing.size) == (512, 112)
    assert not model.features.weight.requires_grad
    with torch.device("meta"):
        assert build_model("iresnet18", fix_last_gain=False).features.weight.requires_grad


@pytest.mark.parametrize("name", NARROW)
def test_autocast_leaves_features_in_fp32(name):
    model = narrow(name)
    dtypes: dict[str, torch.dtype] = {}
    convolutions = [(k, m) for k, m in model.named_modules() if isinstance(m, nn.Conv2d)]
    for key, conv in convolutions:
        conv.register_forward_hook(lambda _, __, out, key=key: dtypes.update({key: out.dtype}))
    x = torch.randn(4, 3, 32, 32)
    plain = model(x)
    assert set(dtypes.values()) == {torch.float32}
    with torch.autocast("cpu", torch.bfloat16):
        features = model(x)
    assert set(dtypes.values()) == {torch.bfloat16}
    assert features.dtype == torch.float32
    # The mean is taken in fp32, so it is not itself one of the few numbers that bf16 has.
    assert not torch.equal(features, features.bfloat16().float()) or name == "vgg16_bn"
    assert (features - plain).norm() < 0.1 * plain.norm()
    features.sum().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in model.parameters())


@pytest.mark.parametrize(("name", "fan"), [
    ("resnet20", "in"), ("vgg16_bn", "out"), ("wrn_16_8", "out"), ("densenet_40_12", "out"),
])  # fmt: skip
def test_first_weights_are_he_normal(name, fan):
    torch.manual_seed(0)
    model = build_model(name, width={"wrn_16_8": 4, "densenet_40_12": 24}.get(name))
    checked = 0
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            into, out = (n * math.prod(module.kernel_size) for n in module.weight.shape[1::-1])
            expected = math.sqrt(2 / (into if fan == "in" else out))
            tolerance = 6 / math.sqrt(2 * module.weight.numel())
            assert module.weight.std().item() == pytest.approx(expected, rel=tolerance)
            assert abs(module.weight.mean().item()) < expected * tolerance * 2
            assert module.bias is None or not module.bias.any()
            checked += into != out
        elif isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all() and not module.bias.any()
    assert checked >= 3  # elsewhere the two fans are one


def test_both_fans_of_an_uneven_convolution():
    conv = nn.Conv2d(10, 40, 5)
    initialize(conv, scheme="he")
    assert conv.weight.std().item() == pytest.approx(math.sqrt(2 / 250), rel=0.05)
    initialize(conv, scheme="xavier")
    assert conv.weight.std().item() == pytest.approx(math.sqrt(2 / 1000), rel=0.05)
    assert not conv.bias.any()


def test_first_weights_follow_the_seed():
    first, same = (model_hash(narrow("resnet20")) for _ in range(2))
    torch.manual_seed(1)
    assert first == same != model_hash(build_model("resnet20", width=4))


@pytest.mark.parametrize("name", NARROW)
def test_files_rebuild_the_net(tmp_path, name):
    options: dict[str, object] = {"dropout": 0.2} if name == "wrn_16_8" else {}
    wanted = Preprocessing(mean=121.9, std=68.4, size=64, flip_sum=False)
    model = narrow(name, size=64, preprocessing=wanted, **options)
    model(torch.randn(4, 3, 64, 64))  # running statistics that are not the first ones
    path = save_model(model.eval(), tmp_path / "model.safetensors")
    loaded = load_model(path)
    assert type(loaded) is type(model) and loaded.architecture == model.architecture
    assert (loaded.name, loaded.embedding_dim) == (name, NARROW[name][1])
    assert loaded.preprocessing == wanted and not loaded.training
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(loaded(x), model(x))
    assert model_hash(path) == model_hash(model) == model_hash(loaded)


def test_files_of_another_net_are_refused(tmp_path: Path):
    model = narrow("resnet20")
    model.architecture = {**model.architecture, "name": "resnet32"}
    path = save_model(model, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"model\.safetensors: the weights do not fit: .*missing"):
        load_model(path)
    model.architecture = {**model.architecture, "name": "resnet20", "embedding_dim": 512}
    save_model(model, path)
    with pytest.raises(ValueError, match=r"model\.safetensors: .*gives 16 features"):
        load_model(path)


def test_a_bare_state_dict_says_what_it_is_not(tmp_path: Path):
    torch.save(narrow("resnet20").state_dict(), tmp_path / "net.pt")
    with pytest.raises(ValueError, match="neither an IResNet nor a MobileFaceNet"):
        load_model(tmp_path / "net.pt")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet20", "wrn_16_8"])
def test_onnx_files_give_the_same_features(tmp_path: Path, name):
    """By torch's exporter: option A's zeros and the shortcut's every second pixel among others."""
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    model = narrow(name)
    model(torch.randn(8, 3, 32, 32))
    path = tmp_path / "net.onnx"
    torch.onnx.export(
        model.eval(),
        (torch.randn(2, 3, 32, 32),),
        path,
        dynamo=True,
        dynamic_shapes=({0: torch.export.Dim("N")},),
        verbose=False,
    )
    onnx = OnnxModel(path, preprocessing=replace(model.preprocessing))
    assert onnx.embedding_dim == model.embedding_dim
    x = torch.randn(5, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(onnx(x), model(x), rtol=1e-4, atol=1e-4)
