"""What the parity tests of transformers' waveform families share: equal items, where theirs needs no mask, all hidden states,
gradients, and the way there and back.
"""

from typing import Any

import torch

from sonorant.core.types import Features
from sonorant.encoders.convert import Foreign


def converted(kind: Foreign, theirs: Any, module: Any) -> Any:
    """Our encoder with their weights, after checking that the weights go back as they came."""
    config = kind.read(theirs.config.to_dict(), {})
    table, weights = kind.table(config), theirs.state_dict()
    found = table.to_ours(weights)
    back = table.to_theirs(found.weights, found.kept)
    lost = {name for reason, names in found.dropped.items() for name in names}
    assert set(back) == set(weights) - lost
    assert all(torch.equal(back[name], weights[name]) for name in back)
    written = kind.write(config)
    # By what is written alone: a field that is forgotten would be the default there.
    assert kind.read({"model_type": kind.name, **written}, {}) == config
    ours = module(config).eval()
    ours.load_state_dict(found.weights)
    return ours


def same_hidden_states(ours: Any, theirs: Any, values: torch.Tensor) -> None:
    """Two items of equal length: every layer, the result, and the gradient of the input."""
    left, right = values.clone().requires_grad_(), values.clone().requires_grad_()
    expected = theirs(left, output_hidden_states=True)
    lengths = torch.full((len(values),), values.shape[1])
    outputs: list[Features] = ours(right, lengths, layers=True)
    hidden = [*expected.hidden_states[: ours.num_layers], expected.last_hidden_state]
    assert len(outputs) == len(hidden)
    for own, other in zip(outputs, hidden, strict=True):
        torch.testing.assert_close(own.values, other, atol=1e-4, rtol=0)
    weights = torch.randn_like(hidden[-1])
    (outputs[-1].values * weights).sum().backward()
    (hidden[-1] * weights).sum().backward()
    assert left.grad is not None
    torch.testing.assert_close(right.grad, left.grad, atol=1e-4, rtol=1e-3)
