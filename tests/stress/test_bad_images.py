"""Images and Parquet files of strangers: what is damaged is refused in a sentence, and nothing of it is run."""

from __future__ import annotations

import io
import json
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, reject
from hypothesis import strategies as st
from PIL import Image

from dbn_core.data.decode import decode_images
from dbn_core.data.parquet import ParquetSource
from dbn_core.errors import DataError
from tests.stress.asking import BAD_INPUTS, HARMLESS, tries
from tests.stress.figures import Tally
from tests.stress.mutations import JUNK, scrambled

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, of damaged TIFF files
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "PPM", "WEBP", "EPS")


def encoded(kind: str, side: int = 6) -> bytes:
    pixels = np.random.default_rng(side).integers(0, 256, (side, side, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


IMAGES = {kind: encoded(kind) for kind in FORMATS}


def refused(tally: Tally, error: DataError | None) -> None:
    if error is not None:
        assert "\n" not in str(error).strip()
        assert str(error).isprintable()
    tally(HARMLESS if error is None else BAD_INPUTS)


@pytest.fixture
def no_ghostscript(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A ``gs`` that leaves a trace when anybody starts it."""
    program, trace = tmp_path / "gs", tmp_path / "started"
    program.write_text(f"#!/bin/sh\ntouch {trace}\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return trace


@tries(full=400, short=40)
@given(data=st.data())
def test_a_damaged_image_is_decoded_or_refused(tally: Tally, no_ghostscript: Path, data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(FORMATS))
    content = data.draw(scrambled(IMAGES[kind]))
    size = data.draw(st.sampled_from([None, 4]))
    error = None
    try:
        images = decode_images([("train/cat/0.png", content)], 1, 3, size)
        assert images.shape[:2] == (1, 3)
    except DataError as found:
        error = found
        assert "train/cat/0.png" in str(error)
    assert not no_ghostscript.exists()
    refused(tally, error)


@tries(full=250, short=25)
@given(data=st.data())
def test_a_damaged_parquet_file_is_read_or_refused(tally: Tally, data: st.DataObject) -> None:
    cells = [{"bytes": IMAGES["PNG"], "path": None} for _ in range(12)]
    labels = [index % 3 for index in range(12)]
    features = {"img": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["cat", "dog", "eel"]}}
    damage = data.draw(st.sampled_from(["file", "metadata", "image", "labels"]))
    metadata = json.dumps({"info": {"features": features}})
    if damage == "metadata":
        junk, place = data.draw(JUNK), data.draw(st.integers(0, 3))
        whole = [junk, {"info": junk}, {"info": {"features": junk}}, {"features": junk}][place]
        try:
            metadata = json.dumps(whole, default=str)
        except ValueError:  # Python writes no number of thousands of digits
            reject()
    elif damage == "image":
        cells[5] = {"bytes": data.draw(scrambled(IMAGES["JPEG"])), "path": None}
    elif damage == "labels":
        labels = data.draw(st.lists(st.integers(-2, 2**40), min_size=12, max_size=12))
    with tempfile.TemporaryDirectory() as folder:
        for split in ("train", "test"):
            table = pa.table({"img": cells, "label": labels}).replace_schema_metadata({"huggingface": metadata})
            pq.write_table(table, Path(folder) / f"{split}.parquet")
        if damage == "file":
            file = Path(folder) / "train.parquet"
            file.write_bytes(data.draw(scrambled(file.read_bytes())))
        error = None
        try:
            ParquetSource(root=Path(folder), validation_count=3).load()
        except DataError as found:
            error = found
    refused(tally, error)
