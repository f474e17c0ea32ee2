"""A folder of images and masks as a benchmark: `images/`, `masks/` and the class names."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from pacl.data.images import open_mask, read_size
from pacl.datasets.segmentation import camvid
from pacl.datasets.segmentation.masks import MaskItem
from pacl.errors import InputError
from pacl.text.labels import Labels, parse_labels

_IMAGE_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"))
_BUILT_IN = {"camvid": (camvid.LABELS, camvid.IGNORE_IDS)}  # by the folder's name


class FolderDataset:
    """Images with a mask each: `images/NAME.*` and `masks/NAME.png`, matched by name.

    Class names are `labels` if given, else those of `classes.json`
    (`{"labels": [...], "ignore": [255]}`), else the lines of `classes.txt` (line 1 is id 0), else
    a built-in list where the folder is called like one (camvid).

    Args:
        root: The folder.
        labels: Class names by id, in any form that `parse_labels` reads.
        ignore_labels: Ids in the masks that are not scored; None takes those that come with the
            class names, or 255.

    Attributes:
        labels: the classes; id k is `labels.names[k]`.
        ignore_labels: as they are in the files.
        ignore_label: what `read_mask` puts for all of them: 255, or 65535 above 255 classes.
        items: image and mask files, by name.

    Raises:
        InputError: A folder or the class names are missing, an image has no mask, or a mask is of
            another size than its image.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        labels: str | Path | Labels | Sequence[str] | None = None,
        ignore_labels: Sequence[int] | None = None,
    ) -> None:
        self.root = Path(root)
        self.items = _match(self.root)
        found, found_ignore = _read_classes(self.root) if labels is None else (labels, None)
        self.labels = parse_labels(found)
        self.ignore_label = 255 if len(self.labels) <= 255 else 65535
        given = found_ignore if ignore_labels is None else ignore_labels
        self.ignore_labels = (self.ignore_label,) if given is None else tuple(given)
        for item in self.items:
            _check_size(item)

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[MaskItem]:
        return iter(self.items)

    def read_mask(self, item: MaskItem) -> Int64[np.ndarray, "H W"]:
        """The class id of each pixel, 0 to C-1, or `ignore_label`.

        Raises:
            InputError: The mask cannot be read, or holds an id that is no class and not ignored.
        """
        mask = open_mask(item.mask_path)
        is_ignored = np.isin(mask, self.ignore_labels)
        is_strange = (mask >= len(self.labels)) & ~is_ignored
        if is_strange.any():
            strange = ", ".join(str(each) for each in np.unique(mask[is_strange])[:5])
            raise InputError(
                f"mask {item.mask_path} has ids that are no class: {strange}",
                why=f"{len(self.labels)} classes have the ids 0 to {len(self.labels) - 1}; "
                f"ignored: {', '.join(map(str, self.ignore_labels)) or 'none'}",
                fix='name them in classes.json: {"labels": [...], "ignore": [' + strange + "]}",
            )
        mask[is_ignored] = self.ignore_label
        return mask


def _match(root: Path) -> tuple[MaskItem, ...]:
    """Every image with its mask; all images must have one."""
    for directory in (root / "images", root / "masks"):
        if not directory.is_dir():
            raise InputError(
                f"no folder {directory}",
                fix="lay the data out as images/NAME.jpg and masks/NAME.png",
            )
    image_paths = [p for p in (root / "images").iterdir() if p.suffix.lower() in _IMAGE_SUFFIXES]
    items = [MaskItem(p, root / "masks" / f"{p.stem}.png") for p in sorted(image_paths)]
    if not items:
        raise InputError(f"no images in {root / 'images'}")
    missing = [item.mask_path for item in items if not item.mask_path.is_file()]
    if missing:
        raise InputError(
            f"{len(missing)} of {len(items)} images have no mask",
            why=f"the first that is missing: {missing[0]}",
            fix="add the masks, or move those images away",
        )
    return tuple(items)


def _read_classes(root: Path) -> tuple[Path | Sequence[str], Sequence[int] | None]:
    """Class names (or the file that lists them) and the ids to ignore, where they are named."""
    json_path, text_path = root / "classes.json", root / "classes.txt"
    if json_path.is_file():
        return json_path, _read_ignore_labels(json_path)
    if text_path.is_file():
        return text_path, None
    name = root.resolve().name.lower()
    if name in _BUILT_IN:
        return _BUILT_IN[name]
    raise InputError(
        f"no class names for {root}",
        why="looked for classes.json and classes.txt in it, and for a built-in list called "
        f"{name!r} (there are: {', '.join(_BUILT_IN)})",
        fix='write classes.txt, one name per line from id 0, or give --labels "sky,road"',
    )


def _read_ignore_labels(json_path: Path) -> Sequence[int] | None:
    try:
        content = json.loads(json_path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise InputError(f"{json_path} cannot be read as JSON", why=str(error)) from error
    ignore_labels = content.get("ignore") if isinstance(content, dict) else None
    if ignore_labels is None:
        return None
    if not isinstance(ignore_labels, list) or not all(
        isinstance(each, int) for each in ignore_labels
    ):
        raise InputError(f'"ignore" in {json_path} is no list of ids', fix='"ignore": [255]')
    return ignore_labels


def _check_size(item: MaskItem) -> None:
    image_size, mask_size = read_size(item.image_path), read_size(item.mask_path)
    if image_size != mask_size:
        of_image, of_mask = (f"{width} x {height}" for height, width in (image_size, mask_size))
        raise InputError(
            f"mask {item.mask_path} is {of_mask} px, its image {of_image}",
            why=f"image: {item.image_path}",
            fix="make the mask again at the image's size; scaling it would blur the truth",
        )
