"""A folder that `datasets.load_dataset(FOLDER)` reads, and that can be put on a hub as it is.

Shards of Parquet, named as hubs name them, and a page that says where they are."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from batchfox.durable import sync_file, sync_folder
from batchfox.words import count

BYTES_A_SHARD = 500 << 20
_MARK = "exported by batchfox"
_PAGE = """\
---
configs:
- config_name: default
  data_files:
  - split: train
    path: data/train-*.parquet
---

{rows}, {mark}.

```python
from datasets import load_dataset

rows = load_dataset("PATH/OF/THIS/FOLDER", split="train")
```
"""


def is_dataset(folder: Path) -> bool:
    """Was this folder written by `write_dataset`, and does it hold nothing else?"""
    try:
        page = (folder / "README.md").read_text(encoding="utf-8")
        names = {path.name for path in folder.iterdir()}
        shards = [path.name for path in (folder / "data").iterdir()]
    except (OSError, UnicodeDecodeError):
        return False
    return _MARK in page and names == {"README.md", "data"} and all(name.startswith("train-") for name in shards)


def write_dataset(folder: Path, schema: pa.Schema, tables: Iterable[pa.Table]) -> int:
    """Writes the folder, which is not there yet, and syncs it. Returns its rows."""
    data = folder / "data"
    data.mkdir(parents=True)
    shards: list[Path] = []
    writer: pq.ParquetWriter | None = None
    rows = size = 0
    try:
        for table in tables:
            if writer is None or size >= BYTES_A_SHARD:
                if writer is not None:
                    writer.close()
                shards.append(data / f"{len(shards):05d}")
                writer, size = pq.ParquetWriter(shards[-1], schema, compression="zstd"), 0
            writer.write_table(table.cast(schema))
            rows += table.num_rows
            size += table.nbytes
            del table
            pa.default_memory_pool().release_unused()
        if writer is None:
            shards.append(data / "00000")
            writer = pq.ParquetWriter(shards[-1], schema, compression="zstd")
    finally:
        if writer is not None:
            writer.close()
    for number, shard in enumerate(shards):
        sync_file(shard)
        shard.rename(data / f"train-{number:05d}-of-{len(shards):05d}.parquet")
    page = folder / "README.md"
    page.write_text(_PAGE.format(rows=count(rows, "row"), mark=_MARK), encoding="utf-8")
    sync_file(page)
    sync_folder(data)
    sync_folder(folder)
    return rows
