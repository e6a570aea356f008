"""Whatever is damaged in a store is found, named and made again, with the same bits."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.run import plan_suite, run_suite
from benchmarks.store.artefacts import Store
from benchmarks.store.storage import verify_store
from benchmarks.suite.load import load_suite
from benchmarks.work.make import Options
from tests.stress.figures import STRESS
from tests.stress.support import assert_same_rows, write_suite


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(bytes(content))


def replace(path: Path) -> None:
    """Another artefact of the same kind takes its place, whole and with a valid checksum of its own."""
    others = [p for p in path.parent.parent.glob(f"*/*{path.suffix}") if p != path]
    path.write_bytes(others[0].read_bytes() if others else b'{"key": "foreign"}')


DAMAGE: dict[str, Callable[[Path], None]] = {"truncated": truncate, "empty": empty, "altered": flip, "foreign": replace}
KINDS = {
    "member": (".json", ".safetensors"),
    "views": (".json", ".safetensors"),
    "part": (".json", ".safetensors"),
    "predictions": (".json", ".safetensors"),
    "cost": (".json",),
    "latency": (".json",),
    "data": (".json",),
}
ALL = [(kind, suffix, how) for kind, suffixes in KINDS.items() for suffix in suffixes for how in DAMAGE]
TRIED = ALL if STRESS else [ALL[4 * i + i % 4] for i in range(len(ALL) // 4)]


@pytest.fixture
def reference(undisturbed: tuple[Path, float]) -> Path:
    return undisturbed[0]


@pytest.mark.parametrize(("kind", "suffix", "how"), TRIED)
def test_damage_is_named_and_made_again(
    reference: Path, tmp_path: Path, kind: str, suffix: str, how: str, tally: object
) -> None:
    write_suite(tmp_path)
    shutil.copytree(reference / "store", tmp_path / "store")
    store = Store(tmp_path / "store")
    plan = plan_suite(load_suite(str(tmp_path / "stress.toml")), store)
    key = next((n.key for n in plan.nodes.values() if n.kind == kind), None) or next(store.artefacts(kind))[1]
    DAMAGE[how](store.sidecar_path(kind, key) if suffix == ".json" else store.tensors_path(kind, key))
    gone = {key}
    for node in plan.nodes.values():  # tensors are needed only by what is not there yet
        if suffix == ".safetensors" and any(need in gone for _, need in node.needs):
            gone.add(node.key)
            store.sidecar_path(node.kind, node.key).unlink()
    said: list[object] = []
    places = {"store": store.root, "rows": tmp_path / "rows", "reports": tmp_path / "reports"}
    result = run_suite(load_suite(str(tmp_path / "stress.toml")), Options(jobs=0, device="cpu", **places), said.append)
    assert not result.failures
    assert_same_rows(tmp_path, reference)
    assert list(store.root.rglob(f"{key}*.damaged"))
    if kind not in ("data", "latency"):
        assert any(isinstance(line, str) and f"{kind}/{key} is damaged" in line for line in said)
        assert key in {node.key for node in result.outcome.made}
    assert sum(verify_store(store).values()) == sum(verify_store(Store(reference / "store")).values())
    tally("damaged artefacts made again", good=1, of=1)  # type: ignore[operator]
