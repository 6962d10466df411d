"""Events for TensorBoard, read back record by record."""

import os
import struct
import sys
from dataclasses import replace

import numpy as np
import pytest

import fastnn
from fastnn import ArgumentError, Epoch, Network, OutputError, TensorBoard, train

pytest.importorskip("tensorboardX", reason="the extra 'tensorboard' is not installed")

DATA = fastnn.synthetic(train=47, test=10, features=12, classes=3)


def crc32c(data):
    """Castagnoli's, bit by bit."""
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (0x82F63B78 if register & 1 else 0)
    return register ^ 0xFFFFFFFF


def masked(data):
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def events(folder):
    """The events in the one file of a folder, with every checksum checked."""
    from tensorboardX.proto.event_pb2 import Event

    (name,) = os.listdir(folder)
    content, read = (folder / name).read_bytes(), []
    while content:
        length, checksum = struct.unpack("<QI", content[:12])
        assert checksum == masked(content[:8])
        event, content = content[12 : 12 + length], content[12 + length :]
        assert struct.unpack("<I", content[:4]) == (masked(event),)
        read.append(Event.FromString(event))
        content = content[4:]
    return read


def test_the_checksum_is_castagnolis():
    assert crc32c(b"123456789") == 0xE3069283


def test_each_epoch_is_there_when_it_ends(tmp_path):
    board, seen = TensorBoard(tmp_path / "runs" / "1"), []

    def on_epoch(epoch):
        board(epoch)
        seen.append(len(events(tmp_path / "runs" / "1")))

    history = train(Network([12, 3], device="numpy"), *DATA, epochs=3, on_epoch=on_epoch)
    assert seen == [2, 3, 4]
    version, *scalars = events(tmp_path / "runs" / "1")
    assert version.file_version == "brain.Event:2"
    assert [event.step for event in scalars] == [1, 2, 3]
    times = [event.wall_time for event in scalars]
    assert times == sorted(times)
    for event, epoch in zip(scalars, history.epochs, strict=True):
        values = {value.tag: value.simple_value for value in event.summary.value}
        assert values == {
            "samples_per_second": np.float32(epoch.samples_per_second),
            "cost/train": np.float32(epoch.train_cost),
            "accuracy/train": np.float32(epoch.train_accuracy),
            "cost/test": np.float32(epoch.test_cost),
            "accuracy/test": np.float32(epoch.test_accuracy),
        }


def test_what_was_not_measured_is_not_there(tmp_path):
    epoch = Epoch(1, 0.1, 470.0, 0.25, 0.9)
    TensorBoard(tmp_path / "1")(epoch)
    TensorBoard(tmp_path / "2")(replace(epoch, validation_cost=0.5, validation_accuracy=0.75))
    tags = [[value.tag for value in events(tmp_path / run)[1].summary.value] for run in ("1", "2")]
    assert tags[0] == ["samples_per_second", "cost/train", "accuracy/train"]
    assert tags[1] == [*tags[0], "cost/validation", "accuracy/validation"]


def test_a_training_has_a_file_of_its_own(tmp_path):
    for _ in range(3):  # in the same second
        TensorBoard(tmp_path)(Epoch(1, 0.1, 470.0, 0.25, 0.9))
    assert len(os.listdir(tmp_path)) == 3


@pytest.mark.parametrize(
    ("folder", "says"), [("file", "is not a folder"), ("file/1", "is not a folder"), ("\0", "null")]
)
def test_a_place_where_no_folder_can_be(tmp_path, folder, says):
    (tmp_path / "file").write_text("It was a dark and stormy night.")
    with pytest.raises(OutputError, match=says):
        TensorBoard(os.path.join(tmp_path, folder))
    assert os.listdir(tmp_path) == ["file"]


def test_asking_makes_no_folder_and_one_that_went_away_is_made_again(tmp_path):
    board = TensorBoard(tmp_path / "runs")
    assert not os.listdir(tmp_path)
    for _ in range(2):
        board(Epoch(1, 0.1, 470.0, 0.25, 0.9))
        assert [event.step for event in events(tmp_path / "runs")] == [0, 1]
        (tmp_path / "runs" / os.listdir(tmp_path / "runs")[0]).unlink()
        (tmp_path / "runs").rmdir()
    (tmp_path / "runs").touch()
    with pytest.raises(OutputError, match="cannot write"):
        board(Epoch(1, 0.1, 470.0, 0.25, 0.9))


def test_without_the_library_the_sentence_says_how_to_have_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX.proto.event_pb2", None)
    with pytest.raises(ArgumentError, match=r"need tensorboardX.*pip install -e '\.\[tensorboard"):
        TensorBoard(tmp_path)
