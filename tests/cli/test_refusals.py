"""What is refused: the exit code, the sentence, and that nothing is lost by it."""

import json
import os

import numpy as np
import pytest

import fastnn

SIGMOID = "Did you mean 'sigmoid'?"

# The exit code, what the sentence says, and the arguments.
WRONG = [
    (2, "Did you mean 'train'?", "trian"),
    (2, "Did you mean 'devices'?", "device"),
    (2, "Did you mean", "train --epoch 3"),
    (2, "requires an argument", "train --epochs"),
    (2, "unexpected extra argument", "train digits"),
    (2, "Missing argument 'MODEL'", "evaluate"),
    (2, "Missing argument 'FILE...'", "predict model"),
    (2, SIGMOID, "train --activation sigmod"),
    (2, SIGMOID, "train --activation Sigmoid"),
    (2, "Did you mean 'leaky-relu'?", "train --activation leaky_relu"),
    (2, "softmax is for the output layer", "train --activation softmax"),
    (2, "2 activations", "train --activation tanh,relu"),
    (2, "3 activations", "train --hidden 4,4 --activation tanh,relu,tanh"),
    (2, "Did you mean 'softmax'?", "train --output softmx"),
    (2, "Did you mean 'cross-entropy'?", "train --cost crossentropy"),
    (2, "known: cross-entropy, log-likelihood, quadratic", "train --cost mse"),
    (2, "Did you mean 'glorot'?", "train --init glorott"),
    (2, "softmax goes with 'log-likelihood'", "train --output softmax"),
    (2, "it goes with output 'softmax'", "train --cost log-likelihood"),
    (2, "it goes with output 'sigmoid'", "train --output relu"),
    (2, "--epochs", "train --epochs 0"),
    (2, "--epochs", "train --epochs -3"),
    (2, "--epochs", "train --epochs 1e3"),
    (2, "--batch-size", "train --batch-size 0"),
    (2, "--batch-size", "train --batch-size -1"),
    (2, "--batch-size", "train --batch-size all"),
    (2, "--batch-size full", "train --batch-size 1000000"),
    (2, "--threads", "train --threads 0"),
    (2, "--threads", "train --threads 1000000"),
    (2, "--threads", "train --threads all"),
    (2, "--learning-rate", "train --eta 0"),
    (2, "--learning-rate", "train --eta -1"),
    (2, "--learning-rate", "train --eta fast"),
    (2, "must be a number above 0", "train --eta nan"),
    (2, "must be a number above 0", "train --eta inf"),
    (2, "--seed", "train --seed -1"),
    (2, "Did you mean 'adam'?", "train --optimiser adma"),
    (2, "momentum must be a number, from 0 to below 1", "train --momentum 1"),
    (2, "momentum must be a number, from 0 to below 1", "train --momentum nan"),
    (2, "--momentum", "train --momentum much"),
    (2, "needs a momentum above 0", "train --nesterov"),
    (2, "are of sgd; adam has its own", "train --optimiser adam --momentum 0.9"),
    (2, "--l1 must be a number, 0 or more", "train --l1 -1"),
    (2, "--l2 must be a number, 0 or more", "train --l2 inf"),
    (2, "shrinks the weights to nothing", "train --l2 1e9"),
    (2, "--clip-norm must be a number above 0", "train --clip-norm 0"),
    (2, "dropout must be a number, from 0 to below 1", "train --dropout 1"),
    (2, "dropout must be a number, from 0 to below 1", "train --dropout 0.1,nan"),
    (2, "neither a part, like 0.5, nor several", "train --dropout half"),
    (2, "neither a part, like 0.5, nor several", "train --dropout 0.5,"),
    (2, "or 2, for the input and for each hidden layer; not 3", "train --dropout 0,0.5,0.5"),
    (2, "or 1, for the input and for each hidden", "train --hidden none --dropout 0,0"),
    (2, "is neither 'balanced' nor a number for each class", "train --class-weights balance"),
    (2, "is neither 'balanced' nor a number for each class", "train --class-weights 1,-1"),
    (2, "is neither 'balanced' nor a number for each class", "train --class-weights 1,,2"),
    (2, "is neither 'balanced' nor a number for each class", "train --class-weights 1,nan"),
    (2, "0 or more and not all 0, like 1,1,2.5", "train --class-weights 0,0"),
    (2, "is for 2 classes, and there is a class 9", "train --class-weights 1,2"),
    (2, "has 11 numbers; the network's 10", "train --class-weights 1,1,1,1,1,1,1,1,1,1,1"),
    (2, "0 or more and not all 0, like 1,1,2.5", "lr-find --class-weights 0"),
    (2, "Did you mean 'cosine'?", "train --schedule cosin"),
    (2, "not of the form step:EVERY,FACTOR", "train --schedule step:10;0.5"),
    (2, "every must be a whole number", "train --schedule step:0.5"),
    (2, "factor must be a number", "train --schedule exponential:2"),
    (2, "--validation 0.1", "train --schedule plateau"),
    (2, "--validation 0.1", "train --patience 5"),
    (2, "--patience", "train --validation 0.1 --patience 0"),
    (2, "--warm-up", "train --warm-up -1"),
    (2, "neither a part, like 0.1, nor a number", "train --validation 0"),
    (2, "neither a part, like 0.1, nor a number", "train --validation 1.5"),
    (2, "neither a part, like 0.1, nor a number", "train --validation tenth"),
    (2, "neither a part, like 0.1, nor a number", "train --validation nan"),
    (2, "a number of samples from 1 to 1,436", "train --validation 1437"),
    (2, "neither a size", "train --hidden 0"),
    (2, "neither a size", "train --hidden 16,-5"),
    (2, "--hidden", "train --hidden 16x16"),
    (2, "--hidden", "train --hidden 16,"),
    (2, "this machine has", "train --hidden 999999999999"),
    (2, "Did you mean 'mnist'?", "data fetch mnsit"),
    (2, "Did you mean 'list'?", "data lst"),
    (3, "Did you mean 'numpy'?", "train --device numpi"),
    (3, "known: auto, cpu, cuda, numba, numpy", "train --device warp"),
    (2, "unknown precision 'half'.  known: full, tf32", "train --precision half"),
    (2, "device 'numpy' has no precision 'tf32'", "train --device numpy --precision tf32"),
    (3, "no device number 1", "train --device numpy:1"),
    (3, "behind the colon", "train --device numpy:x"),
    (3, "known: auto, cpu, cuda, numba, numpy", "evaluate {model} --device warp"),
    (3, "known: auto, cpu, cuda, numba, numpy", "predict {model} small.npz --device warp"),
    (4, "Did you mean 'mnist'?", "train --data mnsit"),
    (4, "Did you mean 'mnist'?", "train --data MNIST"),
    (4, "No such file", "train --data nowhere.npz"),
    (4, "No such file", "train --data no/where"),
    (4, "symbolic links", "train --data loop.npz"),
    (4, "train-images-idx3-ubyte", "train --data {folder}"),
    (4, "neither a folder of IDX files nor an .npz", "train --data {model}"),
    (4, "Did you mean 'digits'?", "evaluate {model} --data digts"),
    (4, "784", "evaluate {model} --data synthetic"),
]


