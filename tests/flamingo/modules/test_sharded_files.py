"""The index of sharded tensors is read without running anything that it asks for."""

import os
import pickle
from pathlib import Path

import pytest
import torch
from torch.distributed.checkpoint.filesystem import FileSystemWriter
from torch.distributed.checkpoint.state_dict_saver import save

from flamingo.modules.sharded_files import (
    TensorReader,
    is_sharded,
    read_sharded_weights,
    sharded_shapes,
)
from mmdata.errors import BadInputError

TENSORS = {
    "model.rows": torch.arange(6.0).reshape(2, 3),
    "model.gate": torch.tensor(0.5, dtype=torch.bfloat16),
    "optimizer.rows.step": torch.tensor(3.0),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    writer = FileSystemWriter(tmp_path / "tensors")
    with pytest.warns(UserWarning, match="is disabled"):
        save(dict(TENSORS), storage_writer=writer, no_dist=True)
    return tmp_path


class Hostile:
    """Unpickles to a call that leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


class TestWeights:
    def test_are_those_of_the_model(self, folder: Path) -> None:
        assert is_sharded(folder)
        assert sharded_shapes(folder) == {"rows": (2, 3), "gate": ()}
        found = read_sharded_weights(folder)
        assert found.keys() == {"rows", "gate"}
        assert torch.equal(found["rows"], TENSORS["model.rows"])
        assert found["gate"].dtype == torch.bfloat16

    def test_in_a_missing_file_are_one_line(self, folder: Path) -> None:
        (folder / "tensors" / "__0_0.distcp").unlink()
        with pytest.raises(BadInputError, match=r"cannot be read: .*No such file") as refused:
            read_sharded_weights(folder)
        assert "\n" not in str(refused.value)


class TestIndex:
    def test_that_would_run_code_is_refused(self, folder: Path) -> None:
        proof = folder / "proof"
        index = folder / "tensors" / ".metadata"
        index.write_bytes(pickle.dumps(Hostile(proof)))
        with pytest.raises(BadInputError, match=r"names posix\.mkdir, which no index holds"):
            read_sharded_weights(folder)
        assert not proof.exists()
        pickle.loads(index.read_bytes())  # and it would have
        assert proof.exists()

    def test_that_names_a_file_elsewhere_is_refused(self, folder: Path) -> None:
        index = TensorReader(folder / "tensors").read_metadata()
        for entry in index.storage_data.values():
            entry.relative_path = "../secret"
        (folder / "tensors" / ".metadata").write_bytes(pickle.dumps(index))
        with pytest.raises(BadInputError, match=r"names \.\./secret, outside its folder"):
            read_sharded_weights(folder)

    @pytest.mark.parametrize("content", [b"", b"text", pickle.dumps({"model.rows": 1})])
    def test_that_is_none_is_refused(self, folder: Path, content: bytes) -> None:
        (folder / "tensors" / ".metadata").write_bytes(content)
        with pytest.raises(BadInputError, match="not an index of tensors"):
            sharded_shapes(folder)
