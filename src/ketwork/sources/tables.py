"""Tables (`.csv`, `.jsonl`, `.parquet`): a column of texts or columns of numbers, and one of labels."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd
import torch

from ketwork.sources.arrays import from_arrays
from ketwork.sources.batches import LoadedData
from ketwork.sources.errors import DAMAGED, SourceError, listed, nearest
from ketwork.sources.labels import encode_labels
from ketwork.sources.texts import TextBatches

_MISSING = ["", "NA", "N/A", "<NA>", "#N/A", "NaN", "nan", "-nan", "NULL", "null", "None"]
_LABELS = ("label", "labels")
_UNNAMED = "Unnamed: "  # pandas' name for a column without one: mostly a saved index


FORMATS = ("csv", "tsv", "json", "jsonl", "parquet", "txt")


def is_table(path: Path) -> bool:
    """Whether the file's name says that it is a table that `load_table` reads.

    >>> is_table(Path("messages.csv.gz")), is_table(Path("messages.txt"))
    (True, True)
    """
    return _format(path) in FORMATS


def load_table(
    path: Path,
    *,
    text: str | None,
    inputs: str | Sequence[str] | None,
    label: str | None,
    tokenizer: Any | None,
    batch_size: int,
    dtype: torch.dtype,
    skip_bad: bool,
) -> LoadedData:
    """Batches of a table's rows.

    With `text`, or with a tokenizer and neither `text` nor `inputs` (then the column "text"): mappings of
    tokens. Otherwise arrays of the columns that `inputs` names (names or globs; by default all columns of
    numbers but the label and unnamed ones), as floats; a column of lists of equal length counts as many.
    `label` is by default the column "label" or "labels", where there is one.
    """
    names = _column_names(path)
    if label is not None:
        _check_column(names, label, "label", path)
    else:
        label = next((name for name in _LABELS if name in names), None)
    wanted = [inputs] if isinstance(inputs, str) else inputs
    if text is None and not wanted and tokenizer is not None:
        text = "text"
    if text is not None and wanted:
        raise SourceError("Arguments `text` and `input` must not both be given. Leave out one of them.")
    if text is not None:
        _check_column(names, text, "text", path)
        if tokenizer is None:
            raise SourceError(
                "Argument `text` must go with a model that has a tokenizer, but this one has none. Give a "
                "Hugging Face "
                "folder with its tokenizer, or tokenise in a `package.module:factory` that returns batches."
            )
        table = _read(path, _unique([text, label]), text)
        return _texts(table, text, label, tokenizer, batch_size, skip_bad, path)
    if wanted:
        columns = _matching(names, wanted, path)
        table = _read(path, _unique([*columns, label]), None)
    else:
        table = _read(path, names, None)
        columns = _numeric(table, label, path)
    features = _numbers(table, columns, skip_bad, path)
    loaded = from_arrays(
        features,
        None if label is None else table[label].to_numpy(),
        batch_size=batch_size,
        dtype=dtype,
        name=path.name,
        label_name=label or "labels",
    )
    loaded.description.update(kind="table", input=columns, label=label)
    return loaded


def _texts(
    table: pd.DataFrame,
    text: str,
    label: str | None,
    tokenizer: Any,
    batch_size: int,
    skip_bad: bool,
    path: Path,
) -> LoadedData:
    missing = table[text].isna()
    notes: tuple[str, ...] = ()
    if missing.any():
        first = int(missing.to_numpy().argmax())
        rows = f"{int(missing.sum())} of {len(table)} rows of {path.name} (first: row {first})"
        if not skip_bad:
            raise SourceError(
                f"Argument `text` must name a column without gaps, but {text!r} is empty in {rows}. "
                "Fill them, or skip them with `skip_bad` (--skip-bad)."
            )
        notes = (f"Skipped, as column {text!r} is empty: {rows}.",)
        table = table[~missing]
    other = next((value for value in table[text] if not isinstance(value, str)), None)
    if other is not None:
        raise SourceError(
            f"Argument `text` must name a column of strings, but {text!r} holds {other!r}. Name it with "
            "`input` if "
            "it holds numbers."
        )
    if not len(table):
        raise SourceError(
            f"Argument `data` must hold at least one sample, but {path} has no text in column {text!r}."
        )
    labels, label_names = None, None
    if label is not None:
        labels, label_names = encode_labels(table[label].to_numpy(), label, len(table))
    batches = TextBatches(table[text].tolist(), labels, tokenizer, batch_size)
    description = {"kind": "table", "text": text, "label": label}
    return LoadedData(batches, len(table), labels is not None, label_names, description, notes)


def _numbers(table: pd.DataFrame, columns: Sequence[str], skip_bad: bool, path: Path) -> np.ndarray:
    parts = []
    for name in columns:
        column = table[name]
        if not pd.api.types.is_numeric_dtype(column):
            values = _stacked(column, name, path)
        else:
            values = column.to_numpy(dtype=np.float64, na_value=np.nan)[:, None]
        bad = np.flatnonzero(~np.isfinite(values).all(axis=tuple(range(1, values.ndim))))
        if len(bad) and not skip_bad:
            raise SourceError(
                f"Argument `input` must name columns of finite numbers, but {name!r} of {path.name} is "
                "missing or not "
                f"finite in {len(bad)} of {len(table)} rows (first: row {bad[0]}). Fill them, name other "
                "columns "
                "with `input`, or skip these samples with `skip_bad` (--skip-bad)."
            )
        parts.append(values)
    return parts[0] if len(parts) == 1 else np.hstack([part.reshape(len(part), -1) for part in parts])


def _stacked(column: pd.Series, name: str, path: Path) -> np.ndarray:
    """A column of lists of numbers as one array."""
    values = column.tolist()
    plain = [(row, v) for row, v in enumerate(values) if not isinstance(v, list | tuple | np.ndarray)]
    if plain:
        row, value = next((pair for pair in plain if not _is_number(pair[1])), plain[0])
        raise SourceError(
            f"Argument `input` must name columns of numbers, but {name!r} of {path.name} holds {value!r} in "
            f"row {row}. Name a column of texts with `text`."
        )
    try:
        return np.array([np.asarray(value, dtype=np.float64) for value in values])
    except (ValueError, TypeError) as error:
        raise SourceError(
            "Argument `input` must name a column of lists of numbers, all of one length, but the lists of "
            f"{name!r} in {path.name} are not."
        ) from error


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def _mostly_numbers(column: pd.Series) -> bool:
    """Whether nine of ten, but not all, of a column of strings are numbers."""
    if pd.api.types.is_numeric_dtype(column):
        return False
    values = [value for value in column if pd.notna(value)]
    if any(isinstance(value, list | tuple | np.ndarray | dict) for value in values):
        return False
    numbers = sum(map(_is_number, values))
    return 0.9 * len(values) <= numbers < len(values)


def _numeric(table: pd.DataFrame, label: str | None, path: Path) -> list[str]:
    mixed = [name for name in table.columns if name != label and _mostly_numbers(table[name])]
    if mixed:
        values = table[mixed[0]]
        row = next(i for i, value in enumerate(values) if pd.notna(value) and not _is_number(value))
        raise SourceError(
            f"Argument `data` must have columns of numbers or of words, but {str(mixed[0])!r} of {path.name} holds "
            f"{values.iloc[row]!r} in row {row} among numbers. Correct it (an empty cell is a gap, which `skip_bad` "
            "(--skip-bad) skips), or name the columns to read with `input`."
        )
    columns = [
        name
        for name in table.columns
        if name != label and not str(name).startswith(_UNNAMED) and pd.api.types.is_numeric_dtype(table[name])
    ]
    if not columns:
        raise SourceError(
            "Argument `data` must have columns of numbers, or `text` or `input` must name the columns to "
            "read, but "
            f"{path.name} has only: {listed(map(str, table.columns))}."
        )
    return columns


def _matching(names: Sequence[str], wanted: Iterable[str], path: Path) -> list[str]:
    columns: list[str] = []
    for pattern in wanted:
        matches = [pattern] if pattern in names else [name for name in names if fnmatchcase(name, pattern)]
        if not matches:
            _check_column(names, pattern, "input", path)
        columns += matches
    return _unique(columns)


def _check_column(names: Sequence[str], name: str, argument: str, path: Path) -> None:
    if name not in names:
        raise SourceError(
            f"Argument `{argument}` must name a column of {path.name}, but there is no {name!r}. "
            f"Nearest first: {listed(nearest(name, names)) or 'it has none'}."
        )


def _unique(names: Iterable[str | None]) -> list[str]:
    return list(dict.fromkeys(name for name in names if name is not None))


def _format(path: Path) -> str:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
    return suffixes[-1].lstrip(".") if suffixes else ""


def _column_names(path: Path) -> list[str]:
    if _format(path) == "parquet":
        return list(_parquet(path).schema_arrow.names)
    return [str(name) for name in _parsed(path, 1).columns]


def _read(path: Path, columns: list[str], text: str | None) -> pd.DataFrame:
    """The named columns; at least one row."""
    table = _read_parquet(path, columns) if _format(path) == "parquet" else _parsed(path, None, columns, text)
    if not len(table):
        raise SourceError(f"Argument `data` must hold at least one sample, but {path} has no rows.")
    return table


def _parsed(
    path: Path, rows: int | None, columns: list[str] | None = None, text: str | None = None
) -> pd.DataFrame:
    try:
        match _format(path):
            case "jsonl":
                table = _read_lines(path, rows)
            case "json":
                table = _read_json(path)
            case "txt":
                table = _read_texts(path)
            case _:
                table = _read_csv(path, rows, columns, text)
    except pd.errors.EmptyDataError as error:
        raise SourceError(f"Argument `data` must hold at least one sample, but {path} is empty.") from error
    except DAMAGED as error:
        raise SourceError(
            f"Argument `data` must name a complete table in UTF-8, but {path} is not: {str(error).strip()}"
        ) from error
    return table if columns is None else table.reindex(columns=columns)


def _read_csv(path: Path, rows: int | None, columns: list[str] | None, text: str | None) -> pd.DataFrame:
    # A text that reads "None" or "NA" is a text; in a column of numbers it is a gap.
    gaps = {name: [""] if name == text else _MISSING for name in columns or []}
    kinds = None if text is None else {text: "str"}
    # Every column is parsed: of some columns alone, pandas would silently drop the cells of rows that are too long.
    separator = "\t" if _format(path) == "tsv" else ","
    table = pd.read_csv(path, sep=separator, nrows=rows, dtype=kinds, keep_default_na=False, na_values=gaps)
    if not isinstance(table.index, pd.RangeIndex):  # pandas took the surplus for an index
        raise ValueError("rows have more cells than the header")
    return table


def _read_texts(path: Path) -> pd.DataFrame:
    """A text a line, as the column "text"; empty lines are none."""
    with _opened(path) as lines:
        texts = [line.rstrip("\r\n") for line in lines]
    return pd.DataFrame({"text": [text for text in texts if text.strip()]}, dtype=object)


def _read_json(path: Path) -> pd.DataFrame:
    """A list of objects, or an object with a list for each column."""
    with _opened(path) as file:
        content = json.load(file)
    rows = isinstance(content, list) and all(isinstance(row, dict) for row in content)
    columns = isinstance(content, dict) and all(isinstance(values, list) for values in content.values())
    if not rows and not columns:
        raise ValueError("it is no list of objects, and no object with a list for each column")
    return pd.DataFrame(content)


def _opened(path: Path) -> IO[str]:
    return gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else open(path, encoding="utf-8")


def _read_lines(path: Path, rows: int | None) -> pd.DataFrame:
    records: list[dict[str, Any]] = []
    with _opened(path) as lines:
        for number, line in enumerate(lines):
            if rows is not None and len(records) >= rows:
                break
            if line.strip():
                record = json.loads(line)
                if not isinstance(record, dict):
                    raise ValueError(f"line {number + 1} is no object with names")
                records.append(record)
    return pd.DataFrame(records)


def _parquet(path: Path) -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise SourceError(
            "Argument `data` is a .parquet file, which needs the pyarrow package, but it is not installed. "
            "Run `pip install 'ketwork[data]'`."
        ) from error
    with _complete_parquet(path):
        return pyarrow.parquet.ParquetFile(path)


@contextmanager
def _complete_parquet(path: Path) -> Iterator[None]:
    """What pyarrow makes of a damaged file (its errors are ValueErrors, OSErrors, …) as one kind of error."""
    try:
        yield
    except DAMAGED as error:
        raise SourceError(
            f"Argument `data` must name a complete parquet file, but {path} ({path.stat().st_size:,} bytes) is "
            "truncated or not one."
        ) from error


def _read_parquet(path: Path, columns: list[str]) -> pd.DataFrame:
    with _parquet(path) as file, _complete_parquet(path):
        parts = [batch.to_pandas(ignore_metadata=True) for batch in file.iter_batches(columns=columns)]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)
