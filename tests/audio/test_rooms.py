"""Shoebox rooms: against pyroomacoustics' image sources, Sabine's and Eyring's times, and geometry."""

import math

import numpy as np
import pytest
import torch

from sonorant.audio.filters import biquad, highpass
from sonorant.audio.spatial.rooms import (
    SPEED_OF_SOUND,
    Rooms,
    absorption_for,
    eyring_rt60,
    measured_rt60,
    sabine_rt60,
    shoebox_rir,
)
from sonorant.core.errors import ConfigError
from sonorant.core.seed import item_seeds

RATE = 16000
ROOM = torch.tensor([[5.2, 4.1, 2.9]])
SOURCE = torch.tensor([[1.3, 2.2, 1.6]])
MICROPHONES = torch.tensor([[[3.9, 1.1, 1.2], [4.4, 3.3, 1.0]]])


def _peer(absorption: list[float], max_order: int, source=SOURCE[0], room=ROOM[0]):
    pra = pytest.importorskip("pyroomacoustics")
    pra.constants.set("c", SPEED_OF_SOUND)
    pra.constants.set("rir_hpf_enable", False)
    names = ("west", "east", "south", "north", "floor", "ceiling")
    materials = {name: pra.Material(energy_absorption=value) for name, value in zip(names, absorption)}
    shoebox = pra.ShoeBox(room.tolist(), fs=RATE, materials=materials, max_order=max_order, air_absorption=False)
    shoebox.add_source(source.tolist())
    shoebox.add_microphone_array(MICROPHONES[0].T.numpy())
    shoebox.compute_rir()
    return shoebox


@pytest.mark.parametrize("max_order", [0, 1, 3, 10])
def test_images_equal_pyroomacoustics(max_order: int) -> None:
    absorption = [0.1, 0.5, 0.3, 0.6, 0.2, 0.8]
    shoebox = _peer(absorption, max_order)
    ours = shoebox_rir(
        ROOM,
        SOURCE,
        MICROPHONES,
        torch.tensor([absorption]),
        sample_rate=RATE,
        seconds=0.4,
        max_order=max_order,
        lead=40,
    )[0]
    for channel in range(2):
        theirs = torch.from_numpy(np.asarray(shoebox.rir[channel][0])).float()
        size = min(len(theirs), ours.shape[1])
        mine, theirs = ours[channel, :size], theirs[:size]
        # Both are 81-tap sincs; theirs are read from a table and their window is not the same to the last digit.
        scale = float((mine * theirs).sum() / theirs.square().sum())
        assert scale in (pytest.approx(1.0, abs=0.01), pytest.approx(1 / (4 * math.pi), rel=0.01))
        error = (mine - scale * theirs).square().sum() / mine.square().sum()
        assert float(error) < 1e-3
        assert torch.equal(mine.abs().argmax(), theirs.abs().argmax())


def test_delays_and_energies_of_single_images() -> None:
    rir = shoebox_rir(ROOM, SOURCE, MICROPHONES, torch.tensor([0.4]), sample_rate=RATE, seconds=0.1, max_order=0)
    for channel in range(2):
        distance = float((MICROPHONES[0, channel] - SOURCE[0]).norm())
        spectrum = torch.fft.rfft(rir[0, channel].double(), 8192)
        assert float(spectrum[:2000].abs().mean()) == pytest.approx(1 / (4 * math.pi * distance), rel=2e-3)
        # The delay is the slope of the phase, fractions of a sample included.
        phase = torch.angle(spectrum[1:1500] / spectrum[:1499])
        delay = float(-phase.mean() * 8192 / (2 * math.pi)) % 8192
        assert delay == pytest.approx(distance / SPEED_OF_SOUND * RATE, abs=5e-3)


