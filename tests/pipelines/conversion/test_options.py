"""Options: every wrong value is refused by the name of its flag, every field says what it is."""

import ast
import inspect
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest

from mmdata.cli.main import COMMANDS
from mmdata.errors import UserError
from pipelines.mmc4.options import ConvertMmc4
from pipelines.validate.options import Validate
from tests.corpus import Corpus, cli, make_corpus, manifest_of, run_cli

GOOD: dict[str, Any] = {"docs": ("a.jsonl",), "images": "images", "output": "out"}


@pytest.mark.parametrize(
    ("option", "value", "flag"),
    [
        ("docs_per_shard", 0, "--docs-per-shard 0: expected at least 1"),
        ("num_shards", 0, "--num-shards 0: expected at least 1"),
        ("limit", 0, "--limit 0: expected at least 1"),
        ("limit", -3, "--limit -3: expected at least 1"),
        ("workers", -1, "--workers -1: expected at least 0"),
        ("max_pixels", 0, "--max-pixels 0: expected at least 1"),
        ("max_record_bytes", 0, "--max-record-bytes 0: expected at least 1"),
        ("max_document_bytes", 0, "--max-document-bytes 0: expected at least 1"),
        ("min_side", -1, "--min-side -1: expected at least 0"),
        ("min_bytes", -1, "--min-bytes -1: expected at least 0"),
        ("max_aspect", -1.0, "--max-aspect -1: expected 0 (no limit) or at least 1"),
        ("max_aspect", 0.5, "--max-aspect 0.5: expected 0 (no limit) or at least 1"),
        ("max_aspect", float("nan"), "--max-aspect nan: expected 0 (no limit) or at least 1"),
        ("min_similarity", 25.0, "--min-similarity 25: similarities are cosines, -1 to 1: did you "
         "mean 0.25?"),
        ("min_similarity", -1.5, "--min-similarity -1.5: similarities are cosines, -1 to 1"),
        ("min_similarity", float("nan"), "--min-similarity nan: similarities are cosines, -1 to 1"),
        ("verify", "none", "--verify none: expected header, decode, full"),
        ("on_missing", "skip", "--on-missing skip: expected drop-image, drop-document, error"),
        ("jpeg_warnings", "x", "--jpeg-warnings x: expected keep, drop"),
        ("key_prefix", "A", "--key-prefix 'A': expected at most 64 characters of 0-9, a-z, _"),
        ("key_prefix", "a.b", "--key-prefix 'a.b': expected"),
        ("key_prefix", "a/", "--key-prefix 'a/': expected"),
        ("key_prefix", "x" * 65, "--key-prefix"),
        ("image_path", "{root}/{shard}", "'{root}/{shard}': expected {image_name} in it"),
        ("image_path", "{root}/{name}/{image_name}", "--image-path '{root}/{name}/{image_name}': "
         "expected {root}, {shard}, {stem} and {image_name} only: 'name'"),
        ("image_path", "{image_name", "--image-path '{image_name': expected"),
        ("image_path", "{}/{image_name}", "--image-path '{}/{image_name}': expected"),
        ("docs", "a.jsonl", "docs 'a.jsonl': expected a list or tuple of paths"),
        ("allow_symlinks_to", "/srv", "--allow-symlinks-to '/srv': expected a list or tuple"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_refused_by_name(option: str, value: Any, flag: str) -> None:
    with pytest.raises(UserError) as caught:
        ConvertMmc4(**(GOOD | {option: value}))
    assert flag in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("option", "value"),
    [("max_aspect", 1.0), ("max_aspect", 0.0), ("min_similarity", -1.0), ("min_similarity", 1.0),
     ("key_prefix", "x" * 64), ("image_path", "{root}/{shard:0>5}/{image_name}"), ("workers", 0)],
)  # fmt: skip
def test_values_at_the_border_are_taken(option: str, value: Any) -> None:
    options = ConvertMmc4(**(GOOD | {option: value}))
    assert getattr(options, option) == value
    options.image_policy()


@pytest.mark.parametrize(
    ("option", "value"),
    [("level", "deep"), ("max_findings", 0), ("workers", -1), ("shards", "a.tar")],
)
def test_validate_refuses_too(option: str, value: Any) -> None:
    with pytest.raises(UserError, match=option.replace("_", "-")):
        Validate(**({"shards": ("a.tar",)} | {option: value}))


@pytest.mark.parametrize(
    "kind", [kind for kind, _ in COMMANDS.values()], ids=lambda kind: kind.__name__
)
def test_every_field_says_what_it_is(kind: type) -> None:
    assert kind.__doc__
    bases = [base for base in kind.__mro__ if is_dataclass(base)]
    assert set().union(*map(told, bases)) == {field.name for field in fields(kind)}


def told(kind: type) -> set[str]:
    """The fields of a class that have a sentence below them."""
    (body,) = ast.parse(inspect.getsource(kind)).body
    assert isinstance(body, ast.ClassDef)
    return {
        first.target.id
        for first, second in zip(body.body, body.body[1:], strict=False)
        if isinstance(first, ast.AnnAssign)
        and isinstance(first.target, ast.Name)
        and isinstance(second, ast.Expr)
        and isinstance(second.value, ast.Constant)
        and isinstance(second.value.value, str)
    }


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    return make_corpus(tmp_path, records=6)


def test_flags_go_with_dashes_or_underscores(corpus: Corpus, tmp_path: Path) -> None:
    for name, flag in (("a", "--docs-per-shard"), ("b", "--docs_per_shard")):
        assert run_cli(corpus.command(tmp_path / name, flag, "2")).returncode == 0
    manifests = [(tmp_path / name / "manifest.json").read_bytes() for name in ("a", "b")]
    assert manifests[0] == manifests[1]
    command = [part if part != "convert-mmc4" else "convert_mmc4" for part in
               corpus.command(tmp_path / "c")]  # fmt: skip
    assert run_cli(command).returncode == 0


def test_a_file_fills_options_and_the_command_line_wins(corpus: Corpus, tmp_path: Path) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(
        f"docs: [{', '.join(corpus.docs)}]\nimages: {corpus.images}\n"
        f"docs-per-shard: 2\nkey_prefix: from-file_\noutput: {tmp_path / 'out'}\n"
    )
    assert run_cli(cli("convert-mmc4", "--config", str(config))).returncode == 0
    assert manifest_of(tmp_path / "out")["options"]["key_prefix"] == "from-file_"
    more = ["--key-prefix", "typed_", "--output", str(tmp_path / "typed")]
    assert run_cli(cli("convert-mmc4", f"--config={config}", *more)).returncode == 0
    options = manifest_of(tmp_path / "typed")["options"]
    assert (options["key_prefix"], options["docs_per_shard"]) == ("typed_", 2)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("docs_per_shad: 2\n", "no option 'docs_per_shad'; did you mean docs-per-shard?"),
        ("docs_per_shard: many\n", "docs_per_shard: Expected int, got str"),
        ("verify: sometimes\n", "verify: Invalid enum value 'sometimes'"),
        ("limit: 0\n", "--limit 0: expected at least 1"),
        ("- a\n- b\n", "expected 'option: value' lines"),
        ("a: [\n", "run.yaml: "),
    ],
)
def test_a_file_that_is_wrong_is_refused_by_name(
    text: str, problem: str, corpus: Corpus, tmp_path: Path
) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(text)
    done = run_cli(corpus.command(tmp_path / "out", "--config", str(config)))
    assert done.returncode == 2
    assert problem in " ".join(done.stderr.split())
    assert not (tmp_path / "out").exists()


def test_a_wrong_flag_is_refused_without_a_traceback(corpus: Corpus, tmp_path: Path) -> None:
    done = run_cli(corpus.command(tmp_path / "out", "--docs-per-shard", "0"))
    assert done.returncode == 2
    assert "--docs-per-shard 0: expected at least 1" in done.stderr
    done = run_cli(corpus.command(tmp_path / "out", "--no-such-flag"))
    assert done.returncode == 2
    assert "--no-such-flag" in done.stdout + done.stderr
    done = run_cli(Corpus(corpus.docs, str(tmp_path / "gone"), 0).command(tmp_path / "out"))
    assert done.returncode == 2
    assert f"--images {tmp_path / 'gone'}: no such folder" in done.stderr
    done = run_cli(Corpus(corpus.docs, corpus.images, 0).command("https://host/out"))
    assert done.returncode == 2
    assert "shards are written to a folder, s3:// or gs://" in done.stderr