@pytest.mark.parametrize(("code", "says", "command"), WRONG)
def test_it_is_refused(refused, model, tmp_path, code, says, command):
    (tmp_path / "loop.npz").symlink_to("loop.npz")
    before = sorted(os.listdir(tmp_path))
    args = command.format(model=model, folder=tmp_path).split()
    result = refused(code, says, *args)
    assert "Errno" not in result.err
    assert sorted(os.listdir(tmp_path)) == before


@pytest.mark.parametrize("option", ["--data", "--save"])
def test_an_option_with_an_empty_value_is_not_the_default(run, data, option):
    """As in --data "$FOLDER" with FOLDER unset."""
    result = run("train", "--data", data, "--epochs", 1, option, "")
    assert (result.code in (1, 2, 4), result.out) == (True, "")


@pytest.mark.parametrize(
    "wrong",
    [
        "--cost crossentropy",
        "--eta nan",
        "--hidden 0",
        "--init x",
        "--output softmax",
        "--schedule x",
        "--patience 3",
    ],
)
def test_a_wrong_option_is_found_before_anything_is_downloaded(refused, monkeypatch, wrong):
    def download(*args):
        raise AssertionError("MNIST was asked for")

    monkeypatch.setattr("fastnn.data.loading.load_mnist", download)
    refused(2, "", "train", "--data", "mnist", *wrong.split())


