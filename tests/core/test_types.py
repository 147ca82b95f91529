import torch

from sonorant.core.types import Batch, Features, Loss, Score, Segment, Segments


def test_to_moves_tensors_and_labels() -> None:
    batch = Batch(torch.zeros(1, 4), torch.tensor([4]), 8000, {"tokens": torch.zeros(1, 2), "text": ["a"]}, ("x",))
    moved = batch.to("meta")
    assert moved.waveform.device.type == moved.labels["tokens"].device.type == "meta"
    assert (moved.labels["text"], moved.ids, moved.sample_rate) == (["a"], ("x",), 8000)
    assert Features(torch.zeros(1, 2, 3), torch.tensor([2]), 100.0).to("meta").values.device.type == "meta"


def test_losses_add_as_sums_not_as_means() -> None:
    parts = [
        Loss(torch.tensor(10.0), torch.tensor(1), {"ctc": torch.tensor(10.0)}),
        Loss(torch.tensor(0.0), torch.tensor(9)),
    ]
    total = parts[0] + parts[1]
    assert float(total.mean) == 1.0
    assert float(total.parts["ctc"]) == 10.0
    assert float(Loss(torch.tensor(0.0), torch.tensor(0)).mean) == 0.0


def test_segments_and_scores_read_well() -> None:
    segments = Segments(((Segment(0.5, 0.25, "a"),), ()))
    assert (len(segments), segments[0][0].end, list(segments[1])) == (2, 0.75, [])
    assert str(Score("wer", 0.123456, "lower", 0.1, 0.2, 50)) == "wer 0.1235 [0.1, 0.2] (n=50)"
