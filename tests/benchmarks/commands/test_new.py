"""``new``: what it writes is a valid suite, and what cannot be a member is said before anything is trained."""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.cli import main
from benchmarks.commands.new import _doubts, of_network
from benchmarks.suite.draft import Choices, draft, ensemble_sizes, suite_text, toml
from benchmarks.suite.load import load_suite, suite_from
from benchmarks.work.given import Found, far_below
from dbn_core.data.dataset import Dataset, Split
from dbn_core.data.digits import DigitsSource
from tests.benchmarks.suite.test_given_members import NETWORK, plain_script

WORDS = ["--network=my-cnn", "--plugin=net.py", "--data=digits"]
NORMALISED = ["--set=network.mean=[0.0]", "--set=network.std=[1.0]"]


@pytest.fixture(scope="module")
def trained() -> list[nn.Module]:
    return [plain_script(seed) for seed in range(2)]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clean_registry: None, trained: list[nn.Module]) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(NETWORK)
    (tmp_path / "runs").mkdir()
    for index, network in enumerate(trained):
        torch.save(network.state_dict(), tmp_path / f"runs/{index}.pt")
    return tmp_path


def new(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr("sys.argv", ["dbn-bench", "new", *words])
    try:
        main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def test_members_are_looked_at_and_a_suite_is_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], trained: list[nn.Module]
) -> None:
    assert new(monkeypatch, "mine", *WORDS, "--members=runs/*.pt", "--students=30", *NORMALISED) == 0
    said = capsys.readouterr().out
    validation = DigitsSource().load().validation
    for index, network in enumerate(trained):  # by the network itself, outside of the suite
        with torch.no_grad():
            right = (network(validation.images / 255).argmax(1) == validation.labels).double().mean()
        assert f"{index}.pt: {float(right):.1%} of the validation images" in said
    assert "Training 0 members and 9 parts" in said
    assert "normalised so" not in said
    suite = load_suite("mine.toml")
    assert [(label, entry.sizes) for entry, _, label in suite.entries()] == [
        *[("DE", (1, 2)), ("Single (temperature-scaled)", (1,)), ("ED", (2,)), ("Labels alone", (1,))]
    ]
    assert [member.path for member in suite.pool.checkpoints] == [
        str(folder / f"runs/{index}.pt") for index in range(2)
    ]
    assert (suite.students.epochs, suite.students.teachers) == (30, "views(12)")
    before = Path("mine.toml").read_text()
    assert all(line.startswith("# ") for line in before.splitlines()[:4])
    assert new(monkeypatch, "mine.toml", *WORDS, "--members=runs/*.pt") == 1
    assert "'mine.toml' exists: choose another name" in capsys.readouterr().err
    assert Path("mine.toml").read_text() == before


def test_everything_that_is_wrong_with_files_is_said_at_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], trained: list[nn.Module]
) -> None:
    state = trained[0].state_dict()
    torch.save({"epoch": 3, "state_dict": state}, "runs/again.pt")
    torch.save({**state, "7.weight": torch.zeros(3, 64), "7.bias": torch.zeros(3)}, "runs/classes.pt")
    Path("runs/damaged.pt").write_bytes(Path("runs/0.pt").read_bytes()[:2000])
    torch.save({**state, "7.bias": torch.full((10,), torch.nan)}, "runs/nan.pt")
    torch.save({name.replace("7.", "head."): value for name, value in state.items()}, "runs/names.pt")
    torch.save(trained[0], "runs/pickled.pt")
    torch.save({"state_dict": state, "best_acc": np.float64(0.9)}, "runs/scalar.pt")
    torch.save({**state, "7.weight": torch.zeros(10, 64)}, "runs/zero.pt")
    assert new(monkeypatch, "mine", *WORDS, "--members=runs/*.pt", *NORMALISED) == 1
    said = capsys.readouterr()
    lines = {Path(line.split()[0].rstrip(":")).stem: line for line in said.out.splitlines() if "runs/" in line}
    for stem, words in {
        "1": "of the validation images are right",
        "again": f"holds the same weights as {folder}/runs/0.pt",
        "classes": "It was trained on 3 classes, and the data have 10",
        "damaged": "is no file of torch.save, or is damaged",
        "nan": "has NaN or infinite values",
        "names": "2 tensors are missing (7.bias, 7.weight) and 2 tensors are unknown (head.bias, head.weight)",
        "pickled": "(torch.nn.modules.container.Sequential), which only running code could read",
        "scalar": "(the entry 'best_acc' is numpy",
        "zero": "at chance on validation",
    }.items():
        assert words in lines[stem]
    assert lines["damaged"].count(". ") == 0
    assert "Error: 8 of 10 files cannot be members, for the reasons above." in said.err
    assert not Path("mine.toml").exists()


