"""Rooms: impulse responses of shoebox rooms by the image-source method, in batched torch.

`shoebox_rir` is exact (every image up to an order or a time). `Rooms` draws random rooms, with the images of the first
50 ms and a diffuse tail after them whose level follows from the room's volume, which makes one in milliseconds.
`sabine_rt60`, `eyring_rt60`, `absorption_for` and `measured_rt60` go between walls and reverberation times.

The rooms of the built-in corpus (`data.synthetic.rooms`) are another matter: cheap sketches that give the same bytes in every
process, which batched work on any device cannot promise.

Lengths in metres, times in seconds; the pressure at distance d from the source is 1 / (4 pi d).
"""

import math
from dataclasses import dataclass
from functools import cache

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sonorant.audio.filters import biquad, highpass
from sonorant.core.config import at_least, within
from sonorant.core.errors import ConfigError
from sonorant.core.seed import normal, uniform

__all__ = ["Rooms", "absorption_for", "eyring_rt60", "measured_rt60", "sabine_rt60", "shoebox_rir"]

SPEED_OF_SOUND = 343.0
HALF = 40
"""Taps on each side of a fractional delay: 81 in all, as the common simulators have."""
ORDER = 10
"""Of the polynomials that interpolate the sinc."""
CHUNK = 1 << 22
"""Numbers scattered at a time: 32 MB for each intermediate."""


def shoebox_rir(
    room: Float[Tensor, "batch 3"],
    source: Float[Tensor, "batch 3"],
    microphones: Float[Tensor, "batch channel 3"],
    absorption: Float[Tensor, "batch *wall"],  # noqa: F821
    *,
    sample_rate: int,
    seconds: float,
    max_order: int | None = None,
    lead: int = 0,
    highpass_hz: float | None = None,
) -> Float[Tensor, "batch channel tap"]:
    """Impulse responses of empty shoebox rooms (Allen and Berkley, 1979, https://doi.org/10.1121/1.382599, eq. 9).

    Each image is a sinc of 81 taps under a Hann window at its exact, fractional delay (Peterson, 1986). Differentiable with
    regard to positions and absorption.

    Args:
        room: width, depth and height.
        source: position, inside the room.
        microphones: positions, inside the room.
        absorption: share of the energy that a wall takes at each reflection, one for all walls, or six in the order
            (x = 0, x = width, y = 0, y = depth, z = 0, z = height).
        sample_rate: Hz.
        seconds: length of the responses; images that arrive later are left out.
        max_order: most reflections of an image; None for all that arrive in time.
        lead: samples before time 0, in which the first images' sincs begin (40 holds them all).
        highpass_hz: where to cut the lowest frequencies off. All images have the same sign, so late ones, several to a
            sample, pile up to a slowly falling bias that no real room has: without a cut (some 100 Hz) measured decays
            come out up to half too long.

    Raises:
        ConfigError: a source or microphone is outside its room.
    """
    _check_inside(room, source, microphones)
    num_taps = max(1, math.ceil(seconds * sample_rate))
    wide = torch.float32 if room.device.type == "mps" else torch.float64
    walls = absorption[:, None].expand(-1, 6) if absorption.dim() == 1 else absorption
    reflection = (1 - walls).clamp(min=0).sqrt().to(wide)
    lattice = _lattice(room, seconds, max_order)
    images = _image_positions(lattice, room.to(wide), source.to(wide))
    distance = torch.linalg.vector_norm(images[:, None] - microphones.to(wide)[:, :, None], dim=-1)
    heard = distance < SPEED_OF_SOUND * num_taps / sample_rate
    kept = heard.flatten(0, 1).any(dim=0).nonzero()[:, 0]
    distance, heard = distance[:, :, kept], heard[:, :, kept]
    gain = _reflected(lattice[kept], reflection)[:, None] / (4 * math.pi * distance.clamp(min=1e-3))
    rir = _impulses(distance * (sample_rate / SPEED_OF_SOUND), gain * heard, num_taps, lead, room.dtype)
    return rir if highpass_hz is None else biquad(rir, highpass(highpass_hz, sample_rate))


