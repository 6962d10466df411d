import json
import os
import stat
import struct
import subprocess
import sys
import textwrap
from importlib.metadata import version

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from safetensors.numpy import save as to_bytes

from fastnn import ArgumentError, ModelError, Network, OutputError
from fastnn.backends.numpy_cpu import NumpyBackend
from fastnn.model_file import FORMAT_VERSION, check_writable
from fastnn.testing import StrictBackend


def small(**options):
    return Network([3, 4, 2], seed=1, **options)


@pytest.fixture
def path(tmp_path):
    """A saved model."""
    small().save(tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def parse(content):
    """Header and data of a safetensors file: eight bytes of length, JSON, data."""
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def compose(header, data):
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def describe(header, **changes):
    """Change what the file says of itself."""
    description = json.loads(header["__metadata__"]["fastnn"]) | changes
    header["__metadata__"]["fastnn"] = json.dumps(description)


# There and back
# ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "options",
    [
        {"sizes": [1, 1]},
        {"sizes": [5, 4, 3], "activation": "tanh", "cost": "quadratic", "init": "normal"},
        {
            "sizes": [5, 4, 3],
            "activation": "leaky-relu",
            "output": "identity",
            "cost": "squared-error",
        },
        {
            "sizes": [5, 9, 6, 4, 3],
            "activation": ["relu", "sigmoid", "identity"],
            "output": "softmax",
            "cost": "log-likelihood",
            "init": "he",
        },
    ],
)
def test_what_is_loaded_is_what_was_saved_bit_for_bit(tmp_path, options, dtype):
    network = Network(**options, dtype=dtype, seed=5)
    network.save(tmp_path / "model")
    loaded = Network.load(tmp_path / "model")
    for name in ("sizes", "activations", "cost", "init", "trained_on"):
        assert getattr(loaded, name) == getattr(network, name)
    for one, other in zip(
        (*network.weights, *network.biases), (*loaded.weights, *loaded.biases), strict=True
    ):
        assert one.dtype == other.dtype == dtype
        np.testing.assert_array_equal(one, other)


def test_the_extremes_of_the_numbers_survive(tmp_path):
    info = np.finfo(np.float32)
    extremes = [[info.max, info.min, info.tiny, info.smallest_subnormal, -0.0, 1 / 3]]
    network = Network.from_parameters([extremes], [[-0.0]])
    network.save(tmp_path / "model")
    loaded = Network.load(tmp_path / "model")
    assert loaded.weights[0].tobytes() == network.weights[0].tobytes()
    assert loaded.init is None


def test_what_it_was_trained_on_is_kept(tmp_path):
    network = small()
    network.trained_on = {"name": "digits", "sha256": "ab" * 32}
    network.save(tmp_path / "model")
    assert Network.load(tmp_path / "model").trained_on == network.trained_on


@pytest.mark.parametrize("device", [NumpyBackend(), StrictBackend()], ids=["numpy", "strict"])
def test_from_any_device_to_any(tmp_path, device):
    small(device=device).save(tmp_path / "model")
    np.testing.assert_array_equal(Network.load(tmp_path / "model").weights[1], small().weights[1])
    loaded = Network.load(tmp_path / "model", device=device)
    assert loaded.backend is device


def test_a_path_is_a_string_or_a_path_and_its_folder_is_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small().save("model of mine, überschrieben.x")
    assert Network.load("model of mine, überschrieben.x").sizes == (3, 4, 2)


def test_the_file_is_read_by_any_safetensors(path):
    network, tensors = small(), load_file(path)
    assert set(tensors) == {f"layers.{i}.{kind}" for i in (0, 1) for kind in ("weight", "bias")}
    for i in (0, 1):
        np.testing.assert_array_equal(tensors[f"layers.{i}.weight"], network.weights[i])
        np.testing.assert_array_equal(tensors[f"layers.{i}.bias"], network.biases[i])
    assert tensors["layers.0.weight"].shape == (4, 3)  # (n_out, n_in), as PyTorch has it
    metadata = parse(path.read_bytes())[0]["__metadata__"]
    description = json.loads(metadata["fastnn"])
    assert description["format_version"] == FORMAT_VERSION == 1
    assert description["sizes"] == [3, 4, 2]
    assert description["activations"] == ["sigmoid", "sigmoid"]
    assert description["cost"] == "cross-entropy"


# What is no model
# -----------------------------------------------------------------------------------------


def test_a_missing_file(tmp_path):
    with pytest.raises(ModelError, match=r"nothing\.here does not exist") as error:
        Network.load(tmp_path / "nothing.here")
    assert error.value.exit_code == 4