def test_one_wrong_file_is_one_sentence_and_other_constants_are_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], trained: list[nn.Module]
) -> None:
    shuffled = dict(trained[1].state_dict())
    order = [*range(1, 10), 0]
    torch.save({**shuffled, "7.weight": shuffled["7.weight"][order], "7.bias": shuffled["7.bias"][order]}, "runs/1.pt")
    assert new(monkeypatch, "mine", *WORDS, "--members=runs/*.pt", "--set=network.std=[0.1]") == 1
    said = capsys.readouterr()
    assert "far below chance on validation" in said.err
    assert "check the order of the classes, or the normalisation" in said.err
    assert len(said.err.splitlines()) == 1
    assert "the mean [0.0] and the std [1.0]: if its images were normalised so" in said.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--members=none/*.pt"], "--members: there is no file 'none/"),
        (["--members=runs/0.pt"], "names one file, runs/0.pt: an ensemble has at least two"),
        (["--members=runs/*.pt", "--size=3"], "drop it, or drop --members"),
        (["--network=my-cnm"], "unknown network 'my-cnm'"),
        (["--network=resnet18"], "unknown network 'resnet18' (did you mean 'torchvision:resnet18'?)"),
        (["--network=torchvision:resnt18"], "has no classifier 'resnt18' (did you mean 'resnet18'?)"),
        (["--data=digit"], "there is no data source 'digit' (did you mean 'digits'?)"),
        (["--data=digits:photos"], "unknown key 'root' in [data.digits]"),
        (["--data=folder:photos"], "there is no folder 'photos': write --data folder:FOLDER"),
        (["--data=folder"], "the source 'folder' needs a folder"),
        (["--data=mixture2d"], "has no images"),
        (["--set=recipe.rate=1"], "unknown key 'rate' in [recipe]"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_what_cannot_be_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert new(monkeypatch, "mine", *WORDS, *words) == 1
    assert message in capsys.readouterr().err
    assert not Path("mine.toml").exists()


def test_names_are_checked_before_the_data_are_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(DigitsSource, "load", lambda self: pytest.fail("the data were read"))
    assert new(monkeypatch, "mine", *WORDS, "--network=torchvision:resnt18") == 1
    assert "did you mean 'resnet18'?" in capsys.readouterr().err


def test_doubtful_splits_are_noted() -> None:
    images = torch.arange(12, dtype=torch.uint8).view(12, 1, 1, 1).expand(12, 1, 2, 2).contiguous()
    train, labels = Split(images, torch.arange(12) % 3), torch.tensor([0, 1, 1, 0])
    test = Split(torch.stack([images[3], images[5], *images[:2] + 100]), labels)
    validation = Split(images[:4] + 200, torch.tensor([0, 1, 2, 2]))
    data = Dataset("d", "D", train, validation, test, ("a", "b", "c"), (0.5,), (0.5,), True, splitting="Its own")
    few, *notes = _doubts(data)
    assert few.endswith("keep more of them.")
    assert notes == [
        "2 of 4 test images are also train images: remove them from one of the two.",
        "1 of 3 classes have no test images (c): add some.",
    ]


def test_a_member_far_below_the_others_is_noted() -> None:
    found = [Found(name, True, accuracy) for name, accuracy in zip("abcd", (0.98, 0.49, 0.97, 0.99), strict=True)]
    assert [low.file for low in far_below(found, 60)] == ["b"]
    assert far_below([found[0], found[2]], 60) == []
    assert far_below([found[0], Found("e", problem="damaged")], 60) == []


def test_without_members_the_suite_trains_them() -> None:
    choices = Choices("mine", "resnet8", {"source": "digits"}, 5, 10, header=("Made by:\nhand",))
    text = suite_text(choices, draft(choices, DigitsSource().load()))
    assert text.startswith("# 'Made by:\\nhand'\n")
    suite = suite_from(tomllib.loads(text), Path("mine.toml"))
    assert (suite.pool.members, suite.pool.sharing, suite.recipe.epochs) == (5, "shared", 10)
    assert suite.recipe.batch_size == 64  # at least eight steps of 718 images
    ed = next(method for _, method, label in suite.entries() if label == "ED")
    assert ed.config.lr_scale * suite.recipe.lr == pytest.approx(0.05 * 64 / 256)
    assert max(map(len, text.splitlines())) <= 110


def test_students_start_from_a_member_only_where_one_has_their_network() -> None:
    big = of_network("torchvision:resnet50=runs/lr=0.1/*.pt")
    assert big == {"path": "runs/lr=0.1/*.pt", "network": "torchvision:resnet50"}
    assert of_network("runs/lr=0.1/*.pt") == "runs/lr=0.1/*.pt"
    for files, starts in (((big,), False), ((big, "runs/*.pt"), True)):
        content = draft(Choices("mine", "torchvision:resnet18", {"source": "digits"}, 4, 10, files))
        assert ("start" in content["methods"][2]["options"]) == starts
        assert f'checkpoints = [{{ path = "{big["path"]}", network =' in suite_text(Choices("", "", {}, 4, 1), content)


def test_values_survive_the_way_through_toml() -> None:
    value = {"a b": 'x"\\\x7f\n', "c": [1, 2.5e-7, True], "d": {"e": "ü", "f.g": {}}, "h": float("inf")}
    assert tomllib.loads(f"value = {toml(value)}")["value"] == value


def test_sizes_of_large_pools_are_doubled() -> None:
    assert ensemble_sizes(2) == [1, 2]
    assert ensemble_sizes(40) == [1, 2, 3, 4, 5, 6, 7, 8, 16, 32, 40]
