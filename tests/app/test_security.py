"""Files are data: nothing that is read may run code, and no name may lead out of the folders."""

import ast
import pickle
from pathlib import Path

import pytest

import unibrain_bids
from unibrain_bids.bids.inputs import ScanRecord, find_scans
from unibrain_bids.errors import DatasetError, ResourceError

PACKAGE = Path(unibrain_bids.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))
# Modules whose loaders run what the file says.
UNSAFE_MODULES = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
UNSAFE_CALLS = {"eval", "exec", "unsafe_load", "full_load", "read_pickle", "loadpkl", "system", "popen"}


def name_of(call):
    return getattr(call.func, "attr", getattr(call.func, "id", ""))


def keywords(call):
    return {keyword.arg: getattr(keyword.value, "value", None) for keyword in call.keywords}


def complaints(tree):
    """Yield what must not be in a module of ours."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            yield from (name for name in names if name.split(".")[0] in UNSAFE_MODULES)
        if not isinstance(node, ast.Call):
            continue
        owner = ast.unparse(node.func)
        if name_of(node) in UNSAFE_CALLS and not (owner.endswith(".eval") and not node.args):  # torch's Module.eval()
            yield owner
        if owner == "torch.load" and keywords(node).get("weights_only") is not True:
            yield owner
        if owner == "yaml.load" or keywords(node).get("allow_pickle") is True or keywords(node).get("shell") is True:
            yield owner


def test_no_module_runs_what_it_reads():
    found = {path: list(complaints(ast.parse(path.read_text(encoding="utf-8")))) for path in SOURCES}
    assert len(found) > 50
    assert {path: names for path, names in found.items() if names} == {}


@pytest.mark.parametrize(
    "line",
    [
        "import pickle", "from joblib import load", "torch.load(path)", "np.load(path, allow_pickle=True)",
        "yaml.load(text)", "eval(text)", "subprocess.run(text, shell=True)", "pd.read_pickle(path)",
    ],
)  # fmt: skip
def test_the_rules_find_what_they_are_for(line):
    assert list(complaints(ast.parse(line)))


class Malicious:
    """Makes a file when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def test_weights_that_are_a_pickle_are_refused(tmp_path):
    from unibrain_bids.model.weights import load_weights

    mark, weights = tmp_path / "mark", tmp_path / "weights.safetensors"
    weights.write_bytes(pickle.dumps(Malicious(mark)))
    with pytest.raises(ResourceError, match=r"weights\.safetensors"):
        load_weights(weights, {})
    assert not mark.exists()
    pickle.loads(weights.read_bytes())
    assert mark.exists(), "the file is what it is meant to be"


@pytest.mark.parametrize(
    "name",
    [
        "sub-.._T1w.nii.gz",
        "sub-01_acq-a.b_T1w.nii.gz",
        "sub-01_acq-<b>_T1w.nii.gz",
        "sub-01_.._T1w.nii.gz",
        "sub-_T1w.nii",
    ],
)
def test_names_that_are_no_labels_are_refused(name):
    with pytest.raises(DatasetError, match="does not follow BIDS"):
        ScanRecord.from_path(Path("/data", "sub-01", "anat", name), dataset=Path("/data"))


def test_scans_in_other_peoples_folders_are_not_found(tmp_path):
    """A scan writes to the folder of the participant in its name: that must be the one it lies in."""
    (tmp_path / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.10.0"}')
    names = ["sub-01/anat/sub-01_T1w.nii.gz", "sub-02/anat/sub-01_T1w.nii.gz", "sub-02/ses-1/anat/sub-02_T1w.nii.gz"]
    for name in (*names, "sub-02/anat/sub-02_acq-a.b_T1w.nii.gz"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert [record.relative_path for record in find_scans(tmp_path)] == names[:1]
