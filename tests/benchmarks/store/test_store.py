from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from benchmarks.store.artefacts import Store
from benchmarks.work.run_status import new_run, write_record
from dbn_core.errors import ArtefactError, StoreError
from dbn_core.files import atomic_write

KEY = "ab" + "0" * 38


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "store")
    store.put("part", KEY, {"recipe": {"x": 1}}, save({"w": np.arange(6, dtype=np.float32)}))
    return store


def test_what_is_put_comes_back(store: Store) -> None:
    assert store.has("part", KEY)
    assert store.value("part", KEY)["value"] == {"recipe": {"x": 1}}
    assert store.arrays("part", KEY)["w"].tolist() == [0, 1, 2, 3, 4, 5]
    assert not store.has("part", "cd" + "0" * 38)
    assert not store.has("member", KEY)


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(bytes(content))


@pytest.mark.parametrize(
    "damage",
    [
        lambda s: flip_a_byte(s.tensors_path("part", KEY)),
        lambda s: s.tensors_path("part", KEY).write_bytes(b""),
        lambda s: flip_a_byte(s.sidecar_path("part", KEY)),
        lambda s: s.sidecar_path("part", KEY).write_text("{}"),
        lambda s: s.sidecar_path("part", KEY).write_text("[1]"),
        lambda s: s.sidecar_path("part", KEY).write_text(
            s.sidecar_path("part", KEY).read_text().replace('"x": 1', '"x": 2')
        ),
    ],
    ids=["tensors flipped", "truncated", "sidecar flipped", "emptied", "foreign", "altered"],
)
def test_damage_is_named_and_set_aside(store: Store, damage: object) -> None:
    damage(store)  # type: ignore[operator]
    with pytest.raises(ArtefactError, match=f"part/{KEY}"):
        store.arrays("part", KEY)
    assert not store.has("part", KEY)  # the next run rebuilds it
    assert list(store.root.rglob("*.damaged"))
    store.put("part", KEY, {}, save({"w": np.zeros(1, np.float32)}))
    assert store.arrays("part", KEY)["w"].tolist() == [0]


def test_an_interrupted_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "value.json"
    atomic_write(file, b"old")

    def fail(*args: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(StoreError, match=r"value.json': disk full: free space"):
        atomic_write(file, b"new")
    assert file.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["value.json"]


def test_checkpoints_go_with_what_a_killed_write_left_of_them(store: Store) -> None:
    folder = store.checkpoint_path("ab12").parent
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("ab12.train.safetensors", ".ab12.train.safetensors.x1y2.tmp", "cd34.train.safetensors"):
        (folder / name).write_bytes(b"-")
    store.drop_checkpoints("ab12")
    assert [path.name for path in folder.iterdir()] == ["cd34.train.safetensors"]


@pytest.mark.parametrize(("umask", "mode"), [(0o002, 0o664), (0o077, 0o600)])
def test_the_umask_says_who_may_read_what_is_written(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        atomic_write(tmp_path / "value.json", b"new")
        assert os.umask(umask) == umask
    finally:
        os.umask(before)
    assert (tmp_path / "value.json").stat().st_mode & 0o777 == mode


def test_progress_files_do_not_write_through_links(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("mine")
    handle = new_run("x", tmp_path)
    handle.record.parent.mkdir()
    handle.record.with_suffix(f".{os.getpid()}.tmp").symlink_to(tmp_path / "victim")
    write_record(handle, state="running")
    assert json.loads(handle.record.read_text())["state"] == "running"
    assert (tmp_path / "victim").read_text() == "mine"