@pytest.mark.parametrize("kind", ["folder", "fifo", "device", "null byte", "long", "broken link"])
def test_a_path_that_is_no_file(tmp_path, kind):
    paths = {"folder": tmp_path, "device": "/dev/null", "null byte": "a\0b", "long": "a" * 9999}
    if kind == "fifo":  # which would wait for ever for a writer
        os.mkfifo(tmp_path / kind)
    elif kind == "broken link":
        (tmp_path / kind).symlink_to(tmp_path / "nowhere")
    with pytest.raises(ModelError, match=r"is not a file|does not exist|cannot be read"):
        Network.load(paths.get(kind, tmp_path / kind))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0",
        bytes(8),
        b"\xff" * 8,  # a header of 2^64 - 1 bytes
        struct.pack("<Q", 10**8) + b"{}",
        struct.pack("<Q", 2) + b"{}",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 4) + b"\xff\xfe{}",
        b"\x89PNG\r\n\x1a\n" + bytes(99),
        b"PK\x03\x04" + bytes(99),
        b"\x80\x04\x95cos\nsystem\n(S'exit 1'\ntR.",  # a pickle
        json.dumps({"weights": [[1]], "biases": [1]}).encode(),
    ],
)
def test_a_file_of_another_kind(tmp_path, content):
    (tmp_path / "model").write_bytes(content)
    with pytest.raises(ModelError, match=r"damaged, or no model file|not written by fastnn"):
        Network.load(tmp_path / "model")


@pytest.mark.parametrize("metadata", [None, {}, {"format": "pt"}])
def test_tensors_of_another_program(tmp_path, metadata):
    save_file({"layers.0.weight": np.ones((2, 3))}, tmp_path / "model", metadata)
    with pytest.raises(ModelError, match="was not written by fastnn"):
        Network.load(tmp_path / "model")


def test_every_truncation_is_found(path):
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(ModelError):
            Network.load(path)


@pytest.mark.parametrize(
    "description",
    [
        "",
        "{",
        "[]",
        "null",
        "3",
        '"text"',
        "[" * 100_000,
        "9" * 5000,
        "{}",
        '{"format_version": 1}',
    ],
)
def test_a_description_that_cannot_be_read(path, description):
    header, data = parse(path.read_bytes())
    header["__metadata__"]["fastnn"] = description
    path.write_bytes(compose(header, data))
    with pytest.raises(ModelError, match="is damaged: its description"):
        Network.load(path)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"format_version": 2}, "newer fastnn wrote; this one reads version 1. Upgrade"),
        ({"format_version": 10**30}, "newer"),
        ({"format_version": 0}, "damaged"),
        ({"format_version": "1"}, "damaged"),
        ({"format_version": None}, "damaged"),
        ({"sizes": [3, 5, 2]}, r"sizes are \[3, 5, 2\], and they are \(3, 4, 2\)"),
        ({"sizes": None}, "sizes"),
        ({"activations": ["sigmoid"]}, "tensors are not those of its layers"),
        ({"activations": ["sigmoid"] * 3}, "damaged"),
        ({"activations": []}, "damaged"),
        ({"activations": None}, "damaged"),
        ({"activations": "sigmoid"}, "damaged"),
        ({"activations": ["swish", "sigmoid"]}, "unknown activation 'swish'"),
        ({"activations": ["softmax", "sigmoid"]}, "softmax is for the output"),
        ({"activations": ["sigmoid", "softmax"]}, "makes no sense"),
        ({"cost": "perplexity"}, "unknown cost 'perplexity'"),
        ({"cost": None}, "unknown cost"),
        ({"cost": ["quadratic"]}, "unknown cost"),
        ({"trained_on": "digits"}, "damaged"),
        ({"trained_on": {"name": "digits"}}, "damaged"),
        ({"trained_on": 0}, "damaged"),
    ],
)
def test_a_description_that_makes_no_sense(path, changes, says):
    header, data = parse(path.read_bytes())
    describe(header, **changes)
    path.write_bytes(compose(header, data))
    with pytest.raises(ModelError, match=says) as error:
        Network.load(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    "key", ["format_version", "activations", "cost", "sizes", "init", "trained_on"]
)
def test_a_description_with_something_missing(path, key):
    header, data = parse(path.read_bytes())
    description = json.loads(header["__metadata__"]["fastnn"])
    del description[key]
    header["__metadata__"]["fastnn"] = json.dumps(description)
    path.write_bytes(compose(header, data))
    with pytest.raises(ModelError, match="description is not complete"):
        Network.load(path)


TENSORS = {
    "layers.0.weight": np.ones((4, 3), np.float32),
    "layers.0.bias": np.ones(4, np.float32),
    "layers.1.weight": np.ones((2, 4), np.float32),
    "layers.1.bias": np.ones(2, np.float32),
}


