"""Similarities are open_clip's cosines, rounded, whatever shares their batches."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmdata.errors import UserError
from mmdata.images import ImageRejected
from pipelines.clip.model import ClipScorer, cosines, filled
from pipelines.clip.weights import similarity_source
from tests.clip_factory import make_clip
from tests.corpus import picture

open_clip = pytest.importorskip("open_clip")
torch = pytest.importorskip("torch")

PICTURES = [
    picture(0),
    picture(1, size=(31, 90)),
    picture(2, size=(200, 33), kind="PNG"),
    picture(3, kind="WEBP"),
]
TEXTS = [
    "A sentence.",
    "",
    "Gr\u00fc\u00dfe \N{GRINNING FACE} <end_of_text> in the middle",
    "long " * 500,
    "A sentence.",
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_clip(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def scorer(model: str) -> ClipScorer:
    return ClipScorer(model, batch_size=4)


def plain(model: str, pictures: list[bytes], texts: list[str]) -> Any:
    """What anybody would write with open_clip."""
    network, _, preprocess = open_clip.create_model_and_transforms(model)
    network.eval()
    with torch.no_grad():
        images = torch.stack([preprocess(Image.open(io.BytesIO(data))) for data in pictures])
        left = network.encode_image(images, normalize=True)
        right = network.encode_text(open_clip.get_tokenizer(model)(texts), normalize=True)
        return (left @ right.T).numpy()


def test_similarities_are_those_of_plain_open_clip(model: str, scorer: ClipScorer) -> None:
    matrix = scorer.similarity(PICTURES, TEXTS)
    assert matrix.shape == (4, 5)
    assert np.abs(matrix - plain(model, PICTURES, TEXTS)).max() <= 1e-6
    assert matrix.std() > 0.01  # they do differ
    assert (matrix[:, 0] == matrix[:, 4]).all()


def test_a_gray_picture_is_what_it_is_in_rgb(model: str, scorer: ClipScorer) -> None:
    sink = io.BytesIO()
    Image.open(io.BytesIO(picture(9, kind="PNG"))).convert("L").save(sink, "PNG")
    matrix = scorer.similarity([sink.getvalue()], ["gray"])
    assert np.abs(matrix - plain(model, [sink.getvalue()], ["gray"])).max() <= 1e-6


def test_values_have_six_decimals(scorer: ClipScorer) -> None:
    for value in scorer.similarity(PICTURES, TEXTS).ravel().tolist():
        assert value == round(value, 6)
        assert len(repr(abs(value)).partition(".")[2]) <= 6 or "e" in repr(value)


def test_neighbours_in_a_batch_change_nothing(scorer: ClipScorer) -> None:
    alone = [scorer.similarity([data], [text]) for data in PICTURES for text in TEXTS]
    together = scorer.similarity(PICTURES, TEXTS)
    assert np.concatenate(alone).ravel().tolist() == together.ravel().tolist()
    backwards = scorer.similarity(PICTURES[::-1], TEXTS[::-1])
    assert (backwards[::-1, ::-1] == together).all()


def test_hundreds_of_sentences_go_through_in_batches(scorer: ClipScorer, model: str) -> None:
    texts = [f"Sentence {number} of many." for number in range(301)]
    matrix = scorer.similarity(PICTURES[:1], texts)
    assert matrix.shape == (1, 301)
    assert np.abs(matrix - plain(model, PICTURES[:1], texts)).max() <= 1e-6


def test_the_number_of_threads_is_left_as_it_was_and_changes_nothing(scorer: ClipScorer) -> None:
    before = torch.get_num_threads()
    results = []
    try:
        for number in (1, 2):
            torch.set_num_threads(number)
            results.append(scorer.similarity(PICTURES, TEXTS).tolist())
            assert torch.get_num_threads() == number
    finally:
        torch.set_num_threads(before)
    assert results[0] == results[1]


def test_nothing_to_compare_is_an_empty_matrix(scorer: ClipScorer) -> None:
    assert scorer.similarity([], ["a"]).shape == (0, 1)
    assert scorer.similarity(PICTURES[:1], []).shape == (1, 0)
    assert scorer.text_features([]).shape == (0, 0)


@pytest.mark.parametrize("data", [b"", b"\xff\xd8\xff", PICTURES[0][:-400]])
def test_a_picture_that_cannot_be_decoded_is_rejected(scorer: ClipScorer, data: bytes) -> None:
    with pytest.raises(ImageRejected, match="unreadable"):
        scorer.front.pixels(data)


def test_cosines_are_bounded_and_zero_has_none() -> None:
    rows = np.array([[3.0, 4.0], [0.0, 0.0]], dtype=np.float32)
    assert cosines(rows, rows).tolist() == [[1.0, 0.0], [0.0, 0.0]]
    assert cosines(rows, -rows)[0, 0] == -1.0
    assert not np.signbit(cosines(rows[:1], np.array([[4.0, -3.0000001]], np.float32))).any()


def test_batches_are_filled_with_zeros() -> None:
    batch = filled(np.ones((2, 3), np.uint8), 4)
    assert batch.sum(axis=1).tolist() == [3, 3, 0, 0]


class TestSource:
    def test_it_names_the_model_and_a_tag(self) -> None:
        assert similarity_source("ViT-L-14", "openai", "ab" * 32) == "clip:ViT-L-14/openai"

    def test_weights_from_files_are_named_by_content(self) -> None:
        digest = "0123456789abcdef" * 4
        named = "clip:ViT-L-14/sha256-0123456789ab"
        assert similarity_source("ViT-L-14", "/some/where.pt", digest) == named
        hub = "clip:hf-hub:org/name/sha256-0123456789ab"
        assert similarity_source("hf-hub:org/name", None, digest) == hub

    def test_no_path_is_in_it(self, tmp_path: Path) -> None:
        first = ClipScorer(make_clip(tmp_path / "a" / "tiny")).spec
        second = ClipScorer(make_clip(tmp_path / "b" / "tiny")).spec
        assert first.source == second.source
        assert first.source.startswith("clip:tiny/sha256-")
        other = ClipScorer(make_clip(tmp_path / "c" / "tiny", seed=1)).spec
        assert other.source != first.source


@pytest.mark.parametrize(
    ("name", "pretrained", "message"),
    [
        ("ViT-L-15", "openai", "--clip-model ViT-L-15: expected a model of open_clip"),
        ("ViT-B-32", None, "--clip-pretrained : expected a file, or a tag of ViT-B-32 (openai,"),
        ("ViT-B-32", "opnai", "--clip-pretrained opnai: expected a file, or a tag"),
        ("local-dir:nowhere", None, "nowhere"),
        ("local-dir:nowhere", "openai", "brings its weights: leave out --clip-pretrained"),
    ],
)
def test_models_that_cannot_be_had_are_refused_in_one_line(
    name: str, pretrained: str | None, message: str
) -> None:
    with pytest.raises(UserError) as caught:
        ClipScorer(name, pretrained)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_without_weights_is_refused(model: str, tmp_path: Path) -> None:
    make_clip(tmp_path / "m")
    (tmp_path / "m" / "open_clip_model.safetensors").unlink()
    with pytest.raises(UserError, match="could not be loaded"):
        ClipScorer(f"local-dir:{tmp_path / 'm'}")


def test_a_tokenizer_that_the_text_tower_does_not_know_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="knows 512 tokens"):
        ClipScorer(make_clip(tmp_path / "m", vocabulary=512))


def test_cuda_is_refused_without_a_gpu(model: str) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(UserError, match="torch sees no GPU here; use cpu"):
        ClipScorer(model, device="cuda")


@pytest.mark.gpu
def test_a_gpu_gives_what_the_cpu_gives_within_a_thousandth(model: str, scorer: ClipScorer) -> None:
    there = ClipScorer(model, device="cuda", batch_size=4).similarity(PICTURES, TEXTS)
    assert np.abs(there - scorer.similarity(PICTURES, TEXTS)).max() <= 1e-3
