"""What a checkpoint fills of a model, as one table: what is in it, what was taken, what was not.

A load that is not strict leaves parts at their initial values and says so in a list of a thousand
names, of which all but a few are as they should be (a frozen LM is in no checkpoint). Here names
are counted by the part of the model that they belong to, and each part says whether that is as
expected. The table is made before anything is copied; what cannot be loaded is then refused.

The LM itself is known by its text embeddings, where a checkpoint brings them: they are frozen, so
those of the LM that it was trained with are equal. Another LM of the same shape has others.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import torch.nn.functional as F
from torch import Tensor

MIN_COSINE = 0.5
"""Between text embeddings of a file and of the LM, on average; a fine-tuned LM's stay above 0.9,
unrelated ones are at 0."""
_COMPARED_ROWS = 4096


class Group(StrEnum):
    """A part of the model, in the order of the table."""

    PERCEIVER = "perceiver"
    CROSS_ATTENTION = "cross-attention"
    INPUT_ROWS = "media-token rows, input"
    OUTPUT_ROWS = "media-token rows, output"
    EMBEDDINGS = "LM embeddings"
    ADAPTERS = "LM adapters"
    LM = "LM, all else"
    BUFFERS = "LM tables"
    TOWER = "vision encoder"
    UNKNOWN = "unknown"


#: Causal masks and rotary tables that transformers of 2023 saved and today's computes.
_COMPUTED = re.compile(
    r"^lang_encoder\..*(?:rotary_emb\.inv_freq|\battn\.embed_positions"
    r"|\b(?:attn|attention)\.(?:masked_)?bias)$"
)
_HEADINGS = ("", "in the file", "in the model", "loaded", "expected", "")


@dataclass(frozen=True, slots=True)
class GroupReport:
    """One part of the model: numbers of tensors, and whether they are as they should be."""

    name: Group
    in_file: int
    in_model: int
    loaded: int
    expected: bool = True
    note: str = ""

    def cells(self) -> tuple[str, ...]:
        numbers = (f"{number:,}" for number in (self.in_file, self.in_model, self.loaded))
        return (self.name, *numbers, "yes" if self.expected else "NO", self.note)


@dataclass(kw_only=True, slots=True)
class LoadReport:
    """What a checkpoint filled, and what of ours it did not hold."""

    loaded: list[str] = field(default_factory=list)
    kept_initial: list[str] = field(default_factory=list)
    """Media-token rows that the checkpoint lacks: they stay at their initial values."""
    groups: list[GroupReport] = field(default_factory=list)

    def text(self) -> str:
        """The table, a line a part."""
        rows = [_HEADINGS, *(group.cells() for group in self.groups)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADINGS))]
        lines = []
        for row in rows:
            name, *numbers, note = row
            cells = [f"{cell:>{width}}" for cell, width in zip(numbers, widths[1:-1], strict=True)]
            lines.append("  ".join([f"{name:<{widths[0]}}", *cells, note]).rstrip())
        return "\n".join(lines)


def report_load(
    given: Iterable[str],
    targets: Iterable[str],
    matrices: Mapping[str, str],
    *,
    tied: bool,
    computed: int = 0,
    note_on_embeddings: str = "",
) -> LoadReport:
    """The table of a load.

    Args:
        given: names of the checkpoint, in this model's spelling.
        targets: names of the model.
        matrices: `input_rows`, `output_rows` -> the matrix in the LM that a checkpoint of
            OpenFlamingo's keeps these rows in.
        tied: the LM has one matrix for input and output.
        computed: tensors of the file that this version computes.
        note_on_embeddings: what a comparison of the matrices found.
    """
    names, known = list(given), set(targets)
    in_file = Counter(_group_of(name, known, matrices) for name in names)
    in_model = Counter(_group_of(name, known, matrices) for name in known)
    in_file[Group.BUFFERS] += computed
    report = LoadReport(loaded=sorted(name for name in names if name in known))
    for group, rows in ((Group.INPUT_ROWS, "input_rows"), (Group.OUTPUT_ROWS, "output_rows")):
        in_file[group] += rows in matrices and matrices[rows] in names
        if in_model[group] and not in_file[group]:
            report.kept_initial.append(f"media_tokens.{rows}")
    for group in Group:
        has, wants = in_file[group], in_model[group]
        if not has and not wants and group != Group.OUTPUT_ROWS:
            continue
        loaded = 0 if group in (Group.BUFFERS, Group.UNKNOWN) else has
        expected, note = _judge(group, has, wants, tied=tied)
        if group == Group.EMBEDDINGS and has:
            note = note_on_embeddings
        report.groups.append(GroupReport(group, has, wants, loaded, expected, note))
    return report


def _judge(group: Group, has: int, wants: int, *, tied: bool) -> tuple[bool, str]:
    """Whether numbers are as they should be, and what to say of them."""
    if group == Group.ADAPTERS and not has:
        return True, "not in the file: they begin by changing nothing"
    if group in (Group.PERCEIVER, Group.CROSS_ATTENTION, Group.ADAPTERS):
        return has == wants, "" if has == wants else f"{wants - has} missing"
    if group == Group.INPUT_ROWS and not has:
        return False, "not in the file: they stay at their initial values"
    if group == Group.OUTPUT_ROWS and tied:
        return True, "tied to the input's"
    if group == Group.OUTPUT_ROWS and not has:
        return True, "OpenFlamingo saves no untied lm_head: they stay at their initial values"
    if group in (Group.EMBEDDINGS, Group.LM, Group.TOWER) and not has:
        return True, "frozen: loaded from where the model comes from"
    if group == Group.BUFFERS:
        return True, "computed by this version"
    if group == Group.UNKNOWN:
        return False, "belongs to no part of this model"
    return True, ""


def _group_of(name: str, known: set[str], matrices: Mapping[str, str]) -> Group:
    rows = {
        "media_tokens.input_rows": Group.INPUT_ROWS,
        "media_tokens.output_rows": Group.OUTPUT_ROWS,
    }
    if name in rows:
        return rows[name]
    if name not in known:
        return Group.UNKNOWN
    if name in matrices.values():
        return Group.EMBEDDINGS
    if ".gated_cross_attn_layer." in name:
        return Group.CROSS_ATTENTION
    if name.startswith("lang_encoder."):
        return Group.ADAPTERS if ".lora_" in name else Group.LM
    return Group.TOWER if name.startswith("vision_encoder.") else Group.PERCEIVER


def is_computed(name: str) -> bool:
    """Whether a name is one of the tables that are computed today."""
    return _COMPUTED.match(name) is not None


def compare_embeddings(ours: Tensor, theirs: Tensor, num_rows: int) -> float | None:
    """Mean cosine of the first rows of two (V, D) matrices; None where they are equal."""
    cosines = 0.0
    equal = True
    for start in range(0, num_rows, _COMPARED_ROWS):
        end = min(num_rows, start + _COMPARED_ROWS)
        one = ours[start:end].float()
        # In the LM's own precision: a checkpoint may have been trained with another.
        other = theirs[start:end].to(one.device, ours.dtype).float()
        equal = equal and bool((one == other).all())
        cosines += float(F.cosine_similarity(one, other).sum())
    return None if equal else cosines / num_rows