@pytest.mark.parametrize(
    "changes",
    [
        {"layers.0.weight": np.ones((3, 4), np.float32)},
        {"layers.0.weight": np.ones((4, 2), np.float32)},
        {"layers.0.weight": np.ones(12, np.float32)},
        {"layers.0.bias": np.ones((4, 1), np.float32)},
        {"layers.1.bias": np.ones(3, np.float32)},
        {"layers.1.bias": None},
        {"layers.2.bias": np.ones(2, np.float32)},
        {"extra": np.ones(2, np.float32)},
        {"layers.0.bias": np.ones(4)},  # float64 beside float32
        {"layers.0.bias": np.full(4, np.nan, np.float32)},
        {"layers.1.weight": np.full((2, 4), -np.inf, np.float32)},
    ],
)
def test_tensors_that_make_no_network(path, changes):
    metadata = parse(path.read_bytes())[0]["__metadata__"]
    tensors = {name: array for name, array in (TENSORS | changes).items() if array is not None}
    save_file(tensors, path, metadata)
    with pytest.raises(ModelError, match="is damaged"):
        Network.load(path)


@pytest.mark.parametrize("dtype", ["float16", "int32", "bool", "uint8"])
def test_tensors_of_a_type_that_no_network_has(path, dtype):
    metadata = parse(path.read_bytes())[0]["__metadata__"]
    save_file({name: array.astype(dtype) for name, array in TENSORS.items()}, path, metadata)
    with pytest.raises(ModelError, match="is damaged"):
        Network.load(path)


@pytest.mark.skipif(
    tuple(map(int, version("safetensors").split(".")[:2])) < (0, 7),
    reason="this safetensors writes no complex numbers",
)
def test_complex_tensors_are_not_made_real(path):
    metadata = parse(path.read_bytes())[0]["__metadata__"]
    save_file({name: array.astype("complex64") for name, array in TENSORS.items()}, path, metadata)
    with pytest.raises(ModelError, match="is damaged"):
        Network.load(path, device=NumpyBackend())


@pytest.mark.parametrize("dtype", ["BF16", "F8_E4M3", "F4", "U64", "X"])
def test_tensors_of_a_type_that_numpy_lacks(path, dtype):
    header, data = parse(path.read_bytes())
    size = {"BF16": 2, "F8_E4M3": 1, "F4": 0.5, "U64": 8, "X": 4}[dtype]
    start = 0
    for name, entry in header.items():
        if name != "__metadata__":
            stop = start + int(np.prod(entry["shape"]) * size)
            entry |= {"dtype": dtype, "data_offsets": [start, stop]}
            start = stop
    path.write_bytes(compose(header, (2 * data)[:start]))
    with pytest.raises(ModelError):
        Network.load(path)


def test_float64_numbers_beyond_a_float32_device(path):
    """From a backend given, the file takes its precision; what that cannot hold is refused."""
    tensors = {name: array.astype(float) for name, array in TENSORS.items()}
    save_file(tensors, path, parse(path.read_bytes())[0]["__metadata__"])
    assert Network.load(path).backend.dtype == np.float64
    assert Network.load(path, device=NumpyBackend()).backend.dtype == np.float32
    tensors["layers.0.bias"][0] = 1e300
    save_file(tensors, path, parse(path.read_bytes())[0]["__metadata__"])
    with pytest.raises((ModelError, ArgumentError)):
        Network.load(path, device=NumpyBackend())


# Saving
# ----------------------------------------------------------------------------------------------


def test_saving_again_replaces_the_model_and_leaves_nothing_else(path):
    other = small(activation="tanh")
    other.save(path)
    assert Network.load(path).activation == "tanh"
    assert os.listdir(path.parent) == [path.name]


def test_who_is_reading_the_old_model_reads_on(path):
    before = path.read_bytes()
    with path.open("rb") as reader:
        small(activation="tanh").save(path)
        assert reader.read() == before
    assert path.read_bytes() != before


def test_an_empty_file_may_be_written_over(tmp_path):
    (tmp_path / "model").touch()
    small().save(tmp_path / "model")
    assert Network.load(tmp_path / "model").sizes == (3, 4, 2)


@pytest.mark.parametrize("content", [b"# thesis", b"\0" * 100, b"PK\x03\x04"])
def test_a_file_of_anothers_is_not_destroyed(tmp_path, content):
    (tmp_path / "thesis.tex").write_bytes(content)
    with pytest.raises(OutputError, match="something other than a fastnn model") as error:
        small().save(tmp_path / "thesis.tex")
    assert (tmp_path / "thesis.tex").read_bytes() == content
    assert error.value.exit_code == 1


