from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from sonorant.core.config import (
    at_least,
    content_hash,
    describe,
    differences,
    from_plain,
    load_config,
    one_of,
    override,
    save_config,
    to_plain,
    within,
)
from sonorant.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Optim:
    lr: float = 1e-3
    """Peak learning rate."""
    betas: tuple[float, float] = (0.9, 0.98)
    kind: Literal["adamw", "sgd"] = "adamw"

    def __post_init__(self) -> None:
        within("lr", self.lr, 0, 1)


@dataclass(frozen=True, kw_only=True)
class Model:
    num_layers: int = 4
    """Blocks of the encoder,
    section 3."""
    name: str = "tiny"
    dropout: float | None = None
    steps: int | str = 3
    sizes: tuple[int, ...] = (1, 2)
    where: Path = Path("runs")
    fast: bool = False
    extra: dict[str, float] = field(default_factory=dict)
    optim: Optim = field(default_factory=Optim)


@dataclass(frozen=True, kw_only=True)
class Needs:
    corpus: str


def test_plain_values_make_the_round_trip() -> None:
    model = Model(num_layers=6, dropout=0.1, extra={"a": 1.0}, optim=Optim(lr=0.5, kind="sgd"))
    assert from_plain(Model, to_plain(model)) == model


@pytest.mark.parametrize("name", ["a.yaml", "a.json"])
def test_files_make_the_round_trip(tmp_path: Path, name: str) -> None:
    model = Model(name="é", sizes=())
    save_config(model, tmp_path / name)
    assert load_config(Model, tmp_path / name) == model


def test_unknown_key_names_the_nearest_and_the_list() -> None:
    with pytest.raises(ConfigError, match="unknown option 'num_layer'; did you mean 'num_layers'.*optim"):
        from_plain(Model, {"num_layer": 3})
    with pytest.raises(ConfigError, match="unknown option 'lrr'; did you mean 'lr'.*in 'optim'"):
        from_plain(Model, {"optim": {"lrr": 3}})
    with pytest.raises(ConfigError, match="unknown option 'optim.lrr'; did you mean 'optim.lr'"):
        override(Model(), {"optim.lrr": "3"})
    with pytest.raises(ConfigError, match="holds a plain value and has no fields"):
        override(Model(), {"name.size": "3"})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_layers": "four"}, "num_layers must be int, got 'four'"),
        ({"num_layers": True}, "num_layers must be int, got True"),
        ({"num_layers": 2.5}, "num_layers must be int"),
        ({"fast": 1}, "fast must be bool"),
        ({"sizes": 3}, "sizes must be tuple"),
        ({"sizes": ["x"]}, r"sizes\[0\] must be int"),
        ({"optim": {"betas": [1, 2, 3]}}, "optim.betas must hold 2 values, got 3"),
        ({"optim": {"kind": "adam"}}, "optim.kind: unknown value 'adam'; did you mean 'adamw'"),
        ({"optim": {"lr": 7}}, r"optim.lr must lie in \[0, 1\], got 7"),
        ({"optim": 3}, "optim must be a mapping"),
        ({"dropout": float("nan")}, "dropout must be"),
        ({"steps": [1]}, r"steps must be int or str, got \[1\]"),
    ],
)
def test_wrong_values_are_refused_by_name(values: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_plain(Model, values)


def test_a_field_without_default_must_be_given() -> None:
    with pytest.raises(ConfigError, match="Needs needs corpus"):
        from_plain(Needs, {})


@pytest.mark.parametrize(
    ("dotted", "text", "value"),
    [
        ("num_layers", "6", 6),
        ("num-layers", "6", 6),
        ("name", "7", "7"),
        ("dropout", "none", None),
        ("dropout", "1e-1", 0.1),
        ("sizes", "3,4", (3, 4)),
        ("sizes", "[3, 4]", (3, 4)),
        ("fast", "true", True),
        ("where", "a/b", Path("a/b")),
        ("extra", "{a: 2}", {"a": 2.0}),
    ],
)
def test_overrides_read_text_by_the_type_of_the_field(dotted: str, text: str, value: object) -> None:
    assert getattr(override(Model(), {dotted: text}), dotted.replace("-", "_")) == value


def test_an_override_keeps_what_it_does_not_name() -> None:
    changed = override(Model(num_layers=9), {"optim.lr": "1e-4"})
    assert (changed.num_layers, changed.optim.lr, changed.optim.kind) == (9, 1e-4, "adamw")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("num_layers: 1\nnum_layers: 2\n", "'num_layers' is given twice"),
        ("!!python/object/apply:os.system [echo]\n", "not plain YAML"),
        ("name: [", "not plain YAML"),
        ("- 1\n", "must be a mapping"),
    ],
)
def test_a_file_holds_plain_values_only(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_config(Model, tmp_path / "c.yaml")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no configuration file at .*none.yaml"):
        load_config(Model, tmp_path / "none.yaml")


def test_describe_lists_nested_fields_with_their_lines() -> None:
    rows = {row.name: row for row in describe(Model())}
    assert rows["num_layers"].doc == "Blocks of the encoder, section 3."
    assert rows["optim.lr"].default == 1e-3
    assert rows["optim.kind"].type == "adamw | sgd"


def test_differences_name_fields_and_both_values() -> None:
    left, right = to_plain(Model()), to_plain(Model(optim=Optim(lr=0.5)))
    assert differences(left, right) == [("optim.lr", 1e-3, 0.5)]
    assert differences({"a": 1}, {"b": 2}) == [("a", 1, "absent"), ("b", "absent", 2)]


def test_hash_depends_on_content_alone() -> None:
    assert content_hash(Model()) == content_hash(to_plain(Model()))
    assert content_hash(Model()) != content_hash(Model(num_layers=5))


def test_checks_name_the_field() -> None:
    with pytest.raises(ConfigError, match="x must be at least 1, got 0"):
        at_least("x", 0, 1)
    with pytest.raises(ConfigError, match="x must be at least 1, got nan"):
        at_least("x", float("nan"), 1)
    with pytest.raises(ConfigError, match="did you mean 'b'"):
        one_of("x", "bb", ["a", "b"])
    at_least("x", 1, 1)
    within("x", 0, 0, 1)
    one_of("x", "a", ["a"])


def test_several_values_are_given_one_by_one_or_with_commas() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Several:
        skip: tuple[str, ...] = ()
        sizes: tuple[int, ...] = (1,)
        span: tuple[float, str] = (0.5, "a")
        rate: float = 1.0

    assert override(Several(), {"skip": ["head.*", "*.bias"]}).skip == ("head.*", "*.bias")
    assert override(Several(), {"skip": "*.bias"}).skip == ("*.bias",)
    assert override(Several(), {"skip": "7"}).skip == ("7",)
    assert override(Several(), {"sizes": "2,3"}).sizes == override(Several(), {"sizes": ["2", "3"]}).sizes == (2, 3)
    assert override(Several(), {"sizes": "[4, 5]"}).sizes == (4, 5)
    assert override(Several(), {"span": "1e-3,b"}).span == (0.001, "b")
    with pytest.raises(ConfigError, match="rate takes one value of type float, got 2: 1, 2"):
        override(Several(), {"rate": ["1", "2"]})
