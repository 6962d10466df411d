"""What the README shows is what is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("file", ["fastnn_pocket.py", "test_pocket.py"])
def test_the_device_it_shows_is_the_one_that_is_tested(file: str) -> None:
    assert (ROOT / "tests" / "pocket" / file).read_text() in BLOCKS


def test_its_library_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (example,) = [block for block in BLOCKS if "load_dataset" in block]
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "README.md", "exec"), {})
    accuracy = float(capsys.readouterr().out.split()[0])
    assert 0.9 < accuracy <= 1


def test_its_example_of_callbacks_goes_on_from_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboardX", reason="the extra 'tensorboard' is not installed")
    names: dict[str, object] = {}
    monkeypatch.chdir(tmp_path)
    for block in BLOCKS:
        if "load_dataset" in block or "fastnn.Log" in block:
            exec(compile(block, "README.md", "exec"), names)
    assert {"digits.jsonl", "digits.csv", "runs"} <= {path.name for path in tmp_path.iterdir()}
    assert names["epochs"]


def test_its_script_of_the_book_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (example,) = [block for block in BLOCKS if "fastnn.book" in block]
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert re.search(r"^Epoch 9: \d+ / 360$", printed, re.MULTILINE)
    assert re.search(r"^Accuracy on evaluation data: \d+ / 239$", printed, re.MULTILINE)
    assert (tmp_path / "book.json").exists()


def test_its_example_of_early_stopping_goes_on_from_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names: dict[str, object] = {}
    monkeypatch.chdir(tmp_path)
    for block in BLOCKS:
        if "load_dataset" in block or "train_set.split" in block:
            exec(compile(block, "README.md", "exec"), names)
    assert "validation" in names


def test_its_example_of_a_checkpoint_goes_on_from_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names: dict[str, object] = {}
    monkeypatch.chdir(tmp_path)
    for block in BLOCKS:
        if "load_dataset" in block or "train_set.split" in block or "Checkpoint" in block:
            exec(compile(block, "README.md", "exec"), names)
    assert "best" in names


def test_its_example_of_a_search_goes_on_from_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("optuna", reason="the extra 'tune' is not installed")
    names: dict[str, object] = {}
    monkeypatch.chdir(tmp_path)
    for block in BLOCKS:
        if "load_dataset" in block or "train_set.split" in block or "fastnn.tune" in block:
            exec(compile(block, "README.md", "exec"), names)
    assert 0.9 < float(capsys.readouterr().out.split()[-1]) <= 1


def test_every_file_it_links_to_exists() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", re.sub(r"```.*?```", "", README, flags=re.DOTALL))
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


@pytest.mark.parametrize("command", ["train", "tune"])
def test_it_names_every_option_of(command: str) -> None:
    from fastnn.cli import cli

    # A switch is shown by what turns it off, and --quiet by its letter.
    names = [
        option.secondary_opts or [name for name in option.opts if name != "--quiet"]
        for option in cli.commands[command].params
    ]
    assert [name for each in names for name in each if f"`{name}`" not in README] == []
