"""`ReaugkdClassifier` with texts: the tools of scikit-learn, a real small training, and the bundle in pickles."""

from __future__ import annotations

import copy
import gc
import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import joblib
import numpy as np
import pandas
import pytest
from sklearn.base import clone, is_classifier
from sklearn.calibration import CalibratedClassifierCV
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import classification_report
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from support.bag_of_words import write_bag_of_words
from support.tiny_bundle import tiny_texts
from support.tiny_models import make_split

from reaugkd import (
    BundleError,
    LabelError,
    OutputExistsError,
    ReaugkdClassifier,
    RecipeError,
    Runtime,
    TextError,
    UsageError,
)
from reaugkd.runtime.data import Dataset

if TYPE_CHECKING:
    from support.workshop import Workshop

TRAIN, TEST = make_split(120, 0), make_split(60, 1)
TEXTS, LABELS = TRAIN.texts, np.array(TRAIN.labels)


class Fast(ReaugkdClassifier):
    """Trains a bag of words."""

    def _train(self, data: Dataset, bundle: Path) -> None:
        write_bag_of_words(data, bundle)


@pytest.fixture(scope="module")
def fitted() -> Fast:
    return Fast().fit(TEXTS, LABELS)


def test_fit_trains_and_exports_as_the_commands_do(workshop: Workshop, tmp_path: Path) -> None:
    """The same rows, teacher and recipe as a run of the command line and an empty dev split."""
    train = make_split(240, 0)
    made = ReaugkdClassifier(
        teacher=str(workshop.teacher),
        recipe=workshop.recipe,
        student_layers=(0, 3),
        allow_quality_loss=True,
        random_state=3,
    )
    made.fit(train.texts, train.labels)
    assert made.score(TEST.texts, TEST.labels) > 0.7
    about = made.runtime_.manifest.created_from
    assert about["recipe"]["seed"] == 3 and about["recipe"]["student"]["layers"] == [0, 3]
    assert sum(about["data"]["rows"].values()) == len({*train.texts})
    assert [one.name for one in Path(made.bundle_).parent.iterdir()] == ["bundle"]

    made.save(tmp_path / "bundle")
    served = ReaugkdClassifier.from_bundle(tmp_path / "bundle")
    assert (served.predict_proba(TEST.texts) == made.predict_proba(TEST.texts)).all()
    with pytest.raises(OutputExistsError):
        made.save(tmp_path / "bundle")


def test_settings_of_the_training(workshop: Workshop) -> None:
    of_dict = ReaugkdClassifier(recipe={"max_length": 24, "seed": 5})._recipe()
    assert (of_dict.max_length, of_dict.seed) == (24, 5)
    drawn = [ReaugkdClassifier(random_state=np.random.RandomState(0))._recipe().seed for _ in range(2)]
    assert drawn[0] == drawn[1] and drawn[0] > 0
    with pytest.raises(RecipeError, match="unknown key 'epochs'"):
        ReaugkdClassifier(recipe={"epochs": 3}).fit(TEXTS, LABELS)


def test_answers_are_those_of_the_runtime(fitted: Fast) -> None:
    assert is_classifier(fitted) and fitted.classes_.tolist() == ["alarm", "music", "weather"]
    with Runtime.open(fitted.bundle_) as runtime:
        answers = list(runtime.predict_many(TEST.texts))
        near = runtime.predict(TEST.texts[0]).neighbours
    assert fitted.predict(TEST.texts).tolist() == [answer.label for answer in answers]
    assert np.allclose(fitted.predict_proba(TEST.texts), [answer.probabilities for answer in answers], atol=1e-6)
    assert np.allclose(np.exp(fitted.predict_log_proba(TEST.texts)), fitted.predict_proba(TEST.texts))
    distances, ids = fitted.kneighbors(TEST.texts[:1], 4)
    assert ids[0].tolist() == [one.id for one in near]
    assert np.allclose(1 - distances[0], [one.similarity for one in near], atol=2e-3)
    assert (fitted.kneighbors(TEST.texts[:1], 4, return_distance=False) == ids).all()
    assert fitted.kneighbors([], 3)[0].shape == (0, 3) and fitted.predict([]).shape == (0,)
    with pytest.raises(UsageError, match="1 to 120"):
        fitted.kneighbors(TEXTS, 121)


