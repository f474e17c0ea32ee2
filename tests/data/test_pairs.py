from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from pacl.data.columns import IMAGE_COLUMNS
from pacl.data.pairs import read_pairs
from pacl.errors import InputError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three pictures in images/, and no table yet."""
    (tmp_path / "images").mkdir()
    for name in ("a.png", "b.png", "ü.png"):
        Image.new("RGB", (2, 2)).save(tmp_path / "images" / name)
    return tmp_path


def write(folder: Path, text: str, name: str = "captions.csv", encoding: str = "utf-8") -> Path:
    path = folder / name
    path.write_bytes(text.encode(encoding))
    return path


def test_several_captions_per_image_in_the_tables_order(folder: Path) -> None:
    write(
        folder,
        'file_name,caption\nimages/b.png,"two,  words"\nimages/a.png,one\nimages/b.png,three\n',
    )
    pairs = read_pairs(folder)
    assert pairs.image_paths == [folder / "images/b.png", folder / "images/a.png"]
    assert pairs.captions == [["two, words", "three"], ["one"]]
    assert len(pairs) == 2
    assert (pairs.report.n_rows, pairs.report.n_pairs, pairs.report.n_skipped) == (3, 3, 0)
    assert pairs.report.summary() == (
        f"3 captions of 2 images from {folder / 'captions.csv'} "
        "(CSV, columns file_name, caption; utf-8)"
    )


@pytest.mark.parametrize("image_column", IMAGE_COLUMNS)
@pytest.mark.parametrize("caption_column", ["caption", "Title", "TEXT", "prompt"])
@pytest.mark.parametrize("separator", [",", "\t", ";", "|"])
def test_columns_and_separators_are_found(
    folder: Path, image_column: str, caption_column: str, separator: str
) -> None:
    rows = [("id", caption_column, image_column), ("7", "a dog", "images/a.png")]
    path = write(folder, "\n".join(separator.join(row) for row in rows), "table.txt")
    pairs = read_pairs(path)
    assert pairs.captions == [["a dog"]]
    assert (pairs.report.image_column, pairs.report.caption_column) == (
        image_column,
        caption_column,
    )


def test_named_columns_win(folder: Path) -> None:
    path = write(folder, "image,caption,img,desc\nx.png,wrong,images/a.png,right\n")
    assert read_pairs(path, image_key="img", caption_key="desc").captions == [["right"]]
    with pytest.raises(InputError, match=r"(?s)no caption column.*looked for: words"):
        read_pairs(path, caption_key="words")


@pytest.mark.parametrize("name", ["captions.tsv", "captions.jsonl"])
def test_a_folder_is_searched(folder: Path, name: str) -> None:
    row = {"file_name": "images/a.png", "caption": "a dog"}
    text = json.dumps(row) if name.endswith("jsonl") else "file_name\tcaption\nimages/a.png\ta dog"
    write(folder, text, name)
    assert read_pairs(folder).captions == [["a dog"]]


def test_jsonl(folder: Path) -> None:
    lines = [
        '{"path": "images/a.png", "text": "one\u2028line"}',
        "",
        '{"text": "other order", "path": "images/a.png", "score": 3}',
        '{"path": "images/b.png"}',
        '{"path": "images/b.png", "text": ["several", "texts"]}',
        '{"path": "images/b.png", "text": [1]}',
        '{"path": ',
        "[1]",
    ]
    pairs = read_pairs(write(folder, "\n".join(lines), "x.jsonl"))
    assert pairs.captions == [["one line", "other order"], ["several", "texts"]]
    assert pairs.report.n_rows == 8
    assert (pairs.report.n_empty_captions, pairs.report.n_malformed) == (2, 2)
    assert pairs.report.examples[0] == "line 4: empty caption of images/b.png"


def test_what_is_skipped_is_counted_and_shown(folder: Path) -> None:
    path = write(
        folder,
        "file_name,caption\n"
        "images/a.png,a dog\n"
        "\n"
        "images/a.png,  \n"
        ",a cat\n"
        "images/none.png,a cat\n"
        "images/a.png, a  dog \n"
        "images/a.png,a dog, a cat\n"
        "https://x.org/a.png,a cat\n",
    )
    report = read_pairs(path).report
    assert (report.n_rows, report.n_pairs, report.n_skipped) == (7, 1, 6)
    assert (report.n_empty_captions, report.n_no_image_name, report.n_duplicates) == (1, 1, 1)
    assert (report.n_missing_images, report.n_malformed) == (2, 1)
    assert report.summary().splitlines()[1:] == [
        "skipped 6 of 7 rows: 1 no image name, 2 image file missing, 1 empty caption, 1 repeated, "
        "1 malformed",
        "  line 4: empty caption of images/a.png",
        "  line 5: no image name",
        f"  line 6: no file {folder / 'images/none.png'}",
    ]


@pytest.mark.parametrize(
    ("encoding", "reported"),
    [
        ("utf-8", "utf-8"),
        ("utf-8-sig", "utf-8"),
        ("utf-16", "utf-16"),
        ("cp1252", "cp1252"),
    ],
)
def test_encodings(folder: Path, encoding: str, reported: str) -> None:
    path = write(folder, "file_name,caption\r\nimages/ü.png,Käfer\r\n", encoding=encoding)
    pairs = read_pairs(path)
    assert pairs.image_paths == [folder / "images/ü.png"]
    assert pairs.captions == [["Käfer"]]
    assert pairs.report.encoding == reported


def test_bytes_of_no_encoding_are_still_read(folder: Path) -> None:
    path = folder / "captions.csv"
    path.write_bytes(b"file_name,caption\nimages/a.png,caf\xe9 \x81\n")
    assert read_pairs(path).report.encoding == "latin-1"


def test_a_wrong_column_names_found_looked_for_and_fix(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder, "img,desc\nimages/a.png,a dog on a road\n")
    monkeypatch.chdir(folder)
    with pytest.raises(InputError) as caught:
        read_pairs("captions.csv")
    assert str(caught.value) == (
        "no caption column in captions.csv\n"
        "  columns found: img, desc        looked for: caption, title, text, prompt\n"
        "  fix: pacl train --data captions.csv --image-key img --caption-key desc"
    )
    with pytest.raises(InputError) as caught:
        read_pairs("captions.csv", caption_key="desc")
    assert caught.value.what == "no image column in captions.csv"
    assert caught.value.fix == "pacl train --data captions.csv --image-key img --caption-key desc"


def test_a_table_without_a_header(folder: Path) -> None:
    path = write(folder, "images/a.png,a dog\n")
    with pytest.raises(InputError, match="has no header; add one"):
        read_pairs(path)


def test_no_usable_row(folder: Path) -> None:
    with pytest.raises(InputError, match=r"(?s)no usable row.*1 image file missing.*no file"):
        read_pairs(write(folder, "file_name,caption\nnone.png,a dog\n"))
    with pytest.raises(InputError, match=r"(?s)no usable row.*no rows below the header"):
        read_pairs(write(folder, "file_name,caption\n"))


def test_captions_in_the_image_column_are_missing_images(folder: Path) -> None:
    path = write(folder, f"image,text\n{'a dog ' * 100},images/a.png\n")
    with pytest.raises(InputError, match="1 image file missing"):
        read_pairs(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b" \n\n", "is empty"),
        (b"\x89PNG\r\n\x1a\n\0\0\0", "is not text"),
        (b"file_name", "no caption column"),
        (b'file_name,caption\n\na.png,"open\n' + b"b.png,x\n" * 60, r"(?s)beyond line 2.*quot"),
        (b'file_name,caption\nimages/a.png,"open\nb.png,x\n', r"(?s)line 1.*does not end"),
        (b'file_name,caption\nimages/a.png,"' + b"x" * 200_000, "quotation mark"),
    ],
)
def test_files_that_are_no_table(folder: Path, content: bytes, message: str) -> None:
    path = folder / "captions.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_pairs(path)


def test_a_caption_of_two_lines(folder: Path) -> None:
    path = write(folder, 'file_name,caption\nimages/a.png,"two\nlines"\nimages/b.png,x,y\n')
    pairs = read_pairs(path)
    assert pairs.captions == [["two lines"]]
    assert pairs.report.examples == [
        "line 4: malformed: wrong number of cells, or not a JSON object"
    ]


def test_no_table_at_all(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file or folder"):
        read_pairs(tmp_path / "nowhere.csv")
    with pytest.raises(InputError, match=r"(?s)no caption table in .*looked for: captions\.csv"):
        read_pairs(tmp_path)


def test_real_captions(flickr_pairs: Path) -> None:
    pairs = read_pairs(flickr_pairs)
    assert len(pairs) == 1000
    assert pairs.report.n_rows == 5000
    assert pairs.report.n_pairs + pairs.report.n_duplicates == 5000
