"""Segment an image with an exported model: onnxruntime, tokenizers, numpy and Pillow, no torch.

python segment_onnx.py EXPORT IMAGE "sky,road,car"     writes IMAGE_labels.png, 1 = the first label
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image
from tokenizers import Tokenizer


class Segmenter:
    def __init__(self, export: Path):
        self.settings = json.loads((export / "export.json").read_text(encoding="utf-8"))
        self.tokenizer = Tokenizer.from_file(str(export / "tokenizer.json"))
        self.images = onnxruntime.InferenceSession(export / "images.onnx")
        self.texts = onnxruntime.InferenceSession(export / "texts.onnx")

    def embed(self, labels: list[str]) -> np.ndarray:
        """Each label in all templates; unit embeddings, averaged, again of unit length."""
        templates = self.settings["templates"]
        rows = self.tokenizer.encode_batch([t.replace("{}", x) for x in labels for t in templates])
        ids = np.array([row.ids for row in rows])
        mask = np.array([row.attention_mask for row in rows])
        [embeds] = self.texts.run(None, {"input_ids": ids, "attention_mask": mask})
        means = embeds.reshape(len(labels), len(templates), -1).mean(axis=1)
        return means / np.linalg.norm(means, axis=1, keepdims=True)

    def segment(self, image: Image.Image, text_embeds: np.ndarray) -> np.ndarray:
        """The label of every pixel, counted from 1."""
        step, short = self.settings["side_multiple_px"], self.settings["image_size_px"]
        scale = short / min(image.size)
        size = [max(1, round(side * scale / step)) * step for side in image.size]
        resample = Image.Resampling[self.settings["resample"].upper()]
        pixels = np.asarray(image.resize(size, resample), dtype=np.float32)
        pixels = pixels * self.settings["scale"] + self.settings["shift"]
        batch = pixels.transpose(2, 0, 1)[None].astype(np.float32)
        [scores] = self.images.run(None, {"images": batch, "text_embeds": text_embeds})
        planes = (Image.fromarray(plane) for plane in scores[0])
        full = [np.asarray(p.resize(image.size, Image.Resampling.BILINEAR)) for p in planes]
        return np.argmax(full, axis=0).astype(np.uint8) + 1


def main(export: str, path: str, words: str) -> None:
    segmenter = Segmenter(Path(export))
    image, labels = Image.open(path).convert("RGB"), [word.strip() for word in words.split(",")]
    found = segmenter.segment(image, segmenter.embed(labels))
    Image.fromarray(found).save(Path(path).with_name(f"{Path(path).stem}_labels.png"))
    for number, label in enumerate(labels, start=1):
        print(f"{label}: {(found == number).mean():.1%}")


if __name__ == "__main__":
    main(*sys.argv[1:])
