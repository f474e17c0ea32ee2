"""Label Studio: tasks with predictions, and the labelling configuration that they need."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

import numpy as np
from jaxtyping import Bool
from PIL import Image

from pacl.results.palette import class_colours
from pacl.results.writers.parts import Parts
from pacl.results.writers.writer import Result
from pacl.runtime.files import replacing, write_atomically

RUN_BITS = (3, 4, 8, 16)
"""Bits that the length of a run may have in brush masks."""


class LabelStudioWriter:
    """Writes label-studio.json, to be imported, and label-studio.xml, the labelling interface.

    Args:
        use_brush: Write regions of <BrushLabels>, in Label Studio's own run lengths, in place of
            <BitmaskLabels>, which older versions do not know.
    """

    def __init__(self, *, use_brush: bool = False) -> None:
        self._name = "label-studio-brush" if use_brush else "label-studio"
        self._kind = "Brush" if use_brush else "Bitmask"
        self._parts = Parts(self._name, ".json")
        self._folder = Path()

    def mark(self, stem: str) -> str:
        """Return the path of the image's task."""
        return self._parts.mark(stem)

    def open(self, folder: Path, labels: Sequence[str]) -> None:
        """Write the configuration; begin or continue the tasks."""
        self._folder = folder
        self._parts.open(folder, labels)
        colours = ["#{:02x}{:02x}{:02x}".format(*colour) for colour in class_colours(labels)]
        choices = "".join(
            f"    <Label value={quoteattr(label)} background={quoteattr(colour)}/>\n"
            for label, colour in zip(labels, colours, strict=True)
        )
        text = (
            '<View>\n  <Image name="image" value="$image" smoothing="false" zoom="true"/>\n'
            f'  <{self._kind}Labels name="label" toName="image">\n{choices}'
            f"  </{self._kind}Labels>\n</View>\n"
        )
        write_atomically(folder / f"{self._name}.xml", text.encode())

    def add(self, result: Result, stem: str) -> Path:
        """Keep the image's task for the JSON file, whose path is returned."""
        source = result.source or stem
        url = source if "://" in source else f"/data/local-files/?d={quote(source)}"
        regions = self._regions(result)
        scores = [region["score"] for region in regions]
        prediction = {
            "model_version": "pacl",
            "score": round(float(np.mean(scores)), 4) if scores else 0.0,
            "result": regions,
        }
        task = {"data": {"image": url}, "predictions": [prediction]}
        self._parts.write(stem, json.dumps(task, ensure_ascii=False).encode())
        return self._folder / f"{self._name}.json"

    def close(self) -> None:
        """Write the JSON file."""
        path = self._folder / f"{self._name}.json"
        with replacing(path) as draft, draft.open("w", encoding="utf-8") as file:
            for number, (_, part) in enumerate(self._parts):
                file.write(",\n" if number else "[\n")
                file.write(part.read_text(encoding="utf-8"))
            file.write("\n]\n")

    def _regions(self, result: Result) -> list[dict[str, Any]]:
        """One region per label in the image; a region may have several parts."""
        kind = f"{self._kind.lower()}labels"
        height, width = result.label_map.shape
        regions = []
        for number in np.unique(result.label_map[result.label_map > 0]).tolist():
            mask = result.label_map == number
            if self._kind == "Brush":
                value: dict[str, Any] = {"format": "rle", "rle": encode_brush(mask)}
            else:
                value = {"imageDataURL": encode_bitmask(mask)}
            regions.append(
                {
                    "id": f"label-{number}",
                    "type": kind,
                    "from_name": "label",
                    "to_name": "image",
                    "original_width": width,
                    "original_height": height,
                    "image_rotation": 0,
                    "value": value | {kind: [result.labels[number - 1]]},
                    "score": round(float(result.scores[mask].mean()), 4),
                }
            )
        return regions


def encode_bitmask(mask: Bool[np.ndarray, "H W"]) -> str:
    """Return the data URL of a PNG: the mask black, the rest transparent."""
    image = Image.fromarray(mask.astype(np.uint8)).convert("P")
    image.putpalette([0, 0, 0, 0, 0, 0])
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", transparency=0, bits=1)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def encode_brush(mask: Bool[np.ndarray, "H W"]) -> list[int]:
    """Return Label Studio's run lengths of an RGBA image whose channels are all 0 or all 255.

    In bits: the number of values (32), bits of a value less one (5), the four lengths' bits less
    one (4 each); then per run a 1, which of the four (2), the length less one, and the value.
    """
    values = mask.ravel()
    ends = np.concatenate([np.flatnonzero(np.diff(values)) + 1, [values.size]])
    begins = np.concatenate([[0], ends[:-1]])
    bits = [f"{4 * values.size:032b}{7:05b}", *(f"{size - 1:04b}" for size in RUN_BITS)]
    longest = 1 << RUN_BITS[-1]
    for begin, end in zip((4 * begins).tolist(), (4 * ends).tolist(), strict=True):
        value = f"{255 * int(values[begin // 4]):08b}"
        for start in range(begin, end, longest):
            length = min(longest, end - start) - 1
            which = next(k for k, size in enumerate(RUN_BITS) if length < 1 << size)
            bits.append(f"1{which:02b}{length:0{RUN_BITS[which]}b}{value}")
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return list(int(text, 2).to_bytes(len(text) // 8, "big"))
