import pytest
import torch

from sonorant.benchmark.linear import fit_linear, fit_path
from sonorant.core.errors import DataError


def clouds(count: int, spread: float = 1.0, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Three clouds in a space whose axes are of very different widths."""
    draws = torch.Generator().manual_seed(seed)
    labels = torch.randint(3, (count,), generator=draws)
    centres = torch.tensor([[0.0, 0, 0, 0], [2, 0, 1, 0], [0, 2, -1, 0]])
    values = centres[labels] + spread * torch.randn(count, 4, generator=draws)
    mixing = torch.tensor([[1.0, 0.9, 0, 0], [0, 1, 0.9, 0], [0, 0, 1, 0.9], [0, 0, 0, 1]])
    return (values @ mixing) * torch.tensor([100.0, 1.0, 0.01, 5.0]) + 7.0, labels


@pytest.mark.parametrize("ridge", [1.0, 0.01, 1e-4])
def test_the_minimum_is_scikit_learns(ridge: float) -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    values, labels = clouds(400)
    (model,) = fit_path(values, labels, 3, [ridge], steps=60)
    # Features whose mean lies far from 0 lose digits in float32: compare on the same standardised ones.
    standard = ((values - model.mean) * model.scale).double().numpy()
    theirs = linear.LogisticRegression(C=1 / (ridge * len(values)), tol=1e-8, max_iter=2000).fit(
        standard, labels.numpy()
    )
    ours = model(values).log_softmax(-1).double().numpy()
    assert abs(ours - theirs.predict_log_proba(standard)).max() < 2e-3


def test_a_path_ends_where_its_last_fit_alone_would() -> None:
    values, labels = clouds(300)
    whole, alone = fit_path(values, labels, 3, [1.0, 0.1, 0.01])[-1], fit_path(values, labels, 3, [0.01], steps=60)[0]
    assert torch.allclose(whole(values).softmax(-1), alone(values).softmax(-1), atol=2e-3)
    assert torch.equal(fit_path(values, labels, 3, [0.1])[0].weight, fit_path(values, labels, 3, [0.1])[0].weight)


def test_the_penalty_is_chosen_on_other_data_and_what_is_noise_is_not_learnt() -> None:
    draws = torch.Generator().manual_seed(1)
    (train, labels), (dev, wanted) = clouds(60), clouds(500, seed=5)
    noise = [torch.cat([x, torch.randn(len(x), 200, generator=draws)], dim=1) for x in (train, dev)]
    model, accuracy = fit_linear(noise[0], labels, noise[1], wanted, 3)
    path = fit_path(noise[0], labels, 3)
    right = [float((other.predict(noise[1]) == wanted).float().mean()) for other in path]
    assert accuracy == max(right) > 0.4
    assert torch.equal(model.weight, path[right.index(max(right))].weight)


def test_constant_features_unseen_classes_and_half_precision_are_taken() -> None:
    values, labels = clouds(200)
    values = torch.cat([values / 50, torch.full((200, 1), 3.0)], dim=1)
    for model in fit_path(values.half(), labels, 5):
        assert set(model.predict(values.half()).tolist()) <= {0, 1, 2}
    with pytest.raises(DataError, match="finite"):
        fit_path(values * torch.nan, labels, 3)
    with pytest.raises(DataError, match="got none"):
        fit_path(values[:0], labels[:0], 3)