@pytest.fixture
def no_training(monkeypatch):
    def train(*args, **kwargs):
        raise AssertionError("the training was begun")

    monkeypatch.setattr(fastnn, "train", train)


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("folder", "it is a folder"),
        ("new/", ""),
        ("no/where", "No such file or directory"),
        ("small.npz/model", "Not a directory"),
        ("small.npz", "other than a fastnn model"),
        ("./small.npz", "other than a fastnn model"),
        ("foreign", "other than a fastnn model"),
        ("foreign.safetensors", "other than a fastnn model"),
        ("to-foreign", "other than a fastnn model"),
        ("/dev/null", "not an ordinary file"),
        ("fifo", "not an ordinary file"),
        ("x" * 300, "File name too long"),
    ],
)
def test_where_nothing_can_be_saved_nothing_is_trained(refused, data, tmp_path, path, says):
    from safetensors.numpy import save_file

    (tmp_path / "folder").mkdir()
    (tmp_path / "foreign").write_text("a thesis")
    save_file({"weights": np.ones(3, np.float32)}, tmp_path / "foreign.safetensors")
    (tmp_path / "to-foreign").symlink_to("foreign")
    os.mkfifo(tmp_path / "fifo")

    def contents():
        return {file.name: file.is_file() and file.read_bytes() for file in tmp_path.iterdir()}

    before = contents()
    refused(1, ["cannot write", says], "train", "--data", data, "--save", path)
    assert contents() == before


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize("option", ["--epochs", "--hidden"])
def test_an_absurd_number(refused, data, option):
    refused(2, "", "train", "--data", data, option, 10**30)


# What a training is told that diverges.
DIVERGES = "--activation identity --output identity --cost quadratic --eta 1e6"


def test_a_training_that_diverges_leaves_the_old_model(refused, data, model, tmp_path):
    before = (tmp_path / model).read_bytes()
    says = ["diverged in epoch 1", "rate of 1e+06", "Try a smaller one", "`fastnn lr-find`"]
    refused(5, says, "train", "--data", data, *DIVERGES.split(), "--save", model, "-q")
    assert (tmp_path / model).read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == [model, data]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ["train", "evaluate"])
def test_a_cost_beyond_all_numbers_makes_no_traceback_and_no_bad_json(
    run, tmp_path, arrays, name, dtype
):
    """Training samples in their range, and a test sample far from it."""
    floats = {key: value / dtype(255) for key, value in arrays.items() if key.startswith("x")}
    np.savez(tmp_path / "fine.npz", **{**arrays, **floats})
    floats["x_test"][3] = np.finfo(dtype).max / 2
    np.savez(tmp_path / "wild.npz", **{**arrays, **floats})
    train = "train --activation relu --output identity --cost quadratic --epochs 1"
    assert run(*train.split(), "--data", "fine.npz").code == 0
    command = {"train": f"{train} --eta 1e-3", "evaluate": "evaluate fastnn-fine.safetensors"}[name]
    for form in ([], ["--json"]):
        result = run(*command.split(), "--data", "wild.npz", *form)
        if result.code == 0:
            assert "nan" not in result.out.lower()
            assert not form or result.json
        else:
            assert (result.code in (4, 5), result.out) == (True, "")
            assert "fastnn: " in result.err


