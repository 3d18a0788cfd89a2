"""A scikit-learn classifier of texts: `fit` trains and exports a bundle, `predict` answers with it.

The file is not called sklearn.py, because this repository's root is the package: Python started there would import such
a name instead of scikit-learn.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import DependencyError, LabelError, UsageError
from ..runtime.data import Dataset
from ..runtime.data.assemble import assemble
from ..runtime.editing.edit import Row
from ..runtime.inference.retrieval_policy import RetrievalMode
from ..runtime.inference.text.inputs import Text, checked_input
from ..runtime.labels import LabelNames
from ..runtime.opening import checked_folder
from ..runtime.runtime import Runtime
from .stored_bundle import StoredBundle

try:
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.utils import check_random_state
    from sklearn.utils.validation import check_consistent_length, check_is_fitted

    from .scikit_learn_columns import labels_of, split_of, texts_of
except ModuleNotFoundError as error:
    raise DependencyError(
        "ReaugkdClassifier needs scikit-learn",
        found=f"no module {error.name!r}",
        remedy="Install it: pip install 'reaugkd[sklearn]'.",
    ) from error

if TYPE_CHECKING:
    from ..export.recipe import Recipe


class ReaugkdClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A classifier of texts for scikit-learn.

    `fit` does what `reaugkd train` and `reaugkd export` do: it takes minutes and needs the extra ``train``. An
    estimator that `from_bundle` makes is fitted already and needs neither.

    X is a list, an array or a column of texts; for pairs of texts, two columns.

    Args:
        teacher: hub id or folder of the teacher.
        student_layers: layers of the teacher, 0-based, that the student starts from; None for every second one.
        recipe: all other settings of the training: the path of a recipe file, or its tables as a dict; None for the
            defaults.
        allow_quality_loss: keep a student that misses the export's quality floors. Default: fit raises QualityError.
        retrieval: same as `Runtime.open`.
        threads: same as `Runtime.open`.
        random_state: seed of the training; None for the recipe's, which is 0.

    Attributes:
        classes_: the labels in the order of the columns of `predict_proba`, of the type given to `fit`.

    Example:
        >>> classifier = ReaugkdClassifier.from_bundle("bundle")
        >>> classifier.predict(["wake me at seven"])
        array(['alarm'], dtype='<U7')
    """

    classes_: NDArray[Any]

    def __init__(
        self,
        *,
        teacher: str = "sentence-transformers/all-MiniLM-L6-v2",
        student_layers: Sequence[int] | None = None,
        recipe: str | os.PathLike[str] | Mapping[str, Any] | None = None,
        allow_quality_loss: bool = False,
        retrieval: RetrievalMode = "always",
        threads: int | None = 1,
        random_state: Any = None,
    ) -> None:
        self.teacher = teacher
        self.student_layers = student_layers
        self.recipe = recipe
        self.allow_quality_loss = allow_quality_loss
        self.retrieval = retrieval
        self.threads = threads
        self.random_state = random_state

    @classmethod
    def from_bundle(
        cls, bundle: str | os.PathLike[str], *, retrieval: RetrievalMode = "always", threads: int | None = 1
    ) -> Self:
        """A fitted estimator that answers with a bundle; ``classes_`` are its labels.

        `sklearn.frozen.FrozenEstimator` keeps it fitted where scikit-learn would clone it and fit the clone.

        Raises:
            BundleError, UsageError: same as `Runtime.open`.
        """
        made = cls(retrieval=retrieval, threads=threads)
        made._stored = StoredBundle(checked_folder(bundle))
        made.classes_ = np.unique(np.array(made.runtime_.labels))
        return made

    def fit(self, X: object, y: ArrayLike) -> Self:  # noqa: N803  (scikit-learn's name)
        """Train a teacher and a student, and export the bundle.

        Args:
            X: the texts.
            y: the label of each text.

        Raises:
            DataError: a text or label cannot be used, or there are too few rows.
            DependencyError: the extra ``train`` is not installed.
            ModelError, QualityError, RecipeError, StorageError: same as the commands.
            ValueError: X and y have different lengths, or y is no column of labels.
        """
        return self._fitted(X, y)

    def partial_fit(self, X: object, y: ArrayLike, classes: ArrayLike | None = None) -> Self:  # noqa: N803
        """Add rows to the knowledge base of a fitted estimator, without training; else `fit`.

        It changes the bundle in its folder, as `reaugkd kb add` does, also one given to `from_bundle`. With labels that
        the student never learned, it fits the classifier of new labels, which takes about a second.

        Args:
            X: the texts.
            y: the label of each text.
            classes: all labels; needed if y has new ones.

        Raises:
            LabelError: a label is neither in ``classes_`` nor in ``classes``, or a text has two labels.
            TextError: the model cannot read a text.
            StorageError: the bundle cannot be written.
            UsageError: another edit is running.
        """
        given = np.empty(0) if classes is None else np.unique(labels_of(classes))
        if not self.__sklearn_is_fitted__():
            self._fitted(X, y)
            self.classes_ = _united(self.classes_, given)
            return self
        texts, labels = _rows_of(X, y)
        names, known = list(map(str, labels)), _united(self.classes_, given)
        if unknown := sorted(set(names) - set(map(str, known))):
            raise LabelError(
                "unknown label",
                path="y",
                row=names.index(unknown[0]) + 1,
                found=repr(unknown[0]),
                expected="a label of classes_",
                remedy="To add a label, give all labels as classes.",
            )
        rows = [Row(text, name) for text, name in zip(texts, names, strict=True)]
        self.runtime_.kb.add(rows, new_labels=True, why="ReaugkdClassifier.partial_fit")
        self.runtime_.kb.wait()  # the same calls give the same answers, however fast they follow each other
        self.classes_ = known
        return self

    def predict(self, X: object) -> NDArray[Any]:  # noqa: N803
        """The most probable label of each text.

        Raises:
            TextError: the model cannot read a text.
        """
        probabilities = self.predict_proba(X)
        return self.classes_[probabilities.argmax(axis=1)]  # type: ignore[no-any-return]

    def predict_proba(self, X: object) -> NDArray[np.float64]:  # noqa: N803
        """The probabilities of the labels, [n, c], with the columns of ``classes_``.

        Raises:
            TextError: the model cannot read a text.
            UsageError: somebody else added a label to the bundle.
        """
        check_is_fitted(self)
        texts, runtime = texts_of(X), self.runtime_
        found = np.zeros((len(texts), len(self.classes_)))
        labels: tuple[str, ...] = ()
        order: list[int] = []
        for row, answer in enumerate(runtime.predict_many(texts)):
            if answer.labels != labels:  # at first, and where others edit the bundle meanwhile
                labels, order = answer.labels, self._columns(answer.labels)
            found[row, order] = answer.probabilities
        found /= found.sum(axis=1, keepdims=True)  # float32 sums to 1 less exactly
        return found

    def _columns(self, labels: tuple[str, ...]) -> list[int]:
        """The column of each label.

        Raises:
            UsageError: a label has none.
        """
        spelling = LabelNames(labels)
        columns = [spelling.read(str(label)) for label in self.classes_]
        if not set(labels) <= set(columns):
            raise UsageError(
                "the bundle has a label that is not in classes_",
                path=self.bundle_,
                found=next(label for label in labels if label not in columns),
                remedy="Make the estimator again, with from_bundle.",
            )
        return [columns.index(label) for label in labels]

    def predict_log_proba(self, X: object) -> NDArray[np.float64]:  # noqa: N803
        """The logarithms of `predict_proba`.

        Raises:
            TextError: the model cannot read a text.
        """
        with np.errstate(divide="ignore"):
            return np.log(self.predict_proba(X))

    def kneighbors(
        self,
        X: object,  # noqa: N803
        n_neighbors: int = 5,
        return_distance: bool = True,
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]] | NDArray[np.int64]:
        """The nearest rows of the knowledge base.

        Args:
            X: the texts.
            n_neighbors: the number of rows, at most those of the knowledge base.
            return_distance: also return the distances.

        Returns:
            Distances (1 - cosine) [n, k], ascending, and ids of rows [n, k] as in `reaugkd kb`; or the ids alone.

        Raises:
            TextError: the model cannot read a text.
            UsageError: ``n_neighbors`` is not a number of rows.
        """
        check_is_fitted(self)
        texts, runtime = texts_of(X), self.runtime_
        kb, pair = runtime.knowledge_base, runtime.manifest.text_pair
        if not isinstance(n_neighbors, int | np.integer) or not 1 <= n_neighbors <= len(kb):
            expected = f"a whole number from 1 to {len(kb):,}"
            raise UsageError("n_neighbors is unusable", found=repr(n_neighbors), expected=expected)
        encodings = (runtime.tokenizer.encode(*checked_input(text, pair)) for text in texts)
        found = [kb.search(runtime.student.run(encoding)[1], n_neighbors) for encoding in encodings]
        shape = (len(texts), n_neighbors)
        ids = np.reshape(np.array([[kb.id(int(row)) for row in one.rows] for one in found], np.int64), shape)
        distances = 1 - np.reshape(np.array([one.similarities for one in found], np.float64), shape)
        return (distances, ids) if return_distance else ids

    def save(self, path: str | os.PathLike[str]) -> None:
        """Copy the bundle to a new folder.

        Raises:
            OutputExistsError: the folder exists.
            StorageError: it cannot be written.
        """
        check_is_fitted(self)
        self._stored.save(Path(os.fsdecode(path)))

    @property
    def bundle_(self) -> str:
        """The folder of the bundle. That of `fit` is temporary; `save` keeps it."""
        check_is_fitted(self)
        return str(self._stored.path)

    @property
    def runtime_(self) -> Runtime:
        """The open bundle, which also explains, abstains and edits."""
        check_is_fitted(self)
        return self._stored.runtime(self.retrieval, self.threads)

    def _fitted(self, X: object, y: ArrayLike) -> Self:  # noqa: N803
        texts, labels = _rows_of(X, y)
        classes = np.unique(labels)
        train = split_of(texts, list(map(str, labels)))
        # Without a dev split, the training would put a tenth of the rows aside for scores that nobody asks for.
        data = assemble("X", {"train": train, "dev": train.take([])}, None, list(map(str, classes)))
        stored = StoredBundle()
        self._train(data, stored.path)
        self._stored, self.classes_ = stored, classes
        return self

    def _train(self, data: Dataset, bundle: Path) -> None:
        """Train on the rows and write the bundle, as `reaugkd train` and `reaugkd export` do."""
        from ..commands.console import train_extra
        from ..commands.data_source import go_offline_if_unreachable

        recipe = self._recipe()
        go_offline_if_unreachable(self.teacher, recipe.student.model or self.teacher)
        with train_extra("fitting"):
            from ..export.bundle.write import ExportJob, export
            from ..export.onnx.quantization import detect_target
            from ..export.training.run_folder import remove_folder
            from ..export.training.train import TrainJob, train
        run = bundle.with_name("run")
        train(data, TrainJob(self.teacher, recipe), run)
        export(run, bundle, ExportJob(detect_target(), allow_quality_loss=self.allow_quality_loss))
        remove_folder(run)  # the teacher is many times larger than the bundle

    def _recipe(self) -> Recipe:
        from ..export.recipe import Recipe
        from ..export.recipe_file import load_recipe, override, recipe_from_dict, with_start

        if self.recipe is None:
            base = Recipe()
        elif isinstance(self.recipe, Mapping):
            base = recipe_from_dict(self.recipe)
        else:
            base = load_recipe(Path(self.recipe))
        layers = None if self.student_layers is None else tuple(map(int, self.student_layers))
        return override(base, seed=_seed_of(self.random_state), student=with_start(base.student, layers, None))

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_stored")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        return tags


def _rows_of(X: object, y: ArrayLike) -> tuple[list[Text], NDArray[Any]]:  # noqa: N803
    texts, labels = texts_of(X), labels_of(y)
    check_consistent_length(texts, labels)
    return texts, labels


def _united(classes: NDArray[Any], more: NDArray[Any]) -> NDArray[Any]:
    """All labels, sorted.

    Raises:
        LabelError: some are numbers and others are not.
    """
    if not len(more):
        return classes
    if (classes.dtype.kind in "biuf") != (more.dtype.kind in "biuf"):
        raise LabelError("classes have another type", found=repr(more[0]), expected=f"such as {classes[0]!r}")
    return np.unique(np.concatenate([classes, more]))


def _seed_of(random_state: Any) -> int | None:
    if random_state is None or isinstance(random_state, int | np.integer):
        return None if random_state is None else int(random_state)
    return int(check_random_state(random_state).randint(2**31 - 1))
