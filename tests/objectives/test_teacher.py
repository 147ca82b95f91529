"""The teacher follows once a step, in the parts that it averages, and is resumed where it stood."""

import copy

import torch
from torch import nn

from sonorant.objectives.teacher import Teacher, ramp


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(2, 2), nn.Dropout(0.5)])
        self.front = nn.Linear(2, 2)
        self.register_buffer("seen", torch.zeros(()))


def step(net: Net, by: float = 1.0) -> None:
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(by)


def test_blocks_are_averaged_and_the_rest_is_copied() -> None:
    net = Net()
    teacher = Teacher(net, net.blocks)
    first = copy.deepcopy(net.state_dict())
    teacher.follow(lambda step: 0.75)
    assert teacher.updates == 0, "nothing has moved yet"
    step(net)
    net.seen.fill_(3.0)  # type: ignore[operator]
    teacher.follow(lambda step: 0.75)
    torch.testing.assert_close(teacher.module.blocks[0].weight, first["blocks.0.weight"] + 0.25)
    torch.testing.assert_close(teacher.module.front.weight, net.front.weight.detach())
    assert float(teacher.module.seen) == 3
    everything = Teacher(net)
    everything.follow(lambda step: 0.5)
    step(net)
    everything.follow(lambda step: 0.5)
    torch.testing.assert_close(everything.module.front.weight, net.front.weight.detach() - 0.5)


def test_batches_of_one_step_move_it_once() -> None:
    net = Net()
    teacher = Teacher(net)
    decays = []
    for _ in range(3):
        for _ in range(4):
            teacher.follow(lambda step: decays.append(step) or 0.5)  # type: ignore[func-returns-value]
        step(net)
    assert decays == [0, 1]
    assert teacher.updates == 2


def test_it_learns_nothing_and_drops_nothing() -> None:
    teacher = Teacher(Net()).train()
    assert not teacher.module.training
    assert not teacher.module.blocks[1].training
    assert not any(parameter.requires_grad for parameter in teacher.parameters())


def test_a_checkpoint_before_and_after_a_step_goes_on_alike() -> None:
    """Whether an update is due stands in the state: one that was skipped is not made up for, one that is owed is."""
    for moved in (True, False):
        net = Net()
        teacher = Teacher(net)
        teacher.follow(lambda step: 0.5)
        step(net)
        teacher.follow(lambda step: 0.5)
        if moved:
            step(net)
        other_net = Net()
        other = Teacher(other_net)
        other_net.load_state_dict(net.state_dict())
        other.load_state_dict(copy.deepcopy(teacher.state_dict()))
        for each in (teacher, other):
            each.follow(lambda step: 0.5)
        assert other.updates == teacher.updates == 1 + moved
        assert torch.equal(other.module.front.weight, teacher.module.front.weight)


def test_ramp_without_steps_is_its_end() -> None:
    assert ramp(0.1, 0.9, 0)(0) == 0.9
