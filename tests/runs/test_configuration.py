"""Every setting: what is accepted, what is refused, and how an error says where it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from arcface_plus.evaluation.settings import PairSetConfig
from arcface_plus.losses.margins.magface import MagFace
from arcface_plus.runs.configuration import RunConfig, load_config
from arcface_plus.settings import parse_overrides

BASE = "name: a\ndata: {source: synthetic, num_classes: 10}\n"


@pytest.fixture
def load(tmp_path: Path):
    """Load BASE plus some lines, with overrides."""

    def load(text: str = "", *overrides: str, base: str = BASE) -> RunConfig:
        path = tmp_path / "run.yaml"
        path.write_text(base + text, encoding="utf-8")
        return load_config(path, overrides)

    return load


@pytest.fixture
def refusal(load):
    """Return the message that a bad configuration is refused with."""

    def refusal(text: str = "", *overrides: str, base: str = BASE) -> str:
        with pytest.raises(ValueError) as caught:
            load(text, *overrides, base=base)
        return str(caught.value)

    return refusal


def test_defaults_are_those_of_the_paper(load):
    config = load()
    assert (config.train.steps, config.train.global_batch) == (38_000, 440)
    assert (config.optim.lr, config.optim.momentum, config.optim.weight_decay) == (0.1, 0.9, 5e-4)
    assert (config.head.mma_weight, config.head.margin.m2, config.head.margin.s) == (0.03, 0.5, 64)
    assert config.model.name == "iresnet50"
    assert config.model.embedding_dim is None  # the net's own, which is 512
    assert (config.model.mean, config.model.std) == (127.5, 128.0)


# -- unknown and repeated keys -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "key", "nearest"),
    [
        ("optim: {lrr: 1}", "optim.lrr", "optim.lr"),
        ("optim:\n  weight-decay: 1", "optim.weight-decay", "optim.weight_decay"),
        ("train: {global_batchsize: 1}", "train.global_batchsize", "train.global_batch"),
        ("sed: 1", "sed", "seed"),
        ("head: {margin: {m22: 1}}", "head.margin.m22", "head.margin.m2"),
        # The very word in another section beats a similar word in this one.
        ("lr: 1", "lr", "optim.lr"),
        ("schedule: {steps: 9}", "schedule.steps", "train.steps"),
        ("model: {flip: 0.5}", "model.flip", "data.augment.flip"),
        # Pair sets are sections too, under names that are free.
        (
            "evaluation: {sets: {lfw: {pth: x}}}",
            "evaluation.sets.lfw.pth",
            "evaluation.sets.lfw.path",
        ),
    ],
)
def test_unknown_key_names_the_nearest(refusal, text, key, nearest):
    assert f"unknown key '{key}'; did you mean '{nearest}'?" in refusal(text)


def test_unknown_key_like_none_lists_those_there_are(refusal):
    message = refusal("optim: {qqqq: 1}")
    assert "known keys here: kind, lr, momentum, betas, eps, weight_decay" in message


def test_unknown_key_names_file_and_line(refusal, tmp_path):
    text = "optim:\n  lr: 0.1\n  momentun: 0.9\n"
    assert refusal(text).startswith(f"{tmp_path / 'run.yaml'}:5: unknown key 'optim.momentun'")


def test_unknown_key_of_an_override_names_the_override(refusal):
    assert refusal("", "--optim.lrr", "1").startswith("--optim.lrr: unknown key 'optim.lrr'")


@pytest.mark.parametrize(
    ("text", "line", "key"),
    [("seed: 1\nseed: 1\n", 4, "seed"), ("optim:\n  lr: 1\n  lr: 2\n", 5, "optim.lr")],
)
def test_key_given_twice(refusal, text, line, key):
    assert f"run.yaml:{line}: key '{key}' is given twice." in refusal(text)


def test_all_problems_come_at_once(refusal):
    message = refusal("optim: {lrr: 1, lr: -1}\nseed: 1\nseed: 2\ntrain: {steps: 0}\n")
    for part in ("unknown key 'optim.lrr'", "optim.lr:", "'seed' is given twice", "train.steps:"):
        assert part in message
    assert "Extra inputs" not in message  # said once, in our words


# -- values --------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["1e-3", "1.0e-3", "0.001", ".001", "1E-3"])
def test_every_way_to_write_a_small_number(load, text):
    assert load(f"optim: {{lr: {text}}}").optim.lr == 0.001
    assert load("", "--optim.lr", text).optim.lr == 0.001


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("optim: {lr: 0}", "optim.lr"),
        ("optim: {lr: .nan}", "optim.lr"),
        ("optim: {lr: .inf}", "optim.lr"),
        ("optim: {lr: yes}", "optim.lr"),
        ("train: {steps: true}", "train.steps"),
        ("train: {steps: 1.5}", "train.steps"),
        ("train: {device: gpu}", "train.device"),
        ("model: {dropout: 1}", "model.dropout"),
        ("head: {sample_rate: 0}", "head.sample_rate"),
        ("head: {margin: {extension: soft}}", "head.margin.extension"),
        ("data: {source: synthetic, num_classes: 2, augment: {flip: 2}}", "data.augment.flip"),
        ("seed: -1", "seed"),
        (f"seed: {2**31}", "seed"),
        ("model:\n", "model"),
    ],
)
def test_bad_value_names_line_key_and_value(refusal, text, key):
    base = "name: a\n" if text.startswith("data") else BASE
    message = refusal(text, base=base)
    line = base.count("\n") + 1
    assert f"run.yaml:{line}: {key}:" in message and "(got " in message


def test_yes_is_still_a_value_of_switches(load):
    config = load("train: {channels_last: no}", "--evaluation.at_start", "yes")
    assert config.train.channels_last is False and config.evaluation.at_start is True


@pytest.mark.parametrize("name", ["../x", "a/b", ".hidden", "", "a b", "-x", '"a\\n"', "123"])
def test_name_is_one_plain_folder_name(refusal, name):
    assert "name:" in refusal(
        "", base=f"name: {name}\ndata: {{source: synthetic, num_classes: 9}}\n"
    )


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("{source: records}", "needs a path"),
        ("{source: folder}", "needs a path"),
        ("{source: orl}", "needs people"),
        ("{source: synthetic}", "needs num_classes"),
        ("{source: orl, people: [30, 1]}", "first person, then the last"),
        ("{source: orl, people: [1]}", "data.people.1"),
        ("{source: webdataset}", "'records', 'folder', 'orl', 'synthetic', 'cifar10'"),
        ("{source: cifar10}", "source: cifar10 needs a path"),
        ("{source: cifar100}", "source: cifar100 needs a path"),
        ("{source: tiny_imagenet}", "source: tiny_imagenet needs a path"),
        ("{source: digits, path: x}", "digits comes with scikit-learn; remove path"),
        ("{source: digits, holdout: 0.1}", "holdout is for source: folder, not digits"),
        ("{source: folder, path: x, holdout: 1}", "data.holdout"),
        ("{source: folder, path: x, holdout: -0.1}", "data.holdout"),
        ("{source: digits, size: 16, augment: {pad_crop: 16}}", "must be below size (16)"),
        ("{source: digits, augment: {pad_crop: -1}}", "data.augment.pad_crop"),
        ("{source: digits, augment: {auto_augment: svhn}}", "data.augment.auto_augment"),
    ],
)
def test_source_needs_what_it_needs(refusal, data, words):
    assert words in refusal("", base=f"name: a\ndata: {data}\n")


def test_classification_data(load):
    text = "{source: cifar100, path: c, size: 32, augment: {pad_crop: 4, auto_augment: cifar10}}"
    data = load("", base=f"name: a\ndata: {text}\n").data
    assert (data.source, data.path, data.holdout) == ("cifar100", Path("c"), 0.0)
    assert (data.augment.pad_crop, data.augment.auto_augment) == (4, "cifar10")
    assert load("", base="name: a\ndata: {source: digits}\n").data.path is None
    folder = load("", "--data.holdout", "0.2", base="name: a\ndata: {source: folder, path: x}\n")
    assert folder.data.holdout == 0.2


@pytest.mark.parametrize(
    ("augment", "words"),
    [
        ("{rotate: 10}", "affine, is 0"),
        ("{erase_area: [0.3, 0.1]}", "erase_area must be"),
        ("{erase_area: [0, 0.1]}", "erase_area must be"),
        ("{erase_area: [0.5, 1.5]}", "erase_area must be"),
    ],
)
def test_augmentation_that_cannot_be_meant(refusal, augment, words):
    data = f"data: {{source: synthetic, num_classes: 2, augment: {augment}}}\n"
    assert words in refusal("", base="name: a\n" + data)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("schedule: {milestones: [20, 10]}", "positive and increasing"),
        ("schedule: {milestones: [10, 10]}", "positive and increasing"),
        ("schedule: {milestones: [0]}", "positive and increasing"),
        ("schedule: {kind: cosine, milestones: [10]}", "do nothing with kind: cosine"),
        ("schedule: {warmup_steps: 9}\ntrain: {steps: 9}", "must be fewer than train.steps (9)"),
    ],
)
def test_schedule_that_cannot_be_meant(refusal, text, words):
    assert words in refusal(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "must hold a mapping"),
        ("- a\n", "must hold a mapping"),
        ("a: [\n", "is not YAML"),
        ("a: 1\n---\nb: 2\n", "is not YAML"),
        (BASE + "seed: !!python/object/apply:os.getpid []\n", "could not determine a constructor"),
        (BASE + "seed: !foo 3\n", "could not determine a constructor"),
        (BASE + "seed: 2024-13-45\n", "run.yaml:3: month must be"),
        (BASE + "optim: &a {lr: *a}\n", "anchor contains itself"),
        (BASE + "seed: &a [*a]\n", "anchor contains itself"),
        (BASE + "? [1, 2]\n: 3\n", "run.yaml:3: a key must be a word"),
        (BASE + "train: {steps: 9e999 epochs}\n", "run.yaml: "),
        (BASE + "train: 3\noptim: {lr: 0.1 per 512 images}\n", "run.yaml:3: train"),
        (BASE + "train: {steps: many}\n", "run.yaml:3: train.steps: must be a number of steps"),
        (BASE + f"seed: 1{':1' * 3000}\n", "run.yaml:3: a value has more than 4096 letters"),
        (BASE + f"seed: {'[' * 25}{']' * 25}\n", "run.yaml:3: a value .* more than 20 deep"),
        (BASE + f"seed: {'[' * 5000}\n", "run.yaml is nested too deep"),
        (BASE + f"# {'x' * 2**20}\n", "run.yaml is longer than the 1048576 bytes"),
        (BASE + f"seed: [{'1, ' * 10_000}]\n", "over 10000 values"),
    ],
)
def test_not_the_yaml_we_want(refusal, text, words):
    assert re.search(words, refusal("", base=text))


@pytest.mark.parametrize("form", ["{x: *%s, y: *%s}", "[*%s, *%s]"])
def test_aliases_of_aliases_are_counted_before_they_are_followed(refusal, form):
    """Fifty lines would be 2^50 values."""
    lines = ["a0: &a0 1"]
    lines += [f"a{i}: &a{i} " + form % (f"a{i - 1}", f"a{i - 1}") for i in range(1, 15)]
    assert "over 10000 values" in refusal("", base="\n".join(lines) + "\n")
    lines += [f"a{i}: &a{i} " + form % (f"a{i - 1}", f"a{i - 1}") for i in range(15, 50)]
    assert "over 10000 values" in refusal("", base="\n".join(lines) + "\n")


def test_file_that_is_not_text(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_bytes(b"name: \xff\xfe\n")
    with pytest.raises(ValueError, match="is not YAML"):
        load_config(path)


def test_missing_file_says_where_examples_are(tmp_path):
    with pytest.raises(FileNotFoundError, match="arcface-plus configs"):
        load_config(tmp_path / "no.yaml")


# -- overrides -----------------------------------------------------------------------------------


def test_forms_of_an_override():
    words = ["--a.b", "1", "--c=2", "--d.e", "-0.5", "--f=-3", "--g", "[1, 2]", "--h=a=b", "--i="]
    assert parse_overrides(words) == [
        (("a", "b"), 1),
        (("c",), 2),
        (("d", "e"), -0.5),
        (("f",), -3),
        (("g",), [1, 2]),
        (("h",), "a=b"),
        (("i",), None),
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--a"], "--a has no value"),
        (["--a", "--b", "1"], "--a has no value"),
        (["a", "1"], "'a' is not an override"),
        (["-a", "1"], "'-a' is not an override"),
        (["--"], "'--' is not an override"),
        (["--a", "1", "2"], "'2' is not an override"),
        (["--a", "[1"], "--a \\[1: the value is not YAML"),
        (["--a=!x 1"], "the value is not YAML"),
        (["--a", "2024-13-45"], "the value is not YAML"),
    ],
)
def test_what_is_not_an_override(words, message):
    with pytest.raises(ValueError, match=message):
        parse_overrides(words)


def test_overrides_reach_the_configuration(load):
    config = load(
        "optim: {lr: 0.1}",
        *("--optim.lr", "0.05", "--train.steps=7", "--schedule.milestones", "[3, 5]"),
        *("--head.margin.m2=0.4", "--data.augment.flip", "0", "--optim.lr", "0.2"),
    )
    assert config.optim.lr == 0.2  # the last word counts
    assert config.train.steps == 7 and config.schedule.milestones == (3, 5)
    assert config.head.margin.m2 == 0.4 and config.head.margin.s == 64
    assert config.data.augment.flip == 0 and config.data.num_classes == 10


def test_override_with_null_takes_a_setting_back(load):
    assert load("optim: {clip_norm: 5}", "--optim.clip_norm", "null").optim.clip_norm is None
    assert load("optim: {clip_norm: 5}", "--optim.clip_norm=").optim.clip_norm is None


def test_bad_override_is_named_rather_than_the_file(refusal):
    message = refusal("optim: {lr: 0.1}", "--optim.lr", "-1")
    assert message.startswith("--optim.lr: optim.lr:") and "(got -1)" in message


def test_override_below_a_value_is_refused(refusal):
    assert refusal("optim: {lr: 0.1}", "--optim.lr.warm", "1").startswith("--optim.lr.warm:")


def test_pair_sets_are_paths_or_sections(load):
    config = load("evaluation: {sets: {lfw: a.bin, cfp: {path: pairs.txt, root: images}}}")
    assert config.evaluation.sets == {
        "lfw": PairSetConfig(path=Path("a.bin")),
        "cfp": PairSetConfig(path=Path("pairs.txt"), root=Path("images")),
    }


def test_bare_path_gives_way_to_overrides_of_its_keys(load):
    sets = load(
        "evaluation: {sets: {lfw: a.bin}}",
        *("--evaluation.sets.lfw.orl", "[31, 40]", "--evaluation.sets.new", "b.bin"),
    ).evaluation.sets
    assert sets["lfw"] == PairSetConfig(orl=(31, 40))
    assert sets["new"] == PairSetConfig(path=Path("b.bin"))


@pytest.mark.parametrize("one", ["{path: a.bin, orl: [1, 2]}", "{root: x}", "{}"])
def test_pair_set_is_exactly_one_thing(refusal, one):
    assert "exactly one of path and orl" in refusal(f"evaluation: {{sets: {{lfw: {one}}}}}")


# -- the whole -----------------------------------------------------------------------------------


def test_sections_never_change(load):
    config = load()
    with pytest.raises(ValidationError):
        config.optim.lr = 3
    with pytest.raises(ValidationError):
        config.seed = 3


def test_yaml_loads_to_the_same_configuration(load, tmp_path):
    config = load(
        "output: /tmp/ä ö\n"
        "evaluation: {sets: {'007': a.bin, 'null': {orl: [31, 40]}, 'yes': 'b: c.bin'}}\n"
        "schedule: {milestones: [3, 5], gamma: 1e-05}\n"
        "optim: {weight_decay: 1e-20, clip_norm: 1e+20}\n",
    )
    path = tmp_path / "again.yaml"
    path.write_text(config.to_yaml(), encoding="utf-8")
    again = load_config(path)
    assert again == config
    assert list(again.evaluation.sets) == ["007", "null", "yes"]
    assert again.to_yaml() == config.to_yaml()


SHIPPED = sorted((Path(__file__).resolve().parents[2] / "configs").rglob("*.yaml"))


def test_configurations_are_shipped():
    assert {"casia_r50_arcface", "casia_r50_arcface_plus"} <= {path.stem for path in SHIPPED}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_configuration(path, tmp_path, monkeypatch):
    for person in "ab":  # own_faces counts in epochs, so it needs its images
        (tmp_path / "data" / "mine" / "train" / person).mkdir(parents=True)
        (tmp_path / "data" / "mine" / "train" / person / "1.jpg").touch()
    monkeypatch.chdir(tmp_path)
    config = load_config(path)
    assert config.name == path.stem
    again = tmp_path / path.name
    again.write_text(config.to_yaml(), encoding="utf-8")
    assert load_config(again) == config
    head = path.read_text(encoding="utf-8").split("\nname:")[0]
    for word in ("Command:", "Hardware:", "Expected:"):
        assert word in head, f"{path.name} does not say its {word}"


def test_plus_is_arcface_with_mma_and_nothing_else(repository):
    plain, plus = (
        load_config(repository / "configs" / f"{name}.yaml").model_dump()
        for name in ("casia_r50_arcface", "casia_r50_arcface_plus")
    )
    assert _differences(plain, plus) == {"name", "head.mma_weight"}
    assert plain["head"]["mma_weight"] == 0.0 and plus["head"]["mma_weight"] == 0.03


def _differences(a: dict, b: dict, path: str = "") -> set[str]:
    found = set()
    for key in a.keys() | b.keys():
        if isinstance(a.get(key), dict) and isinstance(b.get(key), dict):
            found |= _differences(a[key], b[key], f"{path}{key}.")
        elif a.get(key) != b.get(key):
            found.add(path + key)
    return found


def test_every_setting_with_a_default_survives_alone(load):
    """A file that writes out one default means the same as one that leaves it out."""
    config = load()
    plain = yaml.safe_load(config.to_yaml())
    for section in ("model", "head", "optim", "schedule", "train", "evaluation"):
        for key, value in plain[section].items():
            assert (
                load("", base=yaml.safe_dump({**yaml.safe_load(BASE), section: {key: value}}))
                == config
            )


# -- bases ---------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path):
    """``files(a="…", b="…")`` writes a.yaml, b.yaml and returns the folder."""

    def write(**texts: str) -> Path:
        for name, text in texts.items():
            (tmp_path / f"{name}.yaml").write_text(text)
        return tmp_path

    return write


def test_a_file_states_its_difference_from_its_base(files):
    folder = files(
        a=BASE + "optim: {lr: 0.2, clip_norm: 5}\nhead: {adaptive: {kind: adaface, m: 0.3}}\n",
        b="base: a.yaml\nname: b\noptim: {clip_norm: null}\nhead: {adaptive: {h: 0.5}}\n",
        c="base: b.yaml\nname: c\nhead: {adaptive: {kind: magface}}\ndata: {num_classes: 7}\n",
    )
    b, c = (load_config(folder / f"{name}.yaml", ["--seed", "3"]) for name in "bc")
    assert (b.name, b.seed, b.optim.lr, b.optim.clip_norm) == ("b", 3, 0.2, None)
    assert (b.head.adaptive.m, b.head.adaptive.h) == (0.3, 0.5)
    # A mapping of another kind takes the place of the base's.
    assert c.head.adaptive == MagFace() and c.optim == b.optim
    assert (c.data.source, c.data.num_classes) == ("synthetic", 7)
    assert "base" not in c.to_yaml()


def test_errors_name_the_file_that_states_the_value(files):
    folder = files(a=BASE + "optim: {lr: -1}\n", b="base: a.yaml\noptim:\n  momentun: 1\n")
    with pytest.raises(ValueError) as caught:
        load_config(folder / "b.yaml")
    assert f"{folder / 'a.yaml'}:3: optim.lr:" in str(caught.value)
    assert f"{folder / 'b.yaml'}:3: unknown key 'optim.momentun'" in str(caught.value)


@pytest.mark.parametrize(
    ("base", "error", "words"),
    [
        ("b.yaml", ValueError, "leads back to this file"),
        ("../b.yaml", FileNotFoundError, "the base of"),
        ("[a.yaml]", ValueError, "b.yaml:1: base must be the path"),
    ],
)
def test_bad_base(files, base, error, words):
    folder = files(b=f"base: {base}\n")
    with pytest.raises(error, match=words):
        load_config(folder / "b.yaml")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--head.centres", "3", "--branch.enabled", "true"], "head.centres is 3"),
        (["--train.ema", "0.9", "--evaluation.accuracy", "true"], "train.ema averages the net"),
        (
            ["--optim.kind", "lamb", "--head.logits", "linear", "--head.bias", "true"],
            "head.bias is split among ranks",
        ),
        (["--train.ema", "1.0"], "train.ema"),
        (["--optim.kind", "adam"], "optim.kind"),
        (["--optim.betas", "[0.9, 1.0]"], "optim.betas"),
        (["--model.blocks", "[1, 2, 3]"], "model.blocks"),
    ],
)
def test_parts_that_do_not_go_together(refusal, words, message):
    assert message in refusal("", *words)
