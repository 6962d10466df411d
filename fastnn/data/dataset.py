"""Labelled samples in memory: checked once, when made, and trusted everywhere else."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from numbers import Integral, Real

import numpy as np

from fastnn.checks import weights_of_classes
from fastnn.data.arrays import Array, as_labels, as_samples, as_weights
from fastnn.data.reading import reading
from fastnn.errors import ArgumentError, DataError

__all__ = ["Dataset", "Datasets", "assemble"]


@dataclass(frozen=True, eq=False)
class Dataset:
    """A set of labelled samples.

    Parameters
    ----------
    x : (n, features) or (n, height, width) array
        A row a sample, kept as a C-contiguous (n, features) array. uint8 stays uint8, is not copied
        when it is contiguous, and means pixels that a network scales by 1/255; float32 and float64
        are taken as they are; float16 becomes float32.
    labels : (n,) array of integers
        The class number of each sample, from 0; kept as int64.
    weights : (n,) array of numbers, optional
        How much each sample's cost counts where a network is trained on the set, 0 or more; kept as
        float64. None, the default, counts each once. Costs and accuracies are measured without
        them.

    Raises
    ------
    DataError
        The set is empty, a shape or type is none of the above, the lengths differ, a sample or a
        weight is NaN or inf, or a label or a weight is negative.
    """

    x: Array
    labels: Array
    weights: Array | None = None

    def __post_init__(self) -> None:
        x = as_samples(self.x)
        object.__setattr__(self, "x", x)
        object.__setattr__(self, "labels", as_labels(self.labels, len(x)))
        if self.weights is not None:
            object.__setattr__(self, "weights", as_weights(self.weights, len(x)))

    @classmethod
    def of(cls, value: object) -> Dataset:
        """Return `value` if it is a Dataset, or make one of (x, labels) or (x, labels, weights).

        Raises
        ------
        ArgumentError
            `value` is none of these.
        DataError
            It makes no valid Dataset.
        """
        if isinstance(value, Dataset):
            return value
        if isinstance(value, tuple | list) and len(value) in (2, 3):
            return cls(*value)
        raise ArgumentError(
            "a set of samples is a Dataset or a pair (x, labels), or these and weights, "
            f"not {type(value).__name__}"
        )

    def split(self, size: float) -> tuple[Dataset, Dataset]:
        """Return the set without its last samples, and those as a set, as for validation.

        They are not drawn: of MNIST's 60,000 the last 10,000 are the book's validation data.

        Parameters
        ----------
        size
            How many, a whole number, or which part of all, above 0 and below 1.

        Raises
        ------
        ArgumentError
            If that is not at least one sample, and less than all.
        DataError
            If the last samples are of a class that none of the others is of.
        """
        n, count = len(self), size
        if isinstance(size, Real) and 0 < size < 1:
            count = max(1, round(size * n))
        if isinstance(count, bool) or not isinstance(count, Integral) or not 0 < count < n:
            raise ArgumentError(
                f"what is split off is a part above 0 and below 1, such as 0.1, or a number of "
                f"samples from 1 to {n - 1:,}, not {size!r}"
            )
        first, last = (
            Dataset(*(each[piece] for each in self._arrays))
            for piece in (slice(n - int(count)), slice(n - int(count), n))
        )
        missing = np.setdiff1d(last.labels, first.labels)
        if missing.size:
            raise DataError(
                f"some of the last {len(last):,} samples are of class {missing[0]}, and none of "
                "the others is: put them in a random order first"
            )
        return first, last

    def weighted(self, class_weights: str | Sequence[float]) -> Dataset:
        """Return the set with each sample's weight, or 1, multiplied by that of its class.

        Parameters
        ----------
        class_weights
            "balanced", which lets all classes count alike, n / (k · n_c) for a class of n_c of the
            n samples, with k classes that occur; or a number for each class, from class 0 on.

        Raises
        ------
        ArgumentError
            If it is neither, or there is a class that it has no number for.
        """
        numbers = weights_of_classes(class_weights)
        if isinstance(numbers, str):
            occurring, place, counts = np.unique(
                self.labels, return_inverse=True, return_counts=True
            )
            weights = (len(self) / (len(occurring) * counts))[place]
        elif len(numbers) <= (highest := int(self.labels.max())):
            raise ArgumentError(
                f"class_weights is for {len(numbers)} classes, and there is a class {highest}"
            )
        else:
            weights = np.array(numbers)[self.labels]
        if self.weights is not None:
            with np.errstate(over="ignore"):  # what is then no number is refused, in a sentence
                weights = weights * self.weights
        return replace(self, weights=weights)

    def __len__(self) -> int:
        return len(self.x)

    @property
    def features(self) -> int:
        """The number of values in a sample."""
        return int(self.x.shape[1])

    @property
    def sha256(self) -> str:
        """The hash of types, shapes and contents, as they are now."""
        return _sha256(*self._arrays)

    @property
    def _arrays(self) -> list[Array]:
        """All that there are: weights are there or not."""
        return [each for each in (self.x, self.labels, self.weights) if each is not None]


@dataclass(frozen=True, eq=False)
class Datasets:
    """What a network learns from and what it is judged by; iterates as ``train, test``.

    Parameters
    ----------
    name : str
        ``digits``, ``mnist``, ``synthetic``, or the path the samples were read from.
    train, test : Dataset
        Samples with the same number of features, both pixels or both floats.

    Raises
    ------
    DataError
        The two do not fit each other, or the labels look corrupted: a test label that no network
        made for the training labels can give, or training labels that skip most of their range.
    """

    name: str
    train: Dataset
    test: Dataset

    def __post_init__(self) -> None:
        train, test = self.train, self.test
        if train.features != test.features:
            raise DataError(
                f"the training samples have {train.features} features, "
                f"the test samples {test.features}"
            )
        if train.x.dtype.kind != test.x.dtype.kind:
            raise DataError(
                f"the training samples are {train.x.dtype}, the test samples {test.x.dtype}; "
                "give both as uint8 or both as floats"
            )
        occurring = np.unique(train.labels).size
        if 2 * occurring < self.classes:
            raise DataError(
                f"the training labels go up to {self.classes - 1} but only {occurring} values "
                "occur; number the classes from 0 without gaps"
            )
        if test.labels.max() >= self.classes:
            raise DataError(
                f"the test labels go up to {test.labels.max()}, "
                f"the training labels only to {self.classes - 1}"
            )

    def __iter__(self) -> Iterator[Dataset]:
        yield self.train
        yield self.test

    @property
    def features(self) -> int:
        """The number of values in a sample."""
        return self.train.features

    @cached_property
    def classes(self) -> int:
        """The number of classes: the largest training label + 1."""
        return int(self.train.labels.max()) + 1

    @cached_property
    def sha256(self) -> str:
        """The hash of types, shapes and contents: the same from whichever files they were read."""
        return _sha256(*self.train._arrays, *self.test._arrays)


def _sha256(*arrays: Array) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.name} {array.shape}\n".encode())
        digest.update(array.data)
    return digest.hexdigest()


def assemble(
    path: str,
    x_train: Array,
    y_train: Array,
    x_test: Array,
    y_test: Array,
    weights_train: Array | None = None,
) -> Datasets:
    """Make `Datasets` of the arrays read from `path`; an error says in which part of it."""
    with reading(f"{path}: training set"):
        train = Dataset(x_train, y_train, weights_train)
    with reading(f"{path}: test set"):
        test = Dataset(x_test, y_test)
    with reading(path):
        return Datasets(path, train, test)
