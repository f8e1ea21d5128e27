"""Opening the files of a data set with the mapping that reads them all."""

from collections.abc import Sequence
from pathlib import Path

from headrace.connectors.file_csv import CsvFile
from headrace.connectors.file_formats import DataFile, suffix
from headrace.connectors.file_ndjson import NdjsonFile
from headrace.connectors.file_parquet import ParquetFile
from headrace.connectors.mapping import Mapping, choose_mapping
from headrace.engine.errors import ConfigError


def open_files(paths: Sequence[Path], mapping: Mapping | None) -> tuple[Mapping, list[DataFile]]:
    """The files, and the mapping that reads them all: the one given, or the shipped one that fits the first file.

    Raises:
        ConfigError: a file cannot be opened, or lacks a column; with every mistake.
    """
    files: list[DataFile] = []
    mistakes: list[str] = []
    for path in paths:
        try:
            files.append(_open(path, mapping.separator if mapping else ","))
        except ConfigError as error:
            mistakes += error.mistakes
    if mistakes:
        raise ConfigError(*mistakes)
    if mapping is None:
        columns = next((file.columns for file in files if file.columns), ())
        if not columns:
            raise ConfigError(f"{paths[0].parent if len(paths) > 1 else paths[0]}: empty")
        mapping = choose_mapping(columns)
    for file in files:
        if file.fixed_columns and file.columns:
            mistakes += [f"{file.path}: {mistake}" for mistake in mapping.mistakes(file.columns)]
    if mistakes:
        raise ConfigError(*mistakes, f"the mapping is {mapping.name!r}; name another one with --mapping NAME|FILE")
    return mapping, files


def _open(path: Path, separator: str) -> DataFile:
    known = suffix(path) or ""
    if known == ".parquet":
        return ParquetFile(path)
    return CsvFile(path, separator) if known.startswith(".csv") else NdjsonFile(path)