@pytest.mark.parametrize("kind", [tuple, np.array, pandas.Series, pandas.DataFrame, lambda x: np.array(x, object)])
def test_texts_come_in_many_containers(fitted: Fast, kind: Any) -> None:
    assert (fitted.predict(kind(TEST.texts)) == fitted.predict(TEST.texts)).all()


def test_pairs(pair_bundle: Path) -> None:
    pairs = tiny_texts(8, pairs=True)
    served = ReaugkdClassifier.from_bundle(pair_bundle)
    expected = served.predict_proba(pairs)
    assert (served.predict_proba(pandas.DataFrame(pairs)) == expected).all()
    assert (served.predict_proba([list(pair) for pair in pairs]) == expected).all()
    with pytest.raises(TextError, match="reads pairs"):
        served.predict(["noon"])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("noon", "X is a single text.*Put it into a list"),
        (["noon", ""], "X, row 2: the text is empty"),
        (["noon", None], "X, row 2: the input is not a text; found nothing"),
        ([1.5], "X, row 1: the input is not a text; found float"),
        ([["a", "b", "c"]], r"shape \(1, 3\)"),
        ([["a", "b"], ["c"]], "X, row 1: X has rows of several lengths"),
        (iter(["noon"]), "not a column of texts; found list_iterator"),
        (None, "not a column of texts"),
    ],
)
def test_what_is_no_column_of_texts_is_refused(fitted: Fast, given: Any, message: str) -> None:
    with pytest.raises(TextError, match=message):
        fitted.predict(given)


@pytest.mark.parametrize("n_neighbors", [0, 10**6, 2.0, "2"])
def test_a_number_of_neighbours_that_cannot_be_is_a_value_error(fitted: Fast, n_neighbors: Any) -> None:
    with pytest.raises(ValueError, match="n_neighbors is unusable"):
        fitted.kneighbors(["noon"], n_neighbors)


def test_labels_keep_their_type() -> None:
    for labels in (np.arange(120) % 3, np.arange(120) % 3 * 1.0, np.arange(120) % 2 == 0, LABELS.astype(object)):
        made = Fast().fit(TEXTS, labels)
        assert made.classes_.tolist() == sorted(set(labels.tolist()))
        assert made.predict(TEXTS).dtype == labels.dtype and made.score(TEXTS, labels) > 0.6
    for wrong, error in (
        ([0.5, 1.7] * 60, ValueError),  # a regression
        (["a"] * 120, LabelError),
        (["a", None] * 60, LabelError),
        (["a", float("nan")] * 60, LabelError),
        (["a", "b"], ValueError),
    ):
        with pytest.raises(error):
            Fast().fit(TEXTS, np.array(wrong, object) if None in wrong else wrong)


def test_partial_fit_edits_the_knowledge_base() -> None:
    made = Fast().fit(TEXTS, LABELS)
    made.partial_fit(["alarm please rain"], ["weather"])
    assert made.predict(["alarm please rain"]) == ["weather"]
    with pytest.raises(LabelError, match=r"y, row 2: unknown label; found 'joke'.*give all labels as classes"):
        made.partial_fit(["rain", "tell me a joke"], ["weather", "joke"])
    made.partial_fit(["tell me a joke"], ["joke"], classes=["joke", "never"])
    assert made.classes_.tolist() == ["alarm", "joke", "music", "never", "weather"]
    probabilities = made.predict_proba(["tell me a joke", "rain"])
    assert made.predict(["tell me a joke"]) == ["joke"] and (probabilities[:, 3] == 0).all()
    assert [entry.op for entry in made.runtime_.kb.log()] == ["add", "add", "fit"]
    with pytest.raises(LabelError, match="another type"):
        made.partial_fit(["rain"], [1], classes=[1])

    first = Fast().partial_fit(TEXTS, LABELS, classes=["alarm", "music", "weather", "joke"])
    assert first.classes_.tolist() == ["alarm", "joke", "music", "weather"]
    first.runtime_.kb.add("noon", "another", new_labels=True)
    with pytest.raises(UsageError, match="not in classes_; found another"):
        first.predict(["noon"])