def test_samples_beyond_the_precision_are_told_apart_from_a_divergence(refused, tmp_path, arrays):
    large = {name: arrays[name] * 1e300 for name in ("x_train", "x_test")}
    np.savez(tmp_path / "large.npz", **{**arrays, **large})
    refused(4, "float32", "train", "--data", "large.npz")


BAD_DATA = {
    "NaN or inf": lambda a: {"x_train": np.where(np.arange(16) == 3, np.nan, a["x_train"] / 255)},
    "62 labels": lambda a: {"y_train": a["y_train"][:-1]},
    "0, but range from -1": lambda a: {"y_train": a["y_train"] - 1},
    "only to 2": lambda a: {"y_test": a["y_test"] + 1},
    "argmax": lambda a: {"y_train": np.eye(3)[a["y_train"]]},
    "never unpickled": lambda a: {"x_test": np.array([print] * 20, dtype=object)},
    "is empty": lambda a: {"x_train": a["x_train"][:0], "y_train": a["y_train"][:0]},
    "15": lambda a: {"x_test": a["x_test"][:, :15]},
}


@pytest.mark.parametrize("says", BAD_DATA)
def test_malformed_data(refused, tmp_path, arrays, says):
    np.savez(tmp_path / "bad.npz", **{**arrays, **BAD_DATA[says](arrays)}, allow_pickle=True)
    refused(4, ["bad.npz", says], "train", "--data", "bad.npz")
    assert os.listdir(tmp_path) == ["bad.npz"]


def write_model(path, model, **changes):
    """Copy a model, with another description."""
    from safetensors import safe_open
    from safetensors.numpy import save_file

    with safe_open(model, "np") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        description = json.loads(file.metadata()["fastnn"])
    save_file(tensors, path, {"fastnn": json.dumps({**description, **changes})})


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("missing", "does not exist"),
        (".", "is not a file"),
        ("/dev/zero", "is not a file"),
        ("empty", "is damaged"),
        ("truncated", "is damaged"),
        ("small.npz", "is damaged, or no model"),
        ("foreign", "not written by fastnn"),
        ("newer", ["a newer fastnn", "Upgrade"]),
        ("another-shape", "is damaged"),
        ("another-activation", SIGMOID),
        ("no-origin", ""),
    ],
)
@pytest.mark.parametrize("command", ["evaluate {}", "predict {} small.npz"])
def test_a_bad_model_file(refused, model, tmp_path, command, name, says):
    from safetensors.numpy import save_file

    path, whole = tmp_path / name, (tmp_path / model).read_bytes()
    if name in ("empty", "truncated"):
        path.write_bytes(whole[: {"empty": 0, "truncated": len(whole) - 100}[name]])
    elif name == "foreign":
        save_file({"weights": np.ones(3, np.float32)}, path)
    elif name == "newer":
        write_model(path, model, format_version=99, layers="in some new form")
    elif name == "another-shape":
        write_model(path, model, sizes=[16, 31, 3])
    elif name == "another-activation":
        write_model(path, model, activations=["sigmod", "sigmoid"])
    elif name == "no-origin":
        write_model(path, model, trained_on={})
    refused(4, says, *command.format(name).split())


@pytest.mark.parametrize(
    "changes",
    [{"sizes": "\x1b]0;title\x07"}, {"trained_on": {"name": "\x1b]0;title\x07/", "sha256": ""}}],
)
def test_a_model_file_does_not_speak_to_the_terminal(refused, model, changes):
    write_model("hostile", model, **changes)
    result = refused(4, "title", "evaluate", "hostile")
    assert not set(result.err) & {"\x1b", "\x07"}


SPENT = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024)); "


def test_on_a_full_disk_the_old_model_survives(run_process, data, model, tmp_path):
    before = (tmp_path / model).read_bytes()
    result = run_process("train", "--data", data, "--save", model, prepare=SPENT)
    assert (result.code, result.out) == (1, "")
    assert "cannot write" in result.err
    assert "Traceback" not in result.err
    assert (tmp_path / model).read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == [model, data]
