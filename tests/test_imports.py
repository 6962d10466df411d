"""What imports what: `import fastnn` stays light, and imports run one way."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import fastnn
import fastnn.kernels

HEAVY = """
    numba cupy sklearn click scipy rich pooch requests safetensors PIL pytest platformdirs
    matplotlib tensorboardX optuna sqlalchemy
"""

# A module may import from its own layer and from those above it in this list; a package stands for
# all that is in it, unless a module of it is named by itself.
LAYERS = [
    ["fastnn.kernels"],
    ["fastnn.errors", "fastnn.cache", "fastnn.threads"],
    ["fastnn.outputs", "fastnn.told"],
    ["fastnn.study"],
    ["fastnn.checks"],
    ["fastnn.backends", "fastnn.backends.base"],
    ["fastnn.dropout", "fastnn.optimisers"],
    ["fastnn.backends.host"],
    ["fastnn.backends.numpy_cpu", "fastnn.activations", "fastnn.costs", "fastnn.initialisers"],
    ["fastnn.backends.blas", "fastnn.backends.cuda_driver"],
    ["fastnn.backends.cuda_probe"],
    ["fastnn.backends.numba_code"],
    ["fastnn.backends.numba_layout"],
    ["fastnn.backends.numba_feed", "fastnn.backends.numba_step"],
    ["fastnn.backends.cuda_gpu"],
    ["fastnn.backends.cublas", "fastnn.backends.cuda_code", "fastnn.backends.cuda_streaming"],
    ["fastnn.backends.cupy_gpu", "fastnn.backends.cuda_kernels"],
    ["fastnn.backends.cuda_graph", "fastnn.backends.cuda_resident"],
    ["fastnn.backends.cupy_cuda"],
    ["fastnn.backends.numba_cpu"],
    ["fastnn.backends.registry"],
    ["fastnn.data"],
    ["fastnn.backprop"],
    ["fastnn.inference"],
    # Network.save and load stand in for model_file, and import it when they are called.
    ["fastnn.network", "fastnn.model_file"],
    ["fastnn.history", "fastnn.profiling"],
    ["fastnn.log", "fastnn.schedules", "fastnn.state", "fastnn.tensorboard"],
    ["fastnn.checkpoint"],
    ["fastnn.scoring"],
    ["fastnn.descent"],
    ["fastnn.training"],
    ["fastnn.comparing", "fastnn.inspecting", "fastnn.range_test", "fastnn.trial"],
    ["fastnn.race"],
    ["fastnn.choosing", "fastnn.tuning", "fastnn.drawing", "fastnn.measuring"],
    ["fastnn.book"],
    ["fastnn.testing"],
    ["fastnn"],
    ["fastnn.cli", "fastnn.__main__"],
]
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}


def sources():
    """Every module's name and syntax tree. In an editable installation kernels/ lies elsewhere."""
    for package in (fastnn, fastnn.kernels):
        folder = Path(package.__file__).parent
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            name = ".".join((package.__name__, *parts)).removesuffix(".__init__")
            yield name, ast.parse(path.read_text(encoding="utf-8"))


TREES = dict(sources())


def imports(name):
    """The modules that a module imports, at its top or later."""
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: imports are absolute"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in TREES else node.module


def rank(name):
    while name not in RANK:
        name = name.rpartition(".")[0]
    return RANK[name]


def own(name):
    return {module for module in imports(name) if module.split(".")[0] == "fastnn"}


def test_the_walk_sees_the_whole_package():
    assert {"fastnn", "fastnn.kernels.reference", "fastnn.backends.base", "fastnn.cli"} <= set(
        TREES
    )
    assert "fastnn.kernels.reference" in own("fastnn.backends.numpy_cpu")


@pytest.mark.parametrize("name", TREES)
def test_every_module_has_a_place_in_the_list(name):
    assert name == "fastnn" or rank(name) != RANK["fastnn"], f"put {name} into LAYERS above"


@pytest.mark.parametrize("name", TREES)
def test_imports_run_one_way(name):
    wrong = sorted(module for module in own(name) if rank(module) > rank(name))
    assert not wrong, f"{name} imports {wrong}, which stand above it"


@pytest.mark.parametrize("name", [name for name in TREES if name.startswith("fastnn.kernels")])
def test_kernels_know_nothing_of_the_rest(name):
    assert all(module.startswith("fastnn.kernels") for module in own(name))


def test_the_contract_of_a_backend_rests_on_kernels_and_errors_alone():
    assert own("fastnn.backends.base") <= {
        "fastnn.kernels",
        "fastnn.kernels.reference",
        "fastnn.errors",
    }


@pytest.mark.parametrize("name", [name for name in TREES if not name.startswith("fastnn.cli")])
def test_below_the_command_line_nothing_knows_of_it_or_prints(name):
    wrong = {module for module in imports(name) if module.split(".")[0] in ("click", "rich")}
    if name != "fastnn.__main__":
        wrong |= {module for module in own(name) if module.startswith("fastnn.cli")}
    assert not wrong
    called = [node.func for node in ast.walk(TREES[name]) if isinstance(node, ast.Call)]
    # The book's own programs print, and its readers look for it.
    if name not in ("fastnn.book.network", "fastnn.book.network2"):
        assert "print" not in {ast.unparse(function) for function in called}


@pytest.mark.parametrize("name", ["backprop", "inference", "network", "training", "model_file"])
def test_above_the_backends_nothing_knows_one_of_them(name):
    """Of NumpyBackend and its likes; the registry finds them, and Backend is the contract."""
    known = {module for module in own(f"fastnn.{name}") if module.startswith("fastnn.backends")}
    assert known <= {"fastnn.backends.base", "fastnn.backends.registry"}


def loaded_by(statement):
    program = f"import sys; {statement}; print(*sys.modules)"
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return {module.split(".")[0] for module in ran.stdout.split()}


def test_import_fastnn_is_light():
    assert not loaded_by("import fastnn") & set(HEAVY.split())


def test_the_book_is_loaded_where_it_is_asked_for():
    program = "import sys, fastnn; print('fastnn.book' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ran.stdout == "False\n"


def test_the_test_kit_loads_pytest_for_the_suite_alone():
    assert "pytest" not in loaded_by("import fastnn.testing")
    assert "pytest" in loaded_by("from fastnn.testing import BackendConformance")


def test_no_device_is_loaded_before_it_is_asked_for():
    assert "scipy" not in loaded_by("import fastnn; fastnn.load_dataset; fastnn.devices")
    assert "scipy" in loaded_by("import fastnn; fastnn.device('numpy')")


def test_all_that_is_public_is_there():
    assert len(set(fastnn.__all__)) == len(fastnn.__all__)
    assert all(hasattr(fastnn, name) for name in fastnn.__all__)
