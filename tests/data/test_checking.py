from __future__ import annotations

from pathlib import Path

from PIL import Image

from pacl.data.checking import check_pairs
from pacl.data.opening import open_pairs


def test_findings_are_counted_and_shown(tmp_path: Path) -> None:
    lines = ["file_name,caption"]
    for number in range(4):
        Image.new("RGB", (4, 4), (max(number, 1), 0, 0)).save(tmp_path / f"{number}.png")
        lines += [f"{number}.png,house number {number}"]
    (tmp_path / "2.png").write_bytes(b"damaged")
    lines += [f"3.png,{'long ' * 60}"]
    (tmp_path / "captions.csv").write_text("\n".join(lines))
    check = check_pairs(open_pairs(tmp_path))
    text = "\n".join(check.lines())
    assert check.n_broken == 1
    assert "image 0 of a table: house number 0" in text
    assert "captions per image: 1 to 2" in text
    assert "60 at most; 1 may be cut" in text
    assert "opened 4 of 4 images: 1 broken" in text
    assert "2.png is not an image" in text
    assert "1 images equal another one" in text
