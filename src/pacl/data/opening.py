"""Opening whatever a user names as data: a table, a folder, a saved or a hub data set."""

from __future__ import annotations

from pathlib import Path

from pacl.data.pairs import PairSource, read_pairs
from pacl.data.saved import is_saved_dataset, read_hub, read_saved


def open_pairs(
    place: str | Path, *, image_key: str | None = None, caption_key: str | None = None
) -> PairSource:
    """Open captioned images in any layout that pacl knows.

    Args:
        place: A CSV, TSV, JSONL, Parquet or COCO captions file; a folder with one of these, with
            a text beside each image, or written by `datasets`; or owner/name on the hub.
        image_key, caption_key: Columns; None: detected by name.

    Raises:
        InputError: There is no data, no such column, or no usable row.
        EnvironmentProblem: A package that this layout needs is missing.
    """
    path = Path(place)
    keys = {"image_key": image_key, "caption_key": caption_key}
    if is_saved_dataset(path):
        return read_saved(path, **keys)
    if not path.exists() and _is_hub_name(str(place)):
        return read_hub(str(place), **keys)
    return read_pairs(path, **keys)


def _is_hub_name(name: str) -> bool:
    owner, _, rest = name.partition("/")
    return (
        bool(owner)
        and bool(rest)
        and not {"/", ".", "~"} & {rest[0], owner[0]}
        and ("/" not in rest and not Path(rest).suffix)
    )