def test_tensors_of_another_program_are_not_destroyed(tmp_path):
    save_file({"wte.weight": np.ones(3)}, tmp_path / "model")
    before = (tmp_path / "model").read_bytes()
    with pytest.raises(OutputError, match="something other than a fastnn model"):
        small().save(tmp_path / "model")
    assert (tmp_path / "model").read_bytes() == before


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("", "it is a folder"),
        ("/dev/null", "not an ordinary file"),
        ("fifo", "not an ordinary file"),
        ("no/such/folder/model", "No such file or directory"),
        ("file/model", "Not a directory|No such file"),
        ("a" * 300, "File name too long"),
        ("a\0b", "cannot write"),
        ("nothing/", "folder"),
        ("/proc/model", "cannot write"),
    ],
)
def test_a_place_that_cannot_be_written(tmp_path, name, says):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "file").touch()
    before = sorted(os.listdir(tmp_path))
    for attempt in (check_writable, small().save):
        with pytest.raises(OutputError, match="cannot write") as error:
            attempt(os.path.join(tmp_path, name))
        assert any(part in str(error.value) for part in says.split("|"))
    assert sorted(os.listdir(tmp_path)) == before
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_a_write_protected_model_is_not_replaced(path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)  # as for anyone but root, after chmod 444
    with pytest.raises(OutputError, match="write-protected"):
        small().save(path)


def test_who_may_read_a_model_stays_so(path):
    path.chmod(0o640)
    small().save(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_asking_whether_a_file_can_be_written_writes_nothing(tmp_path):
    check_writable(tmp_path / "model")
    assert os.listdir(tmp_path) == []


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "latest").symlink_to("runs/1")
    for activation in ("sigmoid", "tanh"):  # into nothing, and over a model
        small(activation=activation).save(tmp_path / "latest")
        assert (tmp_path / "latest").is_symlink()
        assert Network.load(tmp_path / "runs" / "1").activation == activation
    assert os.listdir(tmp_path / "runs") == ["1"]


def test_on_a_full_disk_the_old_model_survives(path):
    """A limit on the size of files stands in for the disk: the write fails in the middle."""
    before = path.read_bytes()
    program = """
        import resource, sys
        from fastnn import Network, OutputError

        network = Network([100, 100, 10])
        resource.setrlimit(resource.RLIMIT_FSIZE, (9999, 9999))
        try:
            network.save(sys.argv[1])
        except OutputError as error:
            print(error)
    """
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), path],
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout == f"cannot write {path}: File too large\n"
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


def test_a_failure_of_the_last_step_leaves_the_old_model_too(path, monkeypatch):
    def fail(_):
        raise OSError(5, "Input/output error")

    before = path.read_bytes()
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OutputError, match="Input/output error"):
        small(activation="tanh").save(path)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


# Whatever the file
# ---------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=6,
)
DESCRIPTION = {
    "format_version": 1,
    "sizes": [3, 4, 2],
    "activations": ["sigmoid", "sigmoid"],
    "cost": "cross-entropy",
    "init": "scaled",
    "trained_on": {"name": "digits", "sha256": "00"},
}
VALID = to_bytes(TENSORS, {"fastnn": json.dumps(DESCRIPTION)})


def test_a_model_file_may_be_written_by_others(tmp_path):
    (tmp_path / "model").write_bytes(VALID)
    assert Network.load(tmp_path / "model").parameter_count == 26


def edit(tree, draw):
    """Put any JSON in any one place of a tree of JSON."""
    while True:
        keys = list(tree) if isinstance(tree, dict) else list(range(len(tree)))
        key = draw(st.sampled_from(keys))
        if not (isinstance(tree[key], dict | list) and tree[key] and draw(st.booleans())):
            tree[key] = draw(JSON)
            return
        tree = tree[key]


@st.composite
def damaged_models(draw):
    if draw(st.booleans()):
        header, data = parse(VALID)
        if draw(st.booleans()):
            edit(header, draw)
        else:
            description = json.loads(header["__metadata__"]["fastnn"])
            edit(description, draw)
            header["__metadata__"]["fastnn"] = json.dumps(description)
        return compose(header, data)
    content = VALID
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(content)))
        removed = draw(st.sampled_from([0, 1, 4, len(content)]))
        inserted = draw(st.binary(max_size=8))
        content = content[:place] + inserted + content[place + removed :]
    return content


@settings(
    derandomize=True,
    deadline=None,
    max_examples=600,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(content=damaged_models())
def test_a_damaged_file_is_a_model_or_an_error_with_a_sentence(tmp_path, content):
    path = tmp_path / "model"
    path.write_bytes(content)
    try:
        network = Network.load(path)
    except ModelError as error:
        said = str(error)
    else:
        said = ""
        assert network.forward(np.ones((1, network.sizes[0]))).shape == (1, network.sizes[-1])
    assert not said or str(path) in said
