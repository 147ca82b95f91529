import json
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from sonorant.core.checkpoint import (
    MIGRATIONS,
    SCHEMA,
    checkpoint_digest,
    compare_weights,
    load_checkpoint,
    load_weights,
    save_checkpoint,
)
from sonorant.core.errors import CheckpointError

FROZEN = Path(__file__).parent / "frozen"


def model(vocab: int = 32, dim: int = 8) -> nn.Module:
    return nn.ModuleDict({"encoder": nn.Linear(4, dim), "head": nn.Linear(dim, vocab)})


def saved(folder: Path, vocab: int = 32) -> Path:
    extra = {"vocabulary": ["a", "b"]}
    return save_checkpoint(folder, kind="test", weights=model(vocab).state_dict(), config={"vocab": vocab}, extra=extra)


def test_round_trip_bit_for_bit(tmp_path: Path) -> None:
    source = model()
    save_checkpoint(
        tmp_path / "m", kind="test", weights=source.state_dict(), config={"vocab": 32}, extra={"labels": ["é"]}
    )
    found = load_checkpoint(tmp_path / "m", kind="test")
    assert (found.kind, found.config, found.extra) == ("test", {"vocab": 32}, {"labels": ["é"]})
    assert all(torch.equal(found.weights[name], tensor) for name, tensor in source.state_dict().items())


def test_tied_weights_survive(tmp_path: Path) -> None:
    shared = torch.randn(3, 3)
    save_checkpoint(tmp_path / "m", kind="t", weights={"a": shared, "b": shared, "c": shared.T}, config={})
    found = load_checkpoint(tmp_path / "m").weights
    assert torch.equal(found["a"], found["b"])
    assert torch.equal(found["c"], shared.T)


def test_geometry_report_names_sizes_and_the_option(tmp_path: Path) -> None:
    weights = load_checkpoint(saved(tmp_path / "m")).weights
    fresh = model(29)
    with pytest.raises(CheckpointError) as caught:
        load_weights(fresh, weights, where="runs/old")
    message = str(caught.value)
    assert "runs/old does not fit this model: 2 of the model's 4 tensors fit" in message
    assert "head.weight: checkpoint 32×8, model 29×8" in message
    assert "--init-from DIR --skip 'head.*'" in message


def test_the_option_of_the_report_works(tmp_path: Path) -> None:
    weights = load_checkpoint(saved(tmp_path / "m")).weights
    fresh = model(29)
    before = fresh["head"].weight.clone()
    patterns = compare_weights(fresh, weights).skip_patterns()
    report = load_weights(fresh, weights, skip=patterns)
    assert report.fits == ("encoder.weight", "encoder.bias")
    assert torch.equal(fresh["encoder"].weight, weights["encoder.weight"])
    assert torch.equal(fresh["head"].weight, before)


def test_nothing_is_loaded_when_something_does_not_fit(tmp_path: Path) -> None:
    weights = load_checkpoint(saved(tmp_path / "m")).weights
    fresh = model(29)
    before = {name: tensor.clone() for name, tensor in fresh.state_dict().items()}
    with pytest.raises(CheckpointError):
        load_weights(fresh, weights)
    assert all(torch.equal(before[name], tensor) for name, tensor in fresh.state_dict().items())


def test_missing_and_unexpected_tensors_are_listed() -> None:
    report = compare_weights({"a": torch.zeros(1), "b": torch.zeros(2)}, {"a": torch.zeros(1), "c": torch.zeros(3)})
    assert (report.fits, report.missing, report.unexpected) == (("a",), ("b",), ("c",))
    assert "b: not in the checkpoint" in report.message()
    assert "c: not in the model" in report.message()
    assert "Nothing fits" in compare_weights({"b": torch.zeros(2)}, {"b": torch.zeros(3)}).message()


def test_a_pattern_that_matches_nothing_is_an_error(tmp_path: Path) -> None:
    weights = load_checkpoint(saved(tmp_path / "m")).weights
    with pytest.raises(CheckpointError, match=r"'haed.\*' matches no tensor; the model's parts are encoder, head"):
        load_weights(model(), weights, skip=["haed.*"])


@pytest.mark.parametrize("fault", ["absent", "cut", "flipped", "json", "no weights", "newer", "kind"])
def test_a_damaged_checkpoint_says_how(tmp_path: Path, fault: str) -> None:
    folder = saved(tmp_path / "m")
    weights, meta = folder / "model.safetensors", folder / "checkpoint.json"
    data = bytearray(weights.read_bytes())
    if fault == "absent":
        shutil.rmtree(folder)
    elif fault == "cut":
        weights.write_bytes(data[: len(data) // 2])
    elif fault == "flipped":
        data[-1] ^= 1
        weights.write_bytes(data)
    elif fault == "json":
        meta.write_text(meta.read_text()[:40])
    elif fault == "no weights":
        weights.unlink()
    elif fault == "newer":
        meta.write_text(json.dumps({**json.loads(meta.read_text()), "schema": SCHEMA + 1}))
    expected = {
        "absent": "no checkpoint at",
        "cut": "cut short",
        "flipped": "checksum",
        "json": "damaged",
        "no weights": "but no model.safetensors",
        "newer": "upgrade",
        "kind": "kind 'test', expected 'other'",
    }[fault]
    with pytest.raises(CheckpointError, match=expected):
        load_checkpoint(folder, kind="other" if fault == "kind" else None)


def test_a_foreign_folder_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(CheckpointError, match="holds files that are no checkpoint"):
        saved(tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_every_old_schema_has_a_migration_and_a_frozen_file() -> None:
    assert sorted(MIGRATIONS) == list(range(1, SCHEMA))
    for schema in MIGRATIONS:
        assert (FROZEN / f"schema_{schema}" / "checkpoint.json").is_file()


def test_schema_1_opens() -> None:
    found = load_checkpoint(FROZEN / "schema_1")
    assert (found.kind, found.config, found.extra) == ("test", {"vocab": 3}, {"vocabulary": ["-", "a", "b"]})
    torch.testing.assert_close(found.weights["head.weight"], torch.arange(6.0).view(3, 2))


def test_a_digest_follows_the_content_and_not_the_place(tmp_path: Path) -> None:
    for name, value in (("a", 1.0), ("b", 1.0), ("c", 2.0)):
        save_checkpoint(tmp_path / name, kind="k", weights={"w": torch.tensor([value])}, config={"x": 1})
    save_checkpoint(tmp_path / "d", kind="k", weights={"w": torch.tensor([1.0])}, config={"x": 2})
    digests = [checkpoint_digest(tmp_path / name) for name in "abcd"]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3
    with pytest.raises(CheckpointError, match="no checkpoint"):
        checkpoint_digest(tmp_path / "absent")
