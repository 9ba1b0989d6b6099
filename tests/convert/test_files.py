"""State dicts on disk: read exactly or refused by name, and nothing in them is run."""

from __future__ import annotations

import io
import os
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxmat.convert import files
from jaxmat.convert.files import read_state_dict, write_state_dict
from jaxmat.errors import UserError

SUFFIXES = [".npz", ".safetensors", ".pt"]
NO_TORCH = "*.pt files need torch, which is the extra 'convert'"
ARRAYS = {
    "fc.weight": np.arange(600, dtype=np.float32).reshape(300, 2).T,  # not as it lies in memory
    "fc.bias": np.array([0.1], np.float32),
    "norm.num_batches_tracked": np.array(7, np.int64),
}


@pytest.fixture(params=SUFFIXES)
def suffix(request) -> str:
    if request.param == ".pt":
        pytest.importorskip("torch", reason=NO_TORCH)
    return request.param


@pytest.fixture
def torch() -> Any:
    return pytest.importorskip("torch", reason=NO_TORCH)


def assert_same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    assert one.keys() == other.keys()
    for name in one:
        assert one[name].dtype == other[name].dtype
        np.testing.assert_array_equal(one[name], other[name])


def test_what_was_written_is_read(suffix, tmp_path):
    file = tmp_path / f"weights{suffix}"
    write_state_dict(file, ARRAYS)
    assert_same(read_state_dict(file), ARRAYS)
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


@pytest.mark.parametrize("keep", [0, 20, 0.5, 0.99])
def test_a_truncated_file_is_named(suffix, keep, tmp_path):
    file = tmp_path / f"weights{suffix}"
    write_state_dict(file, ARRAYS)
    content = file.read_bytes()
    file.write_bytes(content[: keep if isinstance(keep, int) else int(keep * len(content))])
    with pytest.raises(UserError, match=f"weights{suffix}"):
        read_state_dict(file)


@pytest.mark.parametrize("suffix", [".npz", ".pt"])
def test_a_changed_number_is_seen(suffix, tmp_path):
    """The archive has check sums; a state dict as *.safetensors has none."""
    if suffix == ".pt":
        pytest.importorskip("torch", reason=NO_TORCH)
    file = tmp_path / f"weights{suffix}"
    write_state_dict(file, ARRAYS)
    number = np.float32(123).tobytes()
    content = file.read_bytes()
    assert content.count(number) == 1
    file.write_bytes(content.replace(number, np.float32(124).tobytes()))
    with pytest.raises(UserError, match=r"(archive/data/0|fc\.weight\.npy)"):
        read_state_dict(file)


@pytest.mark.parametrize("name", ["nowhere.npz", "nowhere.safetensors"])
def test_a_missing_file_is_named(name, tmp_path):
    with pytest.raises(UserError, match=rf"{name} cannot be read: no such file"):
        read_state_dict(tmp_path / name)


def test_another_suffix_is_refused(tmp_path):
    for use in (read_state_dict, lambda file: write_state_dict(file, ARRAYS)):
        with pytest.raises(UserError, match=r"weights\.h5 is not of a kind.*\.npz.*ends with \.pt"):
            use(tmp_path / "weights.h5")


def test_a_place_that_cannot_be_written_is_named(suffix, tmp_path):
    with pytest.raises(UserError, match="Cannot write .*nowhere"):
        write_state_dict(tmp_path / "nowhere" / f"weights{suffix}", ARRAYS)


class Touch:
    """What would make a file if it were unpickled."""

    def __init__(self, file: Path):
        self.command = f"touch {file}"

    def __reduce__(self) -> tuple:
        return os.system, (self.command,)


def test_objects_in_an_npz_are_not_made(tmp_path):
    np.savez(tmp_path / "weights.npz", evil=np.array([Touch(tmp_path / "made")], dtype=object))
    with pytest.raises(UserError, match=r"weights\.npz cannot be read: it is damaged"):
        read_state_dict(tmp_path / "weights.npz")
    assert not (tmp_path / "made").exists()


def test_an_archive_of_other_files_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "notes.npz", "w") as archive:
        archive.writestr("notes.txt", "mine")
    with pytest.raises(UserError, match=r"more than arrays:\n  notes\.txt"):
        read_state_dict(tmp_path / "notes.npz")
    np.save(tmp_path / "one.npy", np.ones(2))
    (tmp_path / "one.npy").rename(tmp_path / "one.npz")
    with pytest.raises(
        UserError, match=r"one\.npz cannot be read: it is damaged, or not a .npz file"
    ):
        read_state_dict(tmp_path / "one.npz")


def test_numbers_that_numpy_has_not_are_refused(tmp_path):
    header = b'{"half":{"dtype":"BF16","shape":[1],"data_offsets":[0,2]}}'
    file = tmp_path / "weights.safetensors"
    file.write_bytes(len(header).to_bytes(8, "little") + header + b"\0\0")
    with pytest.raises(UserError, match="entries of dtype 'BF16'"):
        read_state_dict(file)


def test_a_pt_that_would_run_code_is_refused_and_runs_none(torch, tmp_path):
    file, made = tmp_path / "weights.pt", tmp_path / "made"
    weight = torch.ones(2)
    torch.save({"model": {"fc.weight": weight}, "optimizer": Touch(made)}, file)
    with pytest.raises(UserError, match=r"weights\.pt is refused.*system"):
        read_state_dict(file)
    assert not made.exists()
    torch.load(file, weights_only=False)  # it is a threat indeed
    assert made.exists()