def test_image_behind_a_wall_is_where_a_mirror_puts_it() -> None:
    absorption = torch.tensor([[0.0, 1.0, 1.0, 1.0, 1.0, 1.0]])
    rir = shoebox_rir(ROOM, SOURCE, MICROPHONES, absorption, sample_rate=RATE, seconds=0.1, max_order=1)
    free = shoebox_rir(ROOM, SOURCE, MICROPHONES, torch.ones(1), sample_rate=RATE, seconds=0.1)
    wall = (rir - free)[0, 0]
    distance = float((MICROPHONES[0, 0] - SOURCE[0] * torch.tensor([-1.0, 1.0, 1.0])).norm())
    assert int(wall.abs().argmax()) == round(distance / SPEED_OF_SOUND * RATE)
    spectrum = torch.fft.rfft(wall.double(), 8192).abs()
    assert float(spectrum[:2000].mean()) == pytest.approx(1 / (4 * math.pi * distance), rel=2e-3)


def test_walls_take_their_names_in_order() -> None:
    """Near a wall that reflects, its image comes first; each of the six is told apart."""
    for wall in range(6):
        absorption = torch.ones(1, 6)
        absorption[0, wall] = 0.0
        source, axis = SOURCE.clone(), wall // 2
        source[0, axis] = 0.3 if wall % 2 == 0 else ROOM[0, axis] - 0.3
        image = source.clone()
        image[0, axis] = -0.3 if wall % 2 == 0 else ROOM[0, axis] + 0.3
        rir = shoebox_rir(ROOM, source, MICROPHONES[:, :1], absorption, sample_rate=RATE, seconds=0.05)[0, 0]
        free = shoebox_rir(ROOM, source, MICROPHONES[:, :1], torch.ones(1), sample_rate=RATE, seconds=0.05)[0, 0]
        distance = float((MICROPHONES[0, 0] - image[0]).norm())
        assert int((rir - free).abs().argmax()) == round(distance / SPEED_OF_SOUND * RATE)


def test_a_batch_is_its_items_and_channels() -> None:
    room = torch.tensor([[5.2, 4.1, 2.9], [3.0, 7.5, 2.6], [8.0, 8.0, 4.0]])
    source = torch.tensor([[1.3, 2.2, 1.6], [1.0, 6.0, 1.1], [7.0, 1.0, 2.0]])
    microphones = torch.stack((room * 0.4, room * 0.7), dim=1)
    absorption = torch.tensor([0.3, 0.5, 0.7])
    whole = shoebox_rir(room, source, microphones, absorption, sample_rate=RATE, seconds=0.1)
    for item in range(3):
        for channel in range(2):
            alone = shoebox_rir(
                room[item : item + 1],
                source[item : item + 1],
                microphones[item : item + 1, channel : channel + 1],
                absorption[item : item + 1],
                sample_rate=RATE,
                seconds=0.1,
            )
            assert torch.allclose(alone[0, 0], whole[item, channel], atol=1e-6)


def _several(room: torch.Tensor, absorption: torch.Tensor, rate: int, seconds: float) -> torch.Tensor:
    microphones = torch.tensor([[[3.6, 2.9, 2.3], [2.2, 3.7, 1.1], [4.1, 0.9, 2.9], [0.8, 3.1, 3.3]]])
    source = torch.tensor([[1.2, 1.5, 1.7]])
    return shoebox_rir(room, source, microphones, absorption, sample_rate=rate, seconds=seconds, highpass_hz=200.0)[0]


@pytest.mark.parametrize("rt60", [0.25, 0.4])
def test_decay_is_eyrings(rt60: float) -> None:
    """A little slower in the end, for sound that runs between the far walls; none of it faster by more than chance."""
    room = torch.tensor([[5.0, 4.5, 4.0]])
    absorption = absorption_for(room, torch.tensor([rt60]))
    assert float(eyring_rt60(room, absorption)) == pytest.approx(rt60, rel=1e-4)
    rirs = _several(room, absorption, 8000, max(0.3, rt60))
    assert float(measured_rt60(rirs, 8000, (0, -10)).mean()) == pytest.approx(rt60, rel=0.08)
    assert float(measured_rt60(rirs, 8000).mean()) == pytest.approx(rt60, rel=0.15)


