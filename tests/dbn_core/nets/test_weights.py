"""Weights files: any damaged byte of a saved file gives the weights, or one kind of error."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import pytest
import torch

from dbn_core.errors import DataError
from dbn_core.nets.weights import read_weights


@pytest.mark.parametrize("byte", [b".", b"0", b"\x80"])
@pytest.mark.parametrize("zipped", [True, False])
def test_any_damaged_byte_is_an_error_that_names_the_file(tmp_path: Path, byte: bytes, zipped: bool) -> None:
    file = tmp_path / "w.pt"
    torch.save({"w": torch.zeros(2)}, file, _use_new_zipfile_serialization=zipped)
    content, refused = file.read_bytes(), 0
    for place in range(0, len(content), 1 if not zipped else 7):
        file.write_bytes(content[:place] + byte + content[place + 1 :])
        with contextlib.suppress(DataError):
            assert all(torch.isfinite(tensor).all() for tensor in read_weights(file).values())
            continue
        refused += 1
        with pytest.raises(DataError, match=re.escape(str(file))):
            read_weights(file)
    assert refused