def test_a_published_checkpoint_has_more_than_the_model(torch, tmp_path):
    file = tmp_path / "checkpoint_500.pt"
    model = torch.nn.Linear(3, 1)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(3)).sum().backward()
    optimizer.step()
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=9)
    parts = {"model": model, "optimizer": optimizer, "lr_scheduler": schedule}
    torch.save({name: part.state_dict() for name, part in parts.items()}, file)
    expected = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    assert_same(read_state_dict(file), expected)


def test_a_bare_state_dict_will_do(torch, tmp_path):
    torch.save({"fc.bias": torch.nn.Parameter(torch.ones(2))}, tmp_path / "bare.pt")
    assert_same(read_state_dict(tmp_path / "bare.pt"), {"fc.bias": np.ones(2, np.float32)})


def test_a_whole_model_is_refused(torch, tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pt")
    with pytest.raises(UserError, match=r"module\.pt is refused.*Linear"):
        read_state_dict(tmp_path / "module.pt")


def test_what_unpacks_to_far_more_is_not_unpacked(tmp_path):
    file = tmp_path / "weights.npz"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("w.npy", "w", force_zip64=True) as stream:
            for _ in range(300):
                stream.write(bytes(2**20))
    assert file.stat().st_size < 2**20
    with pytest.raises(UserError, match="unpacks to 315 MB"):
        read_state_dict(file)


def test_a_shape_beyond_memory_is_refused(tmp_path):
    header = io.BytesIO()
    about = {"descr": "<f4", "fortran_order": False, "shape": (10**13,)}
    np.lib.format.write_array_header_1_0(header, about)
    with zipfile.ZipFile(tmp_path / "weights.npz", "w") as archive:
        archive.writestr("w.npy", header.getvalue())
    with pytest.raises(UserError, match="cannot be read"):
        read_state_dict(tmp_path / "weights.npz")


def test_a_pipe_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "weights.npz")
    with pytest.raises(UserError, match="it is a pipe"):
        read_state_dict(tmp_path / "weights.npz")


def test_a_tensor_larger_than_what_is_stored_is_refused(torch, tmp_path):
    view = torch.ones(1).expand(10**5, 10**5)
    torch.save({"w": view}, tmp_path / "weights.pt")
    with pytest.raises(UserError, match="w: larger than the file"):
        read_state_dict(tmp_path / "weights.pt")


def test_what_is_no_tensor_is_named(torch, tmp_path):
    content = {"epoch": 3, "half": torch.ones(2, dtype=torch.bfloat16), "fine": torch.ones(2)}
    torch.save(content, tmp_path / "odd.pt")
    with pytest.raises(UserError, match=r"(?s)more than tensors.*epoch: .*half: "):
        read_state_dict(tmp_path / "odd.pt")
    torch.save([torch.ones(2)], tmp_path / "list.pt")
    with pytest.raises(UserError, match=r"list\.pt holds no state dict"):
        read_state_dict(tmp_path / "list.pt")


@pytest.mark.parametrize(
    "name", ["builtins bytearray", "torch.storage UntypedStorage", "os system"]
)
def test_a_pt_that_names_more_than_tensors_is_not_given_to_torch(name, tmp_path):
    """Torch runs some of it without being asked, such as bytearray(10**10), which takes 10 GB."""
    called = b"c" + name.replace(" ", "\n").encode() + b"\n(\x8a\x05\x00\xe4\x0bT\x02tR."
    with zipfile.ZipFile(tmp_path / "w.pt", "w") as archive:
        archive.writestr("w/data.pkl", b"\x80\x02" + called)
    with pytest.raises(UserError, match=rf"it names {name.replace(' ', '.')}, which no state dict"):
        files._check_names(tmp_path / "w.pt")


def test_a_pt_with_names_that_are_no_text_is_refused(torch, tmp_path):
    torch.save({5: torch.ones(2), (5,): torch.ones(2)}, tmp_path / "w.pt")
    with pytest.raises(UserError, match=r"(?s)5: a name that is not text.*\(5,\): a name"):
        read_state_dict(tmp_path / "w.pt")


def test_a_pt_of_the_old_format_is_named_as_one(torch, tmp_path):
    """The message was that it is damaged."""
    torch.save({"w": torch.ones(2)}, tmp_path / "w.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(UserError, match=r"before 1\.6(?s:.*)torch\.save\("):
        read_state_dict(tmp_path / "w.pt")


def test_a_state_dict_under_another_name_is_told_how_to_be_saved(torch, tmp_path):
    torch.save({"state_dict": {"w": torch.ones(2)}}, tmp_path / "w.pt")
    with pytest.raises(UserError, match=r'state_dict: dict(?s:.*)torch\.save\(\{"model"'):
        read_state_dict(tmp_path / "w.pt")


def test_without_torch_a_pt_file_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torch", None)
    for use in (read_state_dict, lambda file: write_state_dict(file, ARRAYS)):
        with pytest.raises(UserError, match=r"pip install 'jaxmat-transfer\[convert\]'"):
            use(tmp_path / "weights.pt")
