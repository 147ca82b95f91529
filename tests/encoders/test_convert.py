"""Tables of keys are read in both directions, and refuse what they do not know."""

import pytest
import torch

from sonorant.core.errors import CheckpointError, ConfigError
from sonorant.encoders.convert import Change, KeyTable, check_fixed, columns_turned, under_prefix

SQUEEZE = Change(lambda t: t.squeeze(-1), lambda t: t.unsqueeze(-1))
TABLE = KeyTable(
    [
        ("l.{}.q.{}", "blocks.{}.qkv.{}#0"),
        ("l.{}.k.{}", "blocks.{}.qkv.{}#1"),
        ("l.{}.v.{}", "blocks.{}.qkv.{}#2"),
        ("l.{}.point.weight", "blocks.{}.point.weight", SQUEEZE),
        ("pos.parametrizations.weight.{}", "pos.norm.{}"),
        ("pos.weight_g", "pos.norm.original0"),
    ],
    dropped={"quantizer.*": "pre-training"},
    kept={"mask_emb": "mask"},
    absent=("blocks.{}.qkv.bias#1",),
)


def theirs() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    names = {f"l.{i}.{part}.weight": (3, 3) for i in range(12) for part in "qkv"}
    names |= {f"l.{i}.{part}.bias": (3,) for i in range(12) for part in "qv"}
    names |= {"l.3.point.weight": (3, 3, 1), "pos.parametrizations.weight.original0": (2,)}
    return {name: torch.randn(shape) for name, shape in names.items()}


def test_there_and_back() -> None:
    weights = theirs()
    found = TABLE.to_ours({**weights, "quantizer.a.b": torch.zeros(1), "mask_emb": torch.ones(2)})
    assert found.dropped == {"pre-training": ["quantizer.a.b"]}
    assert found.kept["mask"].tolist() == [1, 1]
    own = found.weights
    assert own["blocks.11.qkv.weight"].shape == (9, 3)
    assert own["blocks.3.point.weight"].shape == (3, 3)
    assert not own["blocks.5.qkv.bias"][3:6].any()  # keys without a bias
    assert torch.equal(own["blocks.5.qkv.bias"][6:], weights["l.5.v.bias"])
    back = TABLE.to_theirs(own, found.kept)
    assert back.pop("mask_emb").tolist() == [1, 1]
    assert set(back) == set(weights)
    assert all(torch.equal(back[name], tensor) for name, tensor in weights.items())
    assert len({tensor.untyped_storage().data_ptr() for tensor in back.values()}) == len(back)


def test_older_names_are_read_and_not_written() -> None:
    found = TABLE.to_ours({"pos.weight_g": torch.ones(2)}).weights
    assert list(found) == ["pos.norm.original0"]
    assert list(TABLE.to_theirs(found)) == ["pos.parametrizations.weight.original0"]
    both = {"pos.weight_g": torch.ones(2), "pos.parametrizations.weight.original0": torch.ones(2)}
    with pytest.raises(CheckpointError, match="two keys stand for 'pos.norm.original0'"):
        TABLE.to_ours(both)


def test_keys_left_over_are_errors() -> None:
    with pytest.raises(CheckpointError, match=r"x.pt: no rule for 1 keys, such as l.0.adapter.weight"):
        TABLE.to_ours({**theirs(), "l.0.adapter.weight": torch.zeros(1)}, "x.pt")
    weights = theirs()
    del weights["l.7.v.bias"]
    with pytest.raises(CheckpointError, match=r"'blocks.7.qkv.bias' needs queries, keys and values .* part 2"):
        TABLE.to_ours(weights)
    with pytest.raises(CheckpointError, match="1 of our weights have no name there, such as head.weight"):
        TABLE.to_theirs({"head.weight": torch.zeros(1)})


def test_tensors_of_another_size_are_errors() -> None:
    with pytest.raises(
        CheckpointError, match=r"parts of 'blocks.4.qkv.weight' must be equally wide, got \(3, 3\), \(3, 2\)"
    ):
        TABLE.to_ours({**theirs(), "l.4.k.weight": torch.zeros(3, 2)}, "x.pt")
    table = KeyTable([("pos", "pos", columns_turned(4))])
    with pytest.raises(CheckpointError, match=r"x.pt: 'pos' has the size \(3, 6\), .* configuration belong together"):
        table.to_ours({"pos": torch.zeros(3, 6)}, "x.pt")
    assert table.to_ours({"pos": torch.zeros(3, 8)}).weights["pos"].shape == (3, 8)


def test_parts_of_tables() -> None:
    turn, matrix = columns_turned(2), torch.arange(6.0)[None]
    assert turn.ours(matrix).tolist() == [[0, 3, 1, 4, 2, 5]]
    assert torch.equal(turn.theirs(turn.ours(matrix)), matrix)
    inner, heads = under_prefix({"w.a": torch.zeros(1), "head": torch.zeros(1)}, "w")
    assert (list(inner), list(heads)) == (["a"], ["head"])
    assert under_prefix({"a": torch.zeros(1)}, "w")[1] == {}
    with pytest.raises(ConfigError, match="a toy encoder with act='relu' is not known here, only 'gelu'"):
        check_fixed({"act": "relu"}, {"act": "gelu"}, "toy")
