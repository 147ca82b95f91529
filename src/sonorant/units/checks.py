"""Labels of frames, looked at before they are trained on."""

import logging
from typing import Any

from sonorant.core.errors import DataError
from sonorant.units.store import UnitStore

__all__ = ["check_units"]

log = logging.getLogger("sonorant")


def check_units(store: UnitStore, cuts: Any, min_perplexity_share: float = 0.02) -> None:
    """Refuses labels that training would not survive: cuts without any, of another length, or next to no variety.

    Args:
        store: the labels.
        cuts: that are to be trained on.
        min_perplexity_share: of the inventory; units that are less evenly used are a clustering that failed.

    Raises:
        DataError: with the cut or the figure that is wrong.
    """
    for cut in cuts:
        frames = len(store.of(cut))
        if abs(frames - cut.duration * store.frame_rate) > 3 + 0.1 * store.frame_rate:
            raise DataError(
                f"'{cut.id}' lasts {cut.duration:.2f} s and has {frames} units at {store.frame_rate:g} a second: is the "
                "frame rate right?"
            )
    counts = store.counts()
    log.info("units in %s: perplexity %.1f of %d, %.0f %% in use", store.folder, counts.perplexity, store.num_units,
             100 * counts.usage)  # fmt: skip
    if counts.perplexity < max(1.5, min_perplexity_share * store.num_units):
        raise DataError(
            f"the units in {store.folder} have a perplexity of {counts.perplexity:.1f} with {store.num_units} clusters: "
            "nearly all frames bear the same one. Are the features normalised, and is the audio more than silence?"
        )
