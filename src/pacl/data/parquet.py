"""Tables in Parquet files; needs pyarrow, from the extra `data`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pacl.data.tables import Row, Table, spread
from pacl.errors import InputError
from pacl.runtime.packages import require_packages

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile


def read_parquet(source: Path) -> Table:
    """Read the texts of a Parquet file; columns of other types become empty cells.

    Raises:
        InputError: It is no Parquet file.
        EnvironmentProblem: The package pyarrow is missing.
    """
    file = open_parquet(source)
    return Table(list(file.schema_arrow.names), _iter_rows(file), "Parquet")


def open_parquet(source: Path) -> ParquetFile:
    """Open a Parquet file, with the errors of `read_parquet`."""
    require_packages(["pyarrow"], purpose=f"reading {source.name}")
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    try:
        return ParquetFile(source)
    except (ArrowException, OSError) as error:
        raise InputError(f"{source} is not a Parquet file", why=str(error)) from error


def _iter_rows(file: ParquetFile) -> Iterator[Row]:
    number = 0
    for batch in file.iter_batches():
        for record in batch.to_pylist():
            number += 1
            yield from ((number, cells) for cells in spread(record))
