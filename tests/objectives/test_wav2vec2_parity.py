"""wav2vec 2.0 whole: transformers' model for pre-training with its weights in ours, on our masks and negatives."""

import pytest
import torch

from sonorant.core.seed import item_seeds
from sonorant.core.types import Batch
from sonorant.encoders.keys.wav2vec2 import WAV2VEC2
from sonorant.encoders.wav2vec2 import Wav2Vec2
from sonorant.losses.contrastive import negatives_within
from sonorant.nn.masking import hidden_first
from sonorant.objectives.contrastive import Wav2Vec2Objective, wav2vec2_objective


def theirs() -> torch.nn.Module:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.Wav2Vec2Config(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48, conv_dim=(16,) * 7,
        num_codevectors_per_group=6, num_codevector_groups=2, codevector_dim=16, proj_codevector_dim=12,
        num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=2, num_negatives=11, diversity_loss_weight=0.0,
    )  # fmt: skip
    return transformers.Wav2Vec2ForPreTraining(config).eval()


def ours(model: torch.nn.Module) -> Wav2Vec2Objective:
    bare = model.wav2vec2
    encoder = Wav2Vec2(WAV2VEC2.read(bare.config.to_dict(), {}))
    table = WAV2VEC2.table(encoder.config).to_ours(bare.state_dict())
    encoder.load_state_dict(table.weights)
    config = wav2vec2_objective(
        codebook_size=6, code_dim=16, dim=12, num_negatives=11, diversity_weight=0.0, feature_weight=0.0, local_gradient=1.0
    )  # fmt: skip
    objective = Wav2Vec2Objective(encoder, config).eval()
    weights = {
        "hiding.embedding.vector": bare.masked_spec_embed,
        "targets.norm.weight": bare.feature_projection.layer_norm.weight,
        "targets.norm.bias": bare.feature_projection.layer_norm.bias,
        "targets.quantizer.codebook.entries": model.quantizer.codevectors.view(2, 6, 8),
        "targets.quantizer.codebook.logits.0.weight": model.quantizer.weight_proj.weight,
        "targets.quantizer.codebook.logits.0.bias": model.quantizer.weight_proj.bias,
        "targets.project.weight": model.project_q.weight,
        "targets.project.bias": model.project_q.bias,
        "project.weight": model.project_hid.weight,
        "project.bias": model.project_hid.bias,
    }
    own = objective.state_dict()
    objective.load_state_dict({**own, **{name: value.detach().clone() for name, value in weights.items()}})
    return objective


def test_loss_and_gradients_are_the_references() -> None:
    model = theirs()
    objective = ours(model)
    waveform = torch.randn(3, 16000)
    lengths = torch.full((3,), 16000)
    batch = Batch(waveform, lengths, 16000, ids=("a", "b", "c"), seeds=item_seeds(0, 0, ["a", "b", "c"]))
    loss = objective.losses(batch)["model"]

    frames = int(objective.encoder.output_lengths(16000))
    assert batch.seeds is not None
    mask = objective.config.mask.draw(batch.seeds, torch.full((3,), frames), frames)
    places, counts = hidden_first(mask)
    drawn = negatives_within(batch.seeds, counts, places.shape[1], 11)
    # Theirs stand at the frames themselves, and count frames through the whole batch.
    flat = torch.zeros(3, frames, 11, dtype=torch.long)
    for item, count in enumerate(counts.tolist()):
        flat[item, places[item, :count]] = places[item][drawn[item, :count]] + item * frames
    expected = model(waveform, mask_time_indices=mask, sampled_negative_indices=flat)
    assert int(loss.count) == int(mask.sum())
    torch.testing.assert_close(loss.total, expected.contrastive_loss, rtol=1e-5, atol=1e-3)

    loss.total.backward()
    expected.contrastive_loss.backward()
    block, theirs_block = objective.encoder.blocks[0], model.wav2vec2.encoder.layers[0]
    codebook = objective.targets.quantizer.codebook  # type: ignore[union-attr]
    pairs = [
        (objective.project.weight, model.project_hid.weight),
        (objective.targets.project.weight, model.project_q.weight),
        (codebook.entries, model.quantizer.codevectors),
        (objective.hiding.embedding.vector, model.wav2vec2.masked_spec_embed),
        (block.ffn[0].weight, theirs_block.feed_forward.intermediate_dense.weight),
    ]
    for mine, reference in pairs:
        torch.testing.assert_close(mine.grad.flatten(), reference.grad.flatten(), rtol=1e-3, atol=1e-4)
