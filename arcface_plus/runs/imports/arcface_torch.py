"""A configuration of arcface_torch (train_v2.py) as one of ours, with what it could not carry."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from arcface_plus.files import written_beside
from arcface_plus.runs.configuration import RunConfig
from arcface_plus.runs.imports.python_config import Given, read_assignments

_IRESNETS = {f"r{depth}": f"iresnet{depth}" for depth in (18, 34, 50, 100, 200, 2060)}
_VIT_B = {"name": "vit_b", "checkpoint_gradients": True}
_VIT_L = {"name": "vit_l", "checkpoint_gradients": True}
# Its ViTs and MobileFaceNets train the gain of the last batch norm.
_NETWORKS: dict[str, dict[str, Any]] = {
    **{theirs: {"name": ours, "dropout": 0.0} for theirs, ours in _IRESNETS.items()},
    "mbf": {"name": "mobilefacenet", "fix_last_gain": False, "init": "xavier"},
    "mbf_large": {"name": "mobilefacenet_large", "fix_last_gain": False, "init": "xavier"},
    "vit_t": {"name": "vit_t", "drop_path": 0.1, "mask": 0.1},
    "vit_t_dp005_mask0": {"name": "vit_t", "drop_path": 0.05, "mask": 0.0},
    "vit_s": {"name": "vit_s", "drop_path": 0.1, "mask": 0.1},
    "vit_s_dp005_mask_0": {"name": "vit_s", "drop_path": 0.05, "mask": 0.0},
    "vit_b": {**_VIT_B, "drop_path": 0.1, "mask": 0.1},
    "vit_b_dp005_mask_005": {**_VIT_B, "drop_path": 0.05, "mask": 0.05},
    "vit_l_dp005_mask_005": {**_VIT_L, "drop_path": 0.05, "mask": 0.05},
    "vit_h": {"name": "vit_h", "drop_path": 0.1, "mask": 0.0, "checkpoint_gradients": True},
}
_TRACKER = {"using_wandb", "suffix_run_name", "notes", "save_artifacts"}
_TRACKER |= {f"wandb_{key}" for key in ("key", "entity", "project", "log_all", "resume")}


@dataclass
class Conversion:
    """A configuration of ours, and what its reader has to know."""

    values: dict[str, Any] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)
    by_hand: list[str] = field(default_factory=list)


class _Theirs:
    """The settings of a file over those of base.py; says which were asked for."""

    def __init__(self, path: Path) -> None:
        base = path.with_name("base.py")
        if not base.is_file():
            raise FileNotFoundError(
                f"{base} does not exist; arcface_torch lays every configuration over it, so copy "
                "it there from its configs/."
            )
        self.path, self.own = path, read_assignments(path)
        self.all: dict[str, Given] = read_assignments(base) | self.own
        self.asked: set[str] = set()

    def get(self, key: str, kind: type | tuple[type, ...], default: Any = ...) -> Any:
        self.asked.add(key)
        if key not in self.all:
            if default is not ...:
                return default
            raise ValueError(
                f"{self.path}: config.{key} is given neither there nor in base.py; a training run "
                "needs it."
            )
        value = self.all[key].value
        truth = isinstance(value, bool) and kind is not bool
        if truth or not isinstance(value, kind):
            raise ValueError(f"{self.place(key)}: config.{key} cannot be {value!r}.")
        return value

    def place(self, key: str) -> str:
        file = self.path if key in self.own else self.path.with_name("base.py")
        return f"{file}:{self.all[key].line}"


_REAL = (int, float)


def convert(path: Path, gpus: int) -> Conversion:
    """Return arcface_torch's configuration ``path``, which it ran on ``gpus``, as one of ours.

    Its base.py must lie beside it. Neither is executed. Raises ValueError for what cannot be read,
    and for what arcface_torch itself would stop at.
    """
    theirs, found = _Theirs(path), Conversion()
    place, output = path.stem, theirs.get("output", (str, type(None)))
    found.values = {"name": Path(output).name if output else place}
    if output and Path(output).parent != Path("."):
        found.values["output"] = str(Path(output).parent)
    found.values["seed"] = theirs.get("seed", int)
    _data(theirs, found)
    _model(theirs, found)
    _head(theirs, found)
    _optimizer(theirs, found)
    _durations(theirs, found, gpus)
    if theirs.get("resume", bool):
        found.by_hand.append("resume is a word of the command line: train --resume auto")
    _rest(theirs, found)
    try:
        RunConfig.model_validate(found.values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise ValueError(f"{path}: as {key} of ours: {first['msg']}") from error
    return found


def _rest(theirs: _Theirs, found: Conversion) -> None:
    """Say what is left behind; what is off there is no loss."""
    theirs.asked.add("save_all_states")  # every checkpoint of ours has the whole state
    whys = dict.fromkeys(_TRACKER, "of Weights & Biases, which train.wandb is for here")
    whys["dali"] = "images are decoded on the CPU (data.workers)"
    if theirs.get("using_wandb", bool):
        theirs.asked.remove("using_wandb")
    else:
        theirs.asked |= _TRACKER
    if theirs.get("dali", bool):
        theirs.asked.remove("dali")
    for key in sorted(theirs.all.keys() - theirs.asked):
        why = whys.get(key, "train_v2.py does not read it")
        found.lost.append(f"config.{key} ({theirs.place(key)}): {why}")


def _data(theirs: _Theirs, found: Conversion) -> None:
    rec = theirs.get("rec", str)
    targets = theirs.get("val_targets", list)
    data: dict[str, Any] = {"source": "records", "path": f"{rec}/train.rec"}
    if rec == "synthetic":
        classes, images = theirs.get("num_classes", int), theirs.get("num_image", int)
        data = {"source": "synthetic", "images_per_class": max(1, images // max(1, classes))}
        if images % max(1, classes):
            found.lost.append(
                f"config.num_image ({theirs.place('num_image')}): our synthetic data have as many "
                f"images of every class, {data['images_per_class']}"
            )
    else:
        found.by_hand.append(f"data.path and evaluation.sets lie in {rec}: is that the place?")
    data |= {"num_classes": theirs.get("num_classes", int)}
    data |= {"workers": theirs.get("num_workers", int), "augment": {"flip": 0.5}}
    if theirs.get("dali_aug", bool) and theirs.get("dali", bool):
        data["augment"]["recipe"] = "arcface_torch"
    found.values["data"] = data
    if not all(isinstance(name, str) for name in targets):
        raise ValueError(f"{theirs.place('val_targets')}: val_targets must be names.")
    if targets and rec != "synthetic":
        found.values["evaluation"] = {"sets": {n: f"{rec}/{n}.bin" for n in targets}}


def _model(theirs: _Theirs, found: Conversion) -> None:
    network = theirs.get("network", str)
    if network not in _NETWORKS:
        raise ValueError(
            f"{theirs.place('network')}: network {network!r} is none of arcface_torch's, which are "
            f"{', '.join(_NETWORKS)}."
        )
    model = {"embedding_dim": theirs.get("embedding_size", int), "mean": 127.5, "std": 127.5}
    own = _NETWORKS[network]
    if network.startswith("vit"):
        model["fix_last_gain"] = False
    elif network in _IRESNETS:
        model["init"] = "normal"
    found.values["model"] = own | model


def _head(theirs: _Theirs, found: Conversion) -> None:
    margins = theirs.get("margin_list", list)
    place = theirs.place("margin_list")
    numbers = all(isinstance(m, _REAL) and not isinstance(m, bool) for m in margins)
    if len(margins) != 3 or not numbers:
        raise ValueError(f"{place}: margin_list must be three numbers, got {margins!r}.")
    m1, m2, m3 = margins
    if m3 > 0:
        margin: dict[str, Any] = {"m2": 0.0, "m3": m3, "s": 64}
        if m1 != 1 or m2 != 0:
            found.lost.append(
                f"config.margin_list ({place}): beside m3 its loss reads neither m1 nor m2"
            )
    elif m1 == 1 and m3 == 0:
        margin = {"m2": m2, "s": 64, "extension": "raw"}
    else:
        raise ValueError(f"{place}: margin_list {margins} is one at which its loss stops.")
    rate = theirs.get("sample_rate", _REAL)
    head = {"margin": margin | {"gradient": "straight_through"}, "mma_weight": 0.0}
    if rate < 1:
        # Its 0 is the classes of the batch alone.
        head |= {"sample_rate": rate or 1e-9, "sample_dense": True}
    threshold = theirs.get("interclass_filtering_threshold", _REAL)
    if threshold > 0:
        head["filter_threshold"] = threshold
        found.by_hand.append(
            "head.filter_threshold leaves such classes out; arcface_torch gives them the logit 0"
        )
    found.values["head"] = head
    found.by_hand.append("head.mma_weight is 0, as arcface_torch has no MMA; 0.03 is ArcFace+")


def _optimizer(theirs: _Theirs, found: Conversion) -> None:
    kind = theirs.get("optimizer", str)
    if kind not in ("sgd", "adamw"):
        raise ValueError(f"{theirs.place('optimizer')}: optimizer {kind!r} is none of its two.")
    optim = {"kind": kind, "lr": theirs.get("lr", _REAL)}
    optim |= {"weight_decay": theirs.get("weight_decay", _REAL), "decay": "all", "clip_norm": 5}
    if kind == "sgd":
        optim["momentum"] = 0.9
        if theirs.get("momentum", _REAL, 0.9) != 0.9:
            found.lost.append(
                f"config.momentum ({theirs.place('momentum')}): train_v2.py takes 0.9 whatever it "
                "says"
            )
    else:
        theirs.asked.add("momentum")  # base.py has one for every optimizer
    found.values["optim"] = optim
    found.by_hand.append("optim.clip_norm is of all parameters; arcface_torch clips the net alone")


def _durations(theirs: _Theirs, found: Conversion, gpus: int) -> None:
    """Count steps as train_v2.py does: ``num_image // batch`` an epoch."""
    parts, images = theirs.get("gradient_acc", int), theirs.get("num_image", int)
    each = theirs.get("batch_size", int)
    if parts < 1 or each < 1 or images < each * gpus:
        raise ValueError(
            f"{theirs.path}: num_image {images}, batch_size {each} on {gpus} GPUs and gradient_acc "
            f"{parts} make no step."
        )
    in_an_epoch = images // (each * gpus)
    epochs, warmup = theirs.get("num_epoch", int), theirs.get("warmup_epoch", int)
    train = {
        "steps": in_an_epoch * epochs // parts,
        "global_batch": each * gpus * parts,
        "accumulate": parts,
        "precision": "fp16" if theirs.get("fp16", bool) else "tf32",
        "log_every": max(1, theirs.get("frequent", int) // parts),
    }
    found.values["schedule"] = {
        "kind": "polynomial",
        "power": 1,
        "warmup_steps": max(0, in_an_epoch * warmup // parts),
    }
    found.values["train"] = train
    every = max(1, theirs.get("verbose", int) // parts)
    if "evaluation" in found.values:
        found.values["evaluation"]["every"] = every
    found.by_hand.append(
        f"train.global_batch is {train['global_batch']}: batch_size {each} on {gpus} GPUs"
        + (f", {parts} times" if parts > 1 else "")
        + "; --gpus says another number, on which steps depend too"
    )
    if train["precision"] == "tf32":
        found.by_hand.append("train.precision is tf32, what torch convolves in; older GPUs: fp32")
    if parts > 1:
        found.by_hand.append(
            "train.accumulate takes the mean over the parts; arcface_torch takes their sum"
        )


def write_converted(found: Conversion, source: Path, path: Path) -> None:
    """Write ``found`` as YAML that the loader accepts. Raises ValueError where ``path`` exists."""
    if path.exists():
        raise ValueError(f"{path} exists; choose another place, or remove it.")
    head = f"# Converted from arcface_torch's {source.name} by arcface-plus configs convert.\n"
    with written_beside(path) as beside:
        beside.write_text(head + yaml.safe_dump(found.values, sort_keys=False), encoding="utf-8")
