"""A map of numbers as colours, alone or over a image."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

# From night through violet and orange to pale yellow; lightness rises evenly, so that the map
# also reads in grey and to the colour-blind.
_ANCHORS = np.array(
    [
        (8, 6, 30),
        (48, 15, 92),
        (104, 26, 110),
        (158, 44, 98),
        (207, 71, 71),
        (240, 113, 38),
        (251, 165, 25),
        (247, 215, 84),
        (252, 252, 190),
    ],
    dtype=np.float32,
)


def colourise(values: Float[np.ndarray, "H W"]) -> UInt8[np.ndarray, "H W 3"]:
    """Turn values in [0, 1] into RGB colours; values outside take the end colours."""
    position = np.clip(values, 0, 1) * (len(_ANCHORS) - 1)
    stops = np.arange(len(_ANCHORS))
    channels = [np.interp(position, stops, _ANCHORS[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def draw_heatmap(
    image: Image.Image,
    values: Float[np.ndarray, "H W"],
    *,
    value_range: tuple[float, float] | None = None,
    opacity: float = 0.65,
) -> Image.Image:
    """Lay values over the greyed image, dark where low and bright where high.

    Args:
        image: An image of the map's size.
        values: Any numbers.
        value_range: The values shown darkest and brightest; None: the lowest and highest of this
            very map, so that even a word absent from the image has a brightest place.
        opacity: 0 = only the grey image, 1 = only the map.
    """
    low, high = value_range or (float(values.min()), float(values.max()))
    span = high - low
    heat = colourise((values - low) / span if span > 0 else np.zeros_like(values))
    grey = np.asarray(image.convert("L"), dtype=np.float32)[..., None]
    return Image.fromarray((grey * (1 - opacity) + heat * opacity).round().astype(np.uint8))
