"""Gradient-boosted trees, a model for each class, and tables from CSV files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import load_iris
from sklearn.ensemble import HistGradientBoostingRegressor

from baselines.generative.boosting import BoostedTrees
from benchmarks.suite.load import load_suite
from dbn_core.errors import DataError, SpecError
from dbn_core.generative.aggregate import parse_rule
from dbn_core.generative.tables import CsvSource, TableSource
from dbn_core.generative.tabular.boosting import BoostedDiffusion, BoostingOptions
from dbn_core.generative.tabular.data import load_table
from dbn_core.generative.tabular.forest import ForestDiffusion, ForestOptions
from dbn_core.generative.tabular.per_class import PerClass
from dbn_core.generative.tabular.trees import Trees
from dbn_core.generative.tasks.tabular import table_of
from dbn_core.methods.registry import parse_method

MEAN = parse_rule("arithmetic")
KINDS = {
    ForestDiffusion: ForestOptions(trees=5, levels=12, duplicates=10),
    BoostedDiffusion: BoostingOptions(trees=10, depth=4, levels=12, duplicates=10),
}


def test_boosters_predict_what_scikit_learn_predicts() -> None:
    draws = np.random.default_rng(0)
    x = draws.standard_normal((400, 3)).astype(np.float32)
    y = np.sin(2 * x[:, 0]) + x[:, 1] * x[:, 2] + 5
    model = HistGradientBoostingRegressor(max_iter=20, learning_rate=0.3, early_stopping=False).fit(x, y)
    new = draws.standard_normal((100, 3)).astype(np.float32)
    trees = Trees.boosted(model).predict(new)
    assert trees.shape == (21, 100, 1)
    np.testing.assert_allclose(trees.sum(0)[:, 0], model.predict(new), rtol=1e-5)


def test_boosters_learn_the_noise_and_survive_storing() -> None:
    train = load_table("iris")
    options = BoostingOptions(trees=20, levels=3, duplicates=10)
    model = BoostedDiffusion.fit(train, options, seed=0)
    again = BoostedDiffusion.from_state(train, options, model.state_dict())
    x = torch.randn(7, model.coding.width, generator=torch.Generator().manual_seed(1))
    assert model.noise(1, x).shape == (1, 7, 6)
    assert all(torch.equal(model.noise(level, x), again.noise(level, x)) for level in range(3))
    error = model.noise_error(train, MEAN, seed=0)
    assert set(error) == {"mse", "rms"}  # one member has no diversity
    assert (error["mse"][1:] < 0.5).all()
    rows = model.sample(50, MEAN, seed=0)
    assert rows.values.tobytes() == again.sample(50, MEAN, seed=0).values.tobytes()


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_for_each_class_keeps_classes_and_ranges(kind: type) -> None:
    train = load_table("iris")
    model = PerClass.fit(kind, train, KINDS[kind], seed=0)
    again = PerClass.from_state(kind, train, KINDS[kind], model.state_dict())
    rows = model.sample(300, MEAN, seed=1)
    assert rows.values.tobytes() == again.sample(300, MEAN, seed=1).values.tobytes()
    assert (np.bincount(rows.target.astype(int)) > 70).all()  # a third each, drawn
    low, high = train.values.min(0), train.values.max(0)
    assert ((rows.values >= low) & (rows.values <= high)).all()
    # Setosa has petals of 1 to 1.9 cm, virginica of 4.5 to 6.9.
    petals = [float(np.median(rows.values[rows.target == k, 2])) for k in range(3)]
    assert petals[0] < 3 < petals[2]
    assert model.noise_error(train, MEAN, seed=0)["mse"].shape == (12,)


def test_the_error_of_all_classes_is_the_mean_over_their_rows() -> None:
    train = load_table("wine")
    model = PerClass.fit(ForestDiffusion, train, KINDS[ForestDiffusion], seed=0)
    found, means = model.noise_error(train, MEAN, seed=0), []
    for k in range(3):
        own = train.with_values(train.values[train.target == k])
        means.append((len(own), model.noise_error(own, MEAN, seed=0)))
    total = sum(n for n, _ in means)
    np.testing.assert_allclose(found["mse"], sum(n * error["mse"] for n, error in means) / total)
    np.testing.assert_allclose(found["rms"] ** 2, sum(n * error["rms"] ** 2 for n, error in means) / total)


def test_what_a_number_or_an_ensemble_cannot_have_is_refused() -> None:
    with pytest.raises(SpecError, match="'diabetes' is a number: leave per_class out"):
        PerClass.fit(ForestDiffusion, load_table("diabetes"), KINDS[ForestDiffusion], seed=0)
    with pytest.raises(SpecError, match="no ensemble: set the size to 1"):
        parse_method("boosted-trees").check_size(10)
    assert BoostedTrees().parts(1)[0].name == "boosters"


# CSV files


@pytest.fixture
def iris_file(tmp_path: Path) -> Path:
    frame = load_iris(as_frame=True)
    table = frame.data.assign(species=pd.Series(frame.target).map(dict(enumerate(frame.target_names))))
    path = tmp_path / "iris.csv"
    table[["species", *frame.data.columns]].to_csv(path, index=False)
    return path


def test_a_bundled_table_is_the_same_from_a_file(iris_file: Path) -> None:
    source = CsvSource(file=iris_file, target="species")
    data, bundled = source.for_repetition(2).load(), TableSource().for_repetition(2).load()
    assert table_of(data, "train").columns[-1].kind == "categorical"
    for name, split in data.splits.items():
        assert torch.equal(split.images, bundled.splits[name].images)
        assert torch.equal(split.labels, bundled.splits[name].labels)
    before = source.identity()
    iris_file.write_text(iris_file.read_text() + "setosa,5,3,1,0.2\n")
    assert source.identity() != before


def test_a_number_as_target_and_a_file_without_names(tmp_path: Path) -> None:
    table = load_table("diabetes")
    path = tmp_path / "diabetes.dat"
    np.savetxt(path, table.values, delimiter="\t")
    names = tuple(column.name for column in table.columns)
    source = CsvSource(file=path, target=names[-1], target_kind="number", separator="\t", columns=names)
    read = table_of(source.load(), "train")
    assert not read.classifies
    assert read.columns[0].kind == "integer"  # whole years
    assert read.columns[2].kind == "numeric"


def test_texts_are_categories_in_alphabetical_order(tmp_path: Path) -> None:
    path = tmp_path / "fruit.csv"
    path.write_text("colour,mass,ripe,kind\n" + "red,1.5,True,1\ngreen,2,False,2\nred,1,True,2\n" * 10)
    columns = {
        c.name: (c.kind, c.categories) for c in table_of(CsvSource(file=path, target="kind").load(), "train").columns
    }
    assert columns == {
        "colour": ("categorical", 2),
        "mass": ("numeric", 0),
        "ripe": ("categorical", 2),
        "kind": ("categorical", 2),
    }


@pytest.mark.parametrize(
    ("text", "options", "sentence"),
    [
        ("a,b\n1,2\n", {"target": "c"}, r"has no column 'c'.*: set `target`"),
        ("a;b\n1;2\n", {"target": "b"}, r"\(known: a;b\): set `target`, and `separator` if these are not its columns"),
        ("a,b\n1,2\n,3\n", {"target": "b"}, r"column 'a': row 1 is missing: drop such rows or fill them in"),
        ("a,b\n1,2\n3,2\n", {"target": "b"}, r"has one class: choose a column with two or more"),
        ("a,b\n1,x\n3,y\n", {"target": "b", "target_kind": "number"}, r"is text: set target_kind = 'class'"),
        ("a,b\n" + "".join(f"n{i},{i % 2}\n" for i in range(150)), {"target": "b"}, r"150 different texts"),
        ("", {"target": "b"}, "is no table: .* Save it as CSV"),
        ("a,b\n1,2,3\n1,2\n1,2,3,4\n", {"target": "b"}, "is no table: .* Save it as CSV"),
        ("a,b\ninf,2\n1,3\n", {"target": "b"}, r"column 'a': row 0 is missing or infinite"),
    ],
)
def test_a_bad_file_is_refused_in_a_sentence(tmp_path: Path, text: str, options: dict[str, str], sentence: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=sentence):
        CsvSource(file=path, **options).load()


def test_a_missing_file_says_where_to_get_it(tmp_path: Path) -> None:
    for source in (CsvSource(file=tmp_path / "no.csv", target="b", obtain="Ask UCI."),):
        for use in (source.load, source.identity):
            with pytest.raises(DataError, match=r"There is no file .*no.csv: set `file` of \[data\].* Ask UCI\."):
                use()
    with pytest.raises(DataError, match="needs a table: set `file`"):
        CsvSource().load()


@pytest.mark.parametrize("name", ["wine-quality", "airfoil"])
def test_the_examples_of_csv_files_are_suites_that_say_where_to_get_the_data(name: str) -> None:
    root = Path(__file__).resolve().parents[3]
    suite = load_suite(str(root / "examples" / f"{name}.toml"))
    with pytest.raises(DataError, match=r"archive\.ics\.uci\.edu"):
        suite.data.load()