def test_tools_of_scikit_learn(fitted: Fast) -> None:
    assert cross_val_score(Fast(), TEXTS, LABELS, cv=3).min() > 0.6
    search = GridSearchCV(Fast(), {"retrieval": ["always", "never"]}, cv=2).fit(TEXTS, LABELS)
    assert search.best_estimator_.runtime_.retrieval == search.best_params_["retrieval"]
    strip = FunctionTransformer(lambda texts: [text.strip() for text in texts])
    assert make_pipeline(strip, Fast()).fit(TEXTS, LABELS).score(TEST.texts, TEST.labels) > 0.8
    served = ReaugkdClassifier.from_bundle(fitted.bundle_)
    calibrated = CalibratedClassifierCV(FrozenEstimator(served)).fit(TEST.texts, TEST.labels)
    assert calibrated.predict_proba(TEST.texts).shape == (60, 3)
    assert "weather" in classification_report(TEST.labels, served.predict(TEST.texts))


def test_parameters_and_clones(fitted: Fast, workshop: Workshop) -> None:
    given = {"teacher": "t", "student_layers": [0, 3], "recipe": {"seed": 1}, "threads": 2, "random_state": 7}
    made = clone(ReaugkdClassifier(**given))
    assert given.items() <= made.get_params().items() and "ReaugkdClassifier" in repr(made)
    with pytest.raises(NotFittedError):
        clone(fitted).predict(TEXTS)
    changed = ReaugkdClassifier.from_bundle(workshop.bundle).set_params(retrieval="never")
    assert not changed.runtime_.predict("rain").retrieved


def test_a_pickle_holds_a_temporary_bundle_and_the_path_of_another(fitted: Fast, tmp_path: Path) -> None:
    expected = fitted.predict_proba(TEST.texts)
    joblib.dump(fitted, tmp_path / "fitted.joblib")
    for other in (pickle.loads(pickle.dumps(fitted)), copy.deepcopy(fitted), joblib.load(tmp_path / "fitted.joblib")):
        assert (other.predict_proba(TEST.texts) == expected).all() and other.bundle_ != fitted.bundle_
        other.partial_fit(["rain"], ["alarm"])  # of its own
    assert (fitted.predict_proba(TEST.texts) == expected).all()
    folder = Path(other.bundle_)
    del other
    gc.collect()
    assert not folder.exists() and Path(fitted.bundle_).exists()

    fitted.save(tmp_path / "bundle")
    packed = pickle.dumps(ReaugkdClassifier.from_bundle(tmp_path / "bundle"))
    assert len(packed) < 1500
    assert (pickle.loads(packed).predict_proba(TEST.texts) == expected).all()
    shutil.rmtree(tmp_path / "bundle")
    write_bag_of_words(
        Dataset("other", {"train": make_split(60, 5)}, ("alarm", "music", "weather")), tmp_path / "bundle"
    )
    with pytest.raises(BundleError, match="replaced after it was pickled"):
        pickle.loads(packed).predict(TEXTS)


SERVE = """
import json, sys
from reaugkd import ReaugkdClassifier
print(json.dumps(ReaugkdClassifier.from_bundle(sys.argv[1]).predict(["rain", "song"]).tolist()))
wrong = {"torch", "transformers", "datasets"} & set(sys.modules)
assert not wrong, wrong
"""
WITHOUT = """
import sys
sys.modules["sklearn"] = None
from reaugkd import *
import reaugkd
try:
    reaugkd.ReaugkdClassifier
except DependencyError as error:
    assert "pip install 'reaugkd[sklearn]'" in str(error)
else:
    raise AssertionError
"""


@pytest.mark.parametrize("script", [SERVE, WITHOUT])
def test_a_bundle_needs_no_torch_and_the_rest_needs_no_scikit_learn(fitted: Fast, script: str) -> None:
    done = subprocess.run([sys.executable, "-c", script, fitted.bundle_], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    if script is SERVE:
        assert json.loads(done.stdout) == fitted.predict(["rain", "song"]).tolist()
