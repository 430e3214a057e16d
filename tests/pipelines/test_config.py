"""The one configuration: layers, precedence, and a clear line for every mistake."""

from pathlib import Path

import pytest

from pipelines.config import load_config
from serving.platform.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "pipeline_config.yaml"


def test_precedence_is_file_profile_environment_set(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("base: {train: {epochs: 1, batch_size: 2}}\nprofiles: {p: {train: {epochs: 3}}, q: {}}\n")
    assert load_config("q", file=file, environ={}).train.epochs == 1
    assert load_config("p", file=file, environ={}).train.epochs == 3
    environ = {"AIDETECT_TRAIN__EPOCHS": "5", "AIDETECT_API_KEY": "no key of the file"}
    assert load_config("p", file=file, environ=environ).train.epochs == 5
    config = load_config("p", ["train.epochs=7"], file, environ)
    assert (config.train.epochs, config.train.batch_size) == (7, 2)


@pytest.mark.parametrize("profile", ["sample", "local", "production"])
def test_shipped_profiles_are_valid(profile: str) -> None:
    config = load_config(profile, file=FILE, environ={})
    assert (config.gate.min_accuracy, config.gate.min_f1) == (0.85, 0.80)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.epoch=3", "train.epoch: unknown key; did you mean 'train.epochs'?"),
        ("trian.epochs=3", "trian: unknown key; did you mean 'train'?"),
        ("train.epochs=many", "train.epochs: input should be a valid integer"),
        ("train.epochs=0", "train.epochs: input should be greater than or equal to 1"),
        ("train=3", "train: a section, which has keys and no value; set one of them, e.g. train.architecture (got 3)"),
        ("gate=", "gate: a section, which has keys and no value; set one of them, e.g. gate.min_accuracy (got '')"),
        (
            "train.augment=no",
            "train.augment: a section, which has keys and no value; set one of them, e.g. train.augment.",
        ),
        ("train=null", "(got nothing)"),
        ("data.labels=x", "data.labels: names with values are wanted here: {name: value} (got 'x')"),
        ("vertex.labels={team: 1}", "vertex.labels.team: a text is wanted here; put it in quotes (got 1)"),
        ("gate.report_only=fpr", "gate.report_only: a list is wanted here: [a, b] (got 'fpr')"),
        ("deploy.auto=maybe", "deploy.auto: true or false is wanted here (got 'maybe')"),
        ("train..epochs=3", "train..epochs: a part of the name is empty; write it as section.key"),
        ("TRAIN.epochs=3", "TRAIN: unknown key; did you mean 'train'?"),
        ("train.epochs=2026-02-31", "the value is not valid YAML"),
        ("data.labels={a: real, a: real}", "the value is not valid YAML: the key 'a' stands there twice; keep one"),
        ("data.uri.deep=3", "data.uri.deep: 'uri' is a value, not a section"),
        ("train.epochs", "write it as section.key=value"),
        ("train.epochs=[", "the value is not valid YAML"),
    ],
)
def test_mistakes_in_set_name_the_key(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_config("sample", [override], FILE, {})
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_mistakes_in_the_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        load_config(file=tmp_path / "none.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("base: [")
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_config(file=broken)
    broken.write_text("epochs: 3")
    with pytest.raises(ConfigError, match="expected the two sections"):
        load_config(file=broken)
    with pytest.raises(ConfigError, match=r"unknown profile 'staging'.*sample, local, production"):
        load_config("staging", file=FILE)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("base: " + "[" * 20_000, "nested too deeply"),
        ("base: &a {train: *a}\nprofiles: {sample: *a}", "holds itself by an anchor"),
        ("base: 5\nprofiles: {sample: {}}", "`base` holds 5, not sections"),
        ("profiles: [sample]", "`profiles` holds ['sample'], not sections"),
        ("profiles: {sample: [1]}", "`profiles.sample` holds [1], not sections"),
        ("#" * 2_000_000, "more than 1 MiB"),
        (
            "base:\n  train: {epochs: 3}\n  train: {epochs: 4}\n",
            "the key 'train' stands there twice; keep one at line 3",
        ),
        ("base: {train: {epochs: 3, epochs: 3}}", "the key 'epochs' stands there twice"),
        ("base: {}\nprofiles: {sample: {}, 'sample': {}}", "the key 'sample' stands there twice"),
        ("base:\n\ttrain: {}", "indent by spaces, not by tabs"),
        ("base: {}\nprofiles: {1: {}}", "profiles.1: names are texts; put it in quotes"),
        ("base: {on: {}}\nprofiles: {sample: {}}", "names are texts; put it in quotes (got True)"),
        ("base: {train: }\nprofiles: {sample: {}}", "train: a section, which has keys and no value"),
        ("base: {train: {epochs: " + "9" * 5000 + "}}", "a number of thousands of digits"),
        (
            "base: {train: {epochs: &a [x, x]}}\nprofiles: {sample: {train: {epochs: [*a, *a]}}}".replace(
                "&a [x, x]", "&a " + "[" * 40 + "]" * 40
            ),
            "train.epochs: input should be a valid integer (got [[[[",
        ),
    ],
)
def test_a_file_that_is_no_configuration_is_one_short_line(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as error:
        load_config("sample", file=file, environ={})
    assert message in str(error.value)
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


@pytest.mark.parametrize("value", ["[" * 5_000, "{a: " * 3_000])
def test_a_value_that_is_nested_for_ever_is_refused(value: str) -> None:
    with pytest.raises(ConfigError, match="the value is not valid YAML"):
        load_config("sample", file=FILE, environ={"AIDETECT_TRAIN__EPOCHS": value})


def test_unknown_environment_key_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"train\.epoch: unknown key"):
        load_config("sample", file=FILE, environ={"AIDETECT_TRAIN__EPOCH": "3"})