def _check_inside(room: Tensor, source: Tensor, microphones: Tensor) -> None:
    for name, position in (("source", source[:, None]), ("microphones", microphones)):
        outside = ((position < 0) | (position > room[:, None])).any(dim=-1).any(dim=-1)
        if outside.any():
            item = int(outside.nonzero()[0, 0])
            raise ConfigError(
                f"{name} must lie inside the room, got {position[item].tolist()} in a room of {room[item].tolist()} m "
                f"(item {item})"
            )


def _lattice(room: Tensor, seconds: float, max_order: int | None) -> Int[Tensor, "image 3"]:
    """Which mirror room an image is in along each axis, counted from the real one, for all images that can be heard."""
    # Mirror room n lies at least (|n| - 1) times the side away.
    reach = [math.floor(SPEED_OF_SOUND * seconds / side) + 1 for side in room.detach().amin(dim=0).tolist()]
    if max_order is not None:
        reach = [min(side, max_order) for side in reach]
    axes = [torch.arange(-side, side + 1, device=room.device) for side in reach]
    lattice = torch.cartesian_prod(*axes).view(-1, 3)
    return lattice if max_order is None else lattice[lattice.abs().sum(dim=1) <= max_order]


def _image_positions(
    lattice: Int[Tensor, "image 3"], room: Float[Tensor, "batch 3"], source: Float[Tensor, "batch 3"]
) -> Float[Tensor, "batch image 3"]:
    """In mirror room n the source stands as it is where n is even, and mirrored where n is odd."""
    odd = (lattice % 2).to(room)
    inside = source[:, None] + odd * (room - 2 * source)[:, None]
    return lattice.to(room) * room[:, None] + inside


def _reflected(lattice: Int[Tensor, "image 3"], reflection: Float[Tensor, "batch 6"]) -> Float[Tensor, "batch image"]:
    """Product of the pressure reflections on an image's way: it meets the walls of each axis in turn."""
    count = lattice.abs()
    more, fewer = (count + 1) // 2, count // 2
    # The first wall met is the far one for a mirror room on the far side, and the near one otherwise.
    far = torch.where(lattice > 0, more, fewer)
    near = torch.where(lattice > 0, fewer, more)
    # Powers from a table: there are few exponents and many images.
    most = int(more.max()) if len(lattice) else 0
    table = torch.cat(
        (torch.ones_like(reflection)[..., None], reflection[..., None].expand(-1, -1, most)), dim=-1
    ).cumprod(-1)
    gain = torch.ones_like(reflection[:, :1])
    for axis in range(3):
        gain = gain * table[:, 2 * axis, near[:, axis]] * table[:, 2 * axis + 1, far[:, axis]]
    return gain