def test_energy_is_that_of_rays_in_all_directions() -> None:
    """c / (4 pi V) a second, times what the walls take on a way that meets them |u|/L times a metre on each axis."""
    room, rt60 = torch.tensor([[5.0, 4.5, 4.0]]), torch.tensor([0.4])
    absorption = absorption_for(room, rt60)
    rirs = _several(room, absorption, 8000, 0.21)
    directions = torch.nn.functional.normalize(torch.randn(20000, 3, generator=torch.Generator().manual_seed(0)), dim=1)
    meetings = (directions.abs() / room).sum(dim=1)
    for begin, end in ((0.03, 0.08), (0.08, 0.14), (0.14, 0.2)):
        times = torch.linspace(begin, end, 30)[:, None]
        left = torch.exp(torch.log1p(-absorption) * SPEED_OF_SOUND * times * meetings).mean()
        expected = (end - begin) * SPEED_OF_SOUND / (4 * math.pi * float(room.prod())) * left * (1 - 200 / 4000)
        measured = rirs[:, round(begin * 8000) : round(end * 8000)].square().sum(dim=1).mean()
        assert float(10 * torch.log10(measured / expected)) == pytest.approx(0, abs=1)


def test_sabine_and_eyring_agree_on_hard_walls() -> None:
    hard = torch.tensor([0.01])
    assert float(sabine_rt60(ROOM, hard)) == pytest.approx(float(eyring_rt60(ROOM, hard)), rel=0.01)
    assert float(sabine_rt60(ROOM, hard)) == pytest.approx(0.161 * 61.828 / (96.58 * 0.01), rel=0.01)
    exponential = torch.exp(-torch.arange(16000) / RATE * 3 * math.log(10) / 0.5) * torch.randn(16000)
    assert float(measured_rt60(exponential, RATE)) == pytest.approx(0.5, rel=0.05)


def test_drawn_rooms_have_the_level_and_decay_of_the_exact_ones() -> None:
    """The diffuse tail carries the energy that the images beyond 50 ms have, without any fitted level."""
    room, rt60 = torch.tensor([[5.0, 4.5, 4.0]]), torch.tensor([0.35])
    fixed = Rooms(low=(5.0, 4.5, 4.0), high=(5.0, 4.5, 4.0), rt60=(0.35, 0.35), distance=(1.5, 1.5))
    drawn = fixed.draw(item_seeds(0, 0, [f"{k}" for k in range(24)]), "room", 8000)
    assert drawn.shape == (24, 2800)
    exact = _several(room, absorption_for(room, rt60), 8000, 0.35)
    drawn = biquad(drawn, highpass(200.0, 8000))
    for begin, end in ((240, 480), (480, 800), (800, 1200)):
        late = drawn[:, begin:end].square().sum(dim=1).mean() / exact[:, begin:end].square().sum(dim=1).mean()
        assert abs(float(10 * torch.log10(late))) < 1.5
    assert float(measured_rt60(drawn, 8000).mean()) == pytest.approx(0.35, rel=0.05)


def test_gradient_reaches_places_and_walls() -> None:
    source, absorption = SOURCE.clone().requires_grad_(), torch.tensor([0.3], requires_grad=True)
    rir = shoebox_rir(ROOM, source, MICROPHONES, absorption, sample_rate=RATE, seconds=0.03)
    rir.square().sum().backward()
    assert torch.isfinite(source.grad).all()
    assert (source.grad != 0).all()
    assert absorption.grad.item() < 0


def test_outside_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"source must lie inside the room, got \[\[9.0, .* \(item 0\)"):
        shoebox_rir(ROOM, torch.tensor([[9.0, 1.0, 1.0]]), MICROPHONES, torch.ones(1), sample_rate=RATE, seconds=0.1)
    with pytest.raises(ConfigError, match=r"Rooms.rt60\[0\]"):
        Rooms(rt60=(0.5, 0.2))
