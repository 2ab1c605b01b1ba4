"""Table files for tests: one frame in every form that is read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

FORMS = ("csv", "csv.gz", "parquet", "feather")


def written(frame: pd.DataFrame, folder: Path, form: str, name: str = "table") -> Path:
    path = folder / f"{name}.{form}"
    if form.startswith("csv"):
        frame.to_csv(path, index=False)
    elif form == "parquet":
        frame.to_parquet(path, index=False, row_group_size=64)
    else:
        frame.to_feather(path, chunksize=64)
    return path


def patients(rows: int = 200, seed: int = 0) -> pd.DataFrame:
    """A table with a column of every kind, some cells of it missing; the ids are in no order."""
    random = np.random.default_rng(seed)
    frame: pd.DataFrame = pd.DataFrame(
        {
            "id": random.permutation(rows) + 1000,
            "age": random.integers(18, 99, rows),
            "dose": random.normal(12, 3, rows),
            "city": random.choice(["Ulm", "Kiel", "Bonn", "Jena"], rows, p=[0.4, 0.3, 0.2, 0.1]),
            "smoker": random.choice([True, False], rows),
            "seen": pd.Timestamp("2024-01-01") + pd.to_timedelta(random.integers(0, 900, rows), unit="D"),
            "ill": random.integers(0, 2, rows),
        }
    )
    frame["dose"] = frame["dose"].mask(random.random(rows) < 0.1)
    frame["city"] = frame["city"].mask(random.random(rows) < 0.1)
    return frame