def _impulses(
    delay: Float[Tensor, "batch channel image"],
    gain: Float[Tensor, "batch channel image"],
    num_taps: int,
    lead: int,
    dtype: torch.dtype,
) -> Float[Tensor, "batch channel tap"]:
    """Band-limited impulses at fractional delays, summed.

    Each tap of a delayed sinc is a smooth function of the delay's fraction, so a polynomial of tenth order in it gives all of
    them to 1e-6 (Farrow, 1988, https://doi.org/10.1109/ISCAS.1988.15483). An image then adds eleven numbers to a grid instead
    of 81 taps to the response, and one convolution at the end makes the taps.
    """
    batch, channels, num_images = delay.shape
    rows, width = batch * channels, lead + num_taps + 2 * HALF
    delay, gain = delay.reshape(rows, -1), gain.reshape(rows, -1)
    whole = delay.detach().round()
    fraction = (delay - whole).to(dtype)
    first = (torch.arange(rows, device=delay.device) * width)[:, None] + HALF + lead
    # What begins beyond the last sample is silent already and may stand anywhere inside.
    place = first + whole.long().clamp(max=num_taps + HALF - 1)
    grid = torch.zeros(rows * width, ORDER + 1, device=delay.device, dtype=dtype)
    chunk = max(1, CHUNK // (rows * (ORDER + 1)))
    for begin in range(0, num_images, chunk):
        part = slice(begin, begin + chunk)
        terms = [gain[:, part].to(dtype)]
        for _ in range(ORDER):
            terms.append(terms[-1] * fraction[:, part])
        grid = grid.index_add(0, place[:, part].flatten(), torch.stack(terms, dim=-1).flatten(0, 1))
    size = 1 << (width + 2 * HALF).bit_length()
    grid = grid.view(rows, width, ORDER + 1).transpose(1, 2)
    spectrum = (torch.fft.rfft(grid, size) * torch.fft.rfft(_sinc_polynomials().to(grid), size)).sum(dim=1)
    taps = torch.fft.irfft(spectrum, size)[:, 2 * HALF : 2 * HALF + lead + num_taps]
    return taps.view(batch, channels, lead + num_taps)


@cache
def _sinc_polynomials() -> Float[Tensor, "power tap"]:
    """Coefficients in the fraction d of the taps sinc(k - d) under a Hann window, k from -HALF to HALF.

    Fitted at Chebyshev's points of [-1/2, 1/2]; the remainder falls like (pi / 4) ** n / n!.
    """
    point = 0.5 * torch.cos(math.pi * (torch.arange(ORDER + 1, dtype=torch.float64) + 0.5) / (ORDER + 1))
    x = torch.arange(-HALF, HALF + 1, dtype=torch.float64) - point[:, None]
    taps = torch.sinc(x) * (0.5 + 0.5 * torch.cos(math.pi * x / (HALF + 1)))
    powers = point[:, None] ** torch.arange(ORDER + 1)
    return torch.linalg.solve(powers, taps)


# --- walls and reverberation times ------------------------------------------------------------------------------------


def _volume_and_surface(room: Float[Tensor, "batch 3"]) -> tuple[Tensor, Tensor]:
    width, depth, height = room.unbind(dim=1)
    return room.prod(dim=1), 2 * (width * depth + width * height + depth * height)


def sabine_rt60(room: Float[Tensor, "batch 3"], absorption: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """Seconds in which the sound falls by 60 dB: 24 ln 10 / c · V / (S a)."""
    volume, surface = _volume_and_surface(room)
    return 24 * math.log(10) / SPEED_OF_SOUND * volume / (surface * absorption)


def eyring_rt60(room: Float[Tensor, "batch 3"], absorption: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """As Sabine's with -ln(1 - a) for a, which holds for absorbing walls too.

    >>> eyring_rt60(torch.tensor([[6.0, 5.0, 3.0]]), torch.tensor([0.3]))
    tensor([0.3227])
    """
    volume, surface = _volume_and_surface(room)
    return 24 * math.log(10) / SPEED_OF_SOUND * volume / (-surface * torch.log1p(-absorption))


def absorption_for(room: Float[Tensor, "batch 3"], rt60: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """The absorption of all walls with which `eyring_rt60` gives `rt60` seconds."""
    volume, surface = _volume_and_surface(room)
    return -torch.expm1(-24 * math.log(10) / SPEED_OF_SOUND * volume / (surface * rt60))


def measured_rt60(
    rir: Float[Tensor, "*batch tap"], sample_rate: int, fit_db: tuple[float, float] = (-5.0, -25.0)
) -> Tensor:
    """Seconds to -60 dB, by a line through the backward-integrated energy (Schroeder, 1965) between two levels (T20)."""
    wide = torch.float32 if rir.device.type == "mps" else torch.float64
    energy = rir.to(wide).square().flip(-1).cumsum(-1).flip(-1)
    level = 10 * torch.log10((energy / energy[..., :1]).clamp(min=1e-30))
    used = ((level <= fit_db[0]) & (level >= fit_db[1])).to(wide)
    time = torch.arange(rir.shape[-1], device=rir.device, dtype=wide) / sample_rate
    count = used.sum(-1, keepdim=True).clamp(min=1)
    centred = (time - (used * time).sum(-1, keepdim=True) / count) * used
    slope = (centred * level).sum(-1) / centred.square().sum(-1)
    return -60 / slope


# --- random rooms -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Rooms:
    """Draws a room, a source and a microphone for each item, and makes the impulse response between them.

    >>> Rooms(rt60=(0.2, 0.3)).draw(torch.tensor([1, 2]), "room", 16000).shape
    torch.Size([2, 4800])
    """

    low: tuple[float, float, float] = (3.0, 3.0, 2.4)
    """Smallest room, in metres."""
    high: tuple[float, float, float] = (8.0, 6.0, 3.5)
    """Largest room."""
    rt60: tuple[float, float] = (0.15, 0.7)
    """Range of the reverberation time, in seconds."""
    distance: tuple[float, float] = (0.3, 2.5)
    """Range of the distance from mouth to microphone; a place that would be outside is mirrored back in at the wall."""
    mixing_seconds: float = 0.05
    """Where the exact images end and the diffuse tail begins: some mean free paths, after which ears hear no difference."""

    def __post_init__(self) -> None:
        for side, (low, high) in enumerate(zip(self.low, self.high, strict=True)):
            within(f"Rooms.low[{side}]", low, 1.5, high)
        within("Rooms.rt60[0]", self.rt60[0], 0.02, self.rt60[1])
        within("Rooms.distance[0]", self.distance[0], 0.05, self.distance[1])
        at_least("Rooms.mixing_seconds", self.mixing_seconds, 0.01)

    def draw(self, seeds: Int[Tensor, " batch"], stream: str, sample_rate: int) -> Float[Tensor, "batch tap"]:
        """Impulse responses, `rt60[1]` seconds long, a pure function of each seed and the stream's name."""

        def drawn(name: str, count: int) -> Tensor:
            return uniform(seeds, f"{stream}/{name}", count)

        low, high = (torch.tensor(side, device=seeds.device) for side in (self.low, self.high))
        room = low + (high - low) * drawn("room", 3)
        rt60 = self.rt60[0] + (self.rt60[1] - self.rt60[0]) * drawn("rt60", 1)[:, 0]
        margin = 0.5
        microphone = margin + (room - 2 * margin) * drawn("microphone", 3)
        source = _inside(microphone + self._step(drawn("source", 3)), room, 0.2)
        seconds = min(self.mixing_seconds, self.rt60[1])
        early = shoebox_rir(
            room, source, microphone[:, None], absorption_for(room, rt60), sample_rate=sample_rate, seconds=seconds
        )[:, 0]
        num_taps = max(early.shape[1], math.ceil(self.rt60[1] * sample_rate))
        noise = normal(seeds, f"{stream}/tail", num_taps)
        return _with_tail(early, noise, room.prod(dim=1), rt60, sample_rate)

    def _step(self, draw: Float[Tensor, "batch 3"]) -> Float[Tensor, "batch 3"]:
        """From microphone to mouth: any direction, mostly sideways."""
        azimuth, height = 2 * math.pi * draw[:, 0], 0.4 * (2 * draw[:, 1] - 1)
        flat = (1 - height.square()).sqrt()
        direction = torch.stack((flat * azimuth.cos(), flat * azimuth.sin(), height), dim=1)
        low, high = self.distance
        return (low + (high - low) * draw[:, 2:]) * direction


def _inside(position: Tensor, room: Tensor, margin: float) -> Tensor:
    """Mirrored back at planes `margin` inside the walls."""
    span = room - 2 * margin
    folded = torch.remainder(position - margin, 2 * span)
    return margin + torch.minimum(folded, 2 * span - folded)


def _with_tail(
    early: Tensor, noise: Tensor, volume: Tensor, rt60: Tensor, sample_rate: int
) -> Float[Tensor, "batch tap"]:
    """The early part, fading into Gaussian noise with the energy that the images would have.

    At time t images arrive at a rate of 4 pi c^3 t^2 / V, each with energy (4 pi c t)^-2 times what the walls left, so the
    energy in a second is c / (4 pi V) · 10^(-6 t / rt60): no level has to be fitted.
    """
    num_early, num_taps = early.shape[1], noise.shape[1]
    time = torch.arange(num_taps, device=early.device, dtype=early.dtype) / sample_rate
    power = SPEED_OF_SOUND / (4 * math.pi * volume * sample_rate)
    tail = noise * power.sqrt()[:, None] * 10 ** (-3 * time / rt60[:, None])
    # Powers add up to one across the fade, for the two parts are not correlated.
    fade = ((num_early - torch.arange(num_taps, device=early.device)) / (0.01 * sample_rate)).clamp(0, 1)
    padded = torch.nn.functional.pad(early, (0, num_taps - num_early))
    return padded * fade.sqrt() + tail * (1 - fade).sqrt()
