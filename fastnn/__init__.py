"""The multilayer perceptron of the teaching texts, on pluggable array devices, at full speed.

>>> import fastnn
>>> train_set, test_set = fastnn.load_dataset("digits")
>>> network = fastnn.Network([64, 30, 10])
>>> history = fastnn.train(network, train_set, test=test_set)
>>> history.epochs[-1].test_accuracy > 0.9
True
"""

from __future__ import annotations

from fastnn.backends.registry import device, devices
from fastnn.checkpoint import Checkpoint
from fastnn.choosing import Choice, choose
from fastnn.data import Dataset, Datasets, load_dataset, synthetic
from fastnn.errors import (
    ArgumentError,
    DataError,
    DeviceError,
    DeviceOutOfMemory,
    DeviceUnavailable,
    Diverged,
    FastnnError,
    ModelError,
    OutputError,
)
from fastnn.history import Epoch, History, Progress, Score
from fastnn.log import Log, read_log
from fastnn.network import Network
from fastnn.optimisers import SGD, Adam, AdamW
from fastnn.profiling import Profile
from fastnn.range_test import RangeTest, range_test
from fastnn.schedules import (
    Constant,
    CosineDecay,
    ExponentialDecay,
    InverseScaling,
    ReduceOnPlateau,
    StepDecay,
)
from fastnn.scoring import evaluate
from fastnn.tensorboard import TensorBoard
from fastnn.training import train
from fastnn.tuning import Tried, Tuning, tune

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "ArgumentError",
    "Checkpoint",
    "Choice",
    "Constant",
    "CosineDecay",
    "DataError",
    "Dataset",
    "Datasets",
    "DeviceError",
    "DeviceOutOfMemory",
    "DeviceUnavailable",
    "Diverged",
    "Epoch",
    "ExponentialDecay",
    "FastnnError",
    "History",
    "InverseScaling",
    "Log",
    "ModelError",
    "Network",
    "OutputError",
    "Profile",
    "Progress",
    "RangeTest",
    "ReduceOnPlateau",
    "Score",
    "StepDecay",
    "TensorBoard",
    "Tried",
    "Tuning",
    "__version__",
    "choose",
    "device",
    "devices",
    "evaluate",
    "load_dataset",
    "range_test",
    "read_log",
    "synthetic",
    "train",
    "tune",
]

__version__ = "0.1.0"
