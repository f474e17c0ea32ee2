"""What happens in an image: a scene is drawn from a random generator, then painted back to front.

Grounds and things are combined freely rather than realistically (an umbrella may stand in snow), so
that no class can be recognised from its company alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pacl.datasets.storybook import stuff, things
from pacl.datasets.storybook.paint import COLOURS, Canvas, Point, jitter

STUFF = (
    "sky", "cloud", "mountain", "hill", "grass", "field", "sea", "sand", "snow", "road", "river",
)  # fmt: skip
THINGS = tuple(things.PAINTERS)
LABELS = STUFF + THINGS
LABEL_IDS = {label: index for index, label in enumerate(LABELS)}

#: One colour per thing that no training image shows and no training caption names.
HELD_OUT_COLOURS: dict[str, str] = {
    "flower": "green",
    "house": "purple",
    "tower": "orange",
    "car": "green",
    "boat": "purple",
    "bird": "orange",
    "balloon": "blue",
    "person": "white",
    "tent": "yellow",
    "umbrella": "red",
}
IN_THE_SKY = ("sun", "moon", "bird", "balloon")
ON_WATER = ("boat",)

#: Height on the canvas when nearest to the viewer.
_HEIGHTS: dict[str, float] = {
    "sun": 0.24, "moon": 0.23, "tree": 0.58, "pine tree": 0.62, "bush": 0.28, "flower": 0.42,
    "house": 0.5, "tower": 0.64, "fence": 0.23, "car": 0.28, "boat": 0.46, "bird": 0.23,
    "balloon": 0.46, "person": 0.52, "sheep": 0.33, "tent": 0.39, "umbrella": 0.48,
}  # fmt: skip
_LIGHT = {"day": (1.0, 1.0, 1.0), "dusk": (1.02, 0.88, 0.82), "night": (0.72, 0.75, 0.92)}


@dataclass(frozen=True)
class Item:
    """One thing: its class, colour word ("" where the class has none), foot point and height."""

    label: str
    colour: str
    x: float
    y: float
    height: float


@dataclass(frozen=True)
class Scene:
    """An image to be painted.

    `horizon` is the y of the ground's far edge: 0 or less means no sky is seen, 1 no ground.
    `grounds` are painted from far to near, each from its y down to the lower edge.
    """

    time: str
    horizon: float
    mountain: float
    hill: float
    grounds: tuple[tuple[str, float], ...]
    path: str
    clouds: tuple[Point, ...]
    items: tuple[Item, ...]


def _pick(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))]


def _colour_of(rng: np.random.Generator, label: str) -> str:
    """A colour word that training may show, or "" for a class that has its own colour."""
    if label not in HELD_OUT_COLOURS:
        return ""
    return _pick(rng, [word for word in COLOURS if word != HELD_OUT_COLOURS[label]])


def _place(rng: np.random.Generator, label: str, scene: Scene) -> Item | None:
    """A spot where the thing may be, or None if the scene has none for it."""
    size = _HEIGHTS[label] * rng.uniform(0.85, 1.15)
    x = float(rng.uniform(0.08, 0.92))
    if label in IN_THE_SKY:
        if scene.horizon < 0.3:
            return None
        free = min(scene.horizon, 0.95)
        size *= rng.uniform(0.8, 1.1) if scene.horizon > 0.6 else 0.85
        low = max(size * 1.05, 0.12)
        return Item(label, _colour_of(rng, label), x, float(rng.uniform(low, max(low, free))), size)
    if scene.horizon >= 0.9:
        return None
    edges = [max(y, 0.0) for _, y in scene.grounds] + [1.0]
    spans = {
        is_water: [
            (edges[i], edges[i + 1])
            for i, (name, _) in enumerate(scene.grounds)
            if (name == "sea") == is_water
        ]
        for is_water in (True, False)
    }[label in ON_WATER]
    if not spans:
        return None
    top, bottom = spans[int(rng.integers(len(spans)))]
    depth = float(rng.uniform(0.12, 0.97))
    y = top + (bottom - top) * depth
    nearness = (y - max(scene.horizon, 0.0)) / max(1e-6, 1.0 - max(scene.horizon, 0.0))
    return Item(label, _colour_of(rng, label), x, float(y), float(size * (0.55 + 0.45 * nearness)))


def _ground(rng: np.random.Generator, horizon: float) -> tuple[tuple[str, float], ...]:
    if horizon >= 0.9:
        return ()
    top = max(horizon, 0.0)
    far = _pick(rng, ("grass", "grass", "field", "sea", "sea", "sand", "snow", "snow"))
    grounds = [(far, horizon)]
    if (far == "sea" and rng.random() < 0.75) or rng.random() < 0.25:
        near = _pick(rng, [g for g in ("grass", "field", "sand", "sand", "snow") if g != far])
        grounds.append((near, float(top + (1 - top) * rng.uniform(0.35, 0.7))))
    return tuple(grounds)


def empty_scene(rng: np.random.Generator) -> Scene:
    """A landscape without things: time of day, horizon, distance, ground, path and clouds."""
    view = rng.random()
    horizon = 1.0 if view < 0.07 else (-0.05 if view < 0.22 else float(rng.uniform(0.34, 0.64)))
    has_sky, has_ground = horizon > 0, horizon < 0.9
    grounds = _ground(rng, horizon)
    is_land = has_ground and grounds[0][0] != "sea"
    n_clouds = int(rng.integers(1, 4)) if has_sky and rng.random() < 0.5 else 0
    return Scene(
        time=_pick(rng, ("day", "day", "dusk", "night")),
        horizon=horizon,
        mountain=float(rng.uniform(0.18, 0.32))
        if has_sky and has_ground and rng.random() < 0.35
        else 0.0,
        hill=float(rng.uniform(0.12, 0.2))
        if has_sky and has_ground and rng.random() < 0.35
        else 0.0,
        grounds=grounds,
        path=_pick(rng, ("road", "river")) if is_land and rng.random() < 0.5 else "",
        clouds=tuple(
            (float(rng.uniform(0.1, 0.9)), float(rng.uniform(0.08, 0.75) * min(horizon, 0.8)))
            for _ in range(n_clouds)
        ),
        items=(),
    )


def with_things(scene: Scene, items: Sequence[Item]) -> Scene:
    """The scene with `items`, ordered from far to near."""
    ordered = tuple(sorted(items, key=lambda item: (item.label not in IN_THE_SKY, item.y)))
    return Scene(**{**scene.__dict__, "items": ordered})


def sample_scene(rng: np.random.Generator, *, n_things: tuple[int, int] = (2, 5)) -> Scene:
    """A whole scene with a random number of things in the closed range `n_things`."""
    scene = empty_scene(rng)
    wanted = int(rng.integers(n_things[0], n_things[1] + 1))
    items: list[Item] = []
    for _ in range(8 * wanted):
        if len(items) == wanted:
            break
        label = _pick(rng, THINGS)
        is_odd = label in ("sun", "moon") and (
            scene.time == ("night" if label == "sun" else "day")
            or any(item.label in ("sun", "moon") for item in items)
        )
        item = None if is_odd else _place(rng, label, scene)
        if item is not None and all(_is_apart(item, other) for other in items):
            items.append(item)
    return with_things(scene, items)


def _is_apart(item: Item, other: Item) -> bool:
    """Things may hide each other in part, never wholly."""
    reach = 0.3 * (item.height + other.height)
    return abs(item.x - other.x) > 0.6 * reach or abs(item.y - other.y) > reach


def sample_single(rng: np.random.Generator, label: str) -> Scene:
    """A scene whose only thing is one large enough `label`."""
    while True:
        scene = empty_scene(rng)
        if label in ("sun", "moon") and scene.time == ("night" if label == "sun" else "day"):
            continue
        item = _place(rng, label, scene)
        if item is not None and item.height >= 0.6 * _HEIGHTS[label]:
            return with_things(scene, [item])


def render(
    scene: Scene, rng: np.random.Generator, *, size_px: int
) -> tuple[np.ndarray, np.ndarray]:
    """Paint the scene.

    Returns:
        Image (size_px, size_px, 3) uint8 and mask (size_px, size_px) uint8 of indices into LABELS.
    """
    canvas = Canvas(2 * size_px)
    stuff.paint_sky(canvas, rng, scene.time, LABEL_IDS["sky"])
    items = list(scene.items)
    while items and items[0].label in ("sun", "moon"):
        _paint_item(canvas, rng, items.pop(0))
    for x, y in scene.clouds:
        stuff.paint_cloud(canvas, rng, x, y, rng.uniform(0.3, 0.55), scene.time, LABEL_IDS["cloud"])
    if scene.mountain:
        stuff.paint_mountains(
            canvas, rng, scene.horizon + 0.01, scene.mountain, LABEL_IDS["mountain"]
        )
    if scene.hill:
        stuff.paint_hills(canvas, rng, scene.horizon + 0.01, scene.hill, LABEL_IDS["hill"])
    for name, top in scene.grounds:
        _paint_ground(canvas, rng, name, top)
    if scene.path:
        _paint_path(canvas, rng, scene)
    for item in items:
        _paint_item(canvas, rng, item)
    return canvas.finish(rng, light=_LIGHT[scene.time], size_px=size_px)


def _paint_item(canvas: Canvas, rng: np.random.Generator, item: Item) -> None:
    colour = jitter(rng, COLOURS.get(item.colour, (128, 128, 128)), 7)
    paint = things.PAINTERS[item.label]
    paint(canvas, rng, item.x, item.y, item.height, colour, LABEL_IDS[item.label])


def _paint_ground(canvas: Canvas, rng: np.random.Generator, name: str, top: float) -> None:
    xs = np.linspace(0, 1, 25)
    swell = 0.0 if name == "sea" else 0.012
    edge = top + swell * np.sin(xs * rng.uniform(4, 10) + rng.uniform(0, 6.3))
    outline: list[Point] = [*zip(xs.tolist(), edge.tolist(), strict=True), (1.0, 1.01), (0.0, 1.01)]
    stuff.paint_ground(canvas, rng, name, outline, LABEL_IDS[name])


def _paint_path(canvas: Canvas, rng: np.random.Generator, scene: Scene) -> None:
    """A road runs straight to the horizon or across; a river winds."""
    top = max(scene.horizon, 0.0) + 0.02
    if scene.path == "road" and rng.random() < 0.5:
        y, half = rng.uniform(top + 0.25 * (1 - top), 0.9), rng.uniform(0.06, 0.1)
        outline: list[Point] = [(0, y - half), (1, y - half), (1, y + half), (0, y + half)]
        stuff.paint_ground(canvas, rng, "road", outline, LABEL_IDS["road"])
        for left in np.arange(0.03, 1, 0.16):
            canvas.line([(left, y), (left + 0.08, y)], 0.014, (244, 240, 220))
        return
    ys = np.linspace(top, 1.01, 25)
    near = (ys - top) / (1.01 - top)
    bend = 0.0 if scene.path == "road" else rng.uniform(0.08, 0.16)
    foot, head = rng.uniform(0.2, 0.8, 2)
    middle = head + (foot - head) * near + bend * np.sin(near * rng.uniform(5, 8)) * (0.3 + near)
    half = 0.025 + rng.uniform(0.13, 0.2) * near
    left = list(zip((middle - half).tolist(), ys.tolist(), strict=True))
    right = list(zip((middle + half).tolist(), ys.tolist(), strict=True))
    stuff.paint_ground(canvas, rng, scene.path, [*left, *right[::-1]], LABEL_IDS[scene.path])
    if scene.path == "road":
        stuff.paint_dashes(canvas, (float(head), top), (float(foot), 1.0))
