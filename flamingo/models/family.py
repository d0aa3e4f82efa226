"""The seam between the trainer and a family of models: all that one asks of the other.

A family is asked before there are weights (`Family`): what it reads, and how it is built. The model
that it builds (`TrainableModel`) is asked afterwards, by the trainer, by who counts memory, by who
writes checkpoints and by who lets it write text. Neither side knows more of the other: no file
outside of a family's own folder and the table of families (`registry.py`) names a family, and a
family knows nothing of ranks, of telemetry, or of the trainer, but what it is handed in a `How`.

Dimensions: B sequences, L positions of what is read, T of what is to be written, N pictures, S
pixels of a side, V patch tokens of a picture, D their width.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from flamingo.data.batch import Batch
from flamingo.data.counts import StreamCounts
from flamingo.data.decode import UNCHANGED, Normalization
from flamingo.data.text_layout import TextLayout
from flamingo.modules.load_report import LoadReport
from flamingo.modules.placement import to_device
from mmdata.training_view.sequence import MediaTokenizer

OptionsT = TypeVar("OptionsT")


# ---- what a family is told when it builds a model


@dataclass(frozen=True, slots=True)
class Types:
    """The types of a run's numbers.

    Attributes:
        frozen: of weights that do not train.
        trained: of those that do, of their gradients and the optimizer's state.
        compute: of autocast; None: computed in the types of the weights.
    """

    frozen: torch.dtype = torch.float32
    trained: torch.dtype = torch.float32
    compute: torch.dtype | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """How a model is built of which this rank holds its rows alone.

    Attributes:
        shard: makes every parameter of a model one that is spread over ranks; the parameters may
            be on the meta device, and have no memory before or after.
        device: that this rank computes on.
        place: where its rows are to lie, which is the host's memory where they are offloaded.
        num_parts: ranks that share one copy of the model.
    """

    shard: Callable[["TrainableModel"], None]
    device: torch.device
    place: torch.device
    num_parts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class How:
    """How a family is to build its model; by default whole, on the CPU, from first values.

    Attributes:
        types: of its numbers.
        weights: a checkpoint or a file to start from; None: the seed alone.
        on_load: is told what `weights` filled.
        has_features: every stream brings patch tokens in place of pictures, so that what would
            compute them need not be there.
        rows: given where the model is to be spread over ranks while it is built; it then lies
            where they say.
        is_empty: without memory for parameters, from configs alone; to count it.
    """

    types: Types = field(default_factory=Types)
    weights: str | None = None
    on_load: Callable[[LoadReport], None] | None = None
    has_features: bool = False
    rows: Rows | None = None
    is_empty: bool = False


@dataclass(frozen=True, slots=True)
class Before:
    """What a checkpoint says of the run that wrote it, to that run when it goes on.

    Attributes:
        checkpoint: its folder.
        options: of the run, by name; those that did not exist then are missing.
        trained: names of the parameters that its optimizer had.
    """

    checkpoint: str
    options: Mapping[str, Any]
    trained: Collection[str]


@dataclass(frozen=True, slots=True)
class Saved:
    """A trained model on a disk, and where its parts are now.

    Attributes:
        weights: folder of a checkpoint, or a file.
        tokenizer: folder, or name on the hub.
        parts: the options named by `Family.parts`.
        trust_remote_code: whether code that comes with a model may run.
    """

    weights: str
    tokenizer: str
    parts: Mapping[str, Any]
    trust_remote_code: bool = False


@dataclass(frozen=True, slots=True)
class ExportFormat:
    """A form of weights that a family writes beside our own.

    Attributes:
        file: name of the file in the folder of an export.
        use: who takes it, for a person.
        holds_adapters: whether adapters have a place in it, or have to be merged first.
    """

    file: str
    use: str
    holds_adapters: bool = False


@dataclass(frozen=True, slots=True)
class Lever:
    """A change of options that makes less of some kinds of memory.

    Attributes:
        kinds: of memory: parameters, gradients, optimizer, activations, communication, other.
        applies: whether it is still to be had, by options and number of ranks.
        text: what to do, for a person.
    """

    kinds: tuple[str, ...]
    applies: Callable[[Any, int], bool]
    text: str


# ---- what a model tells of itself


@dataclass(frozen=True, slots=True)
class ShardUnit:
    """Parameters that are gathered together where a model is spread over ranks.

    Attributes:
        modules: whose parameters these are, but for those of units before.
        stays: whole from its first use in a pass until it is let go by name.
        in_backward: gathered in the backward pass too.
    """

    modules: tuple[nn.Module, ...]
    stays: bool = False
    in_backward: bool = True


@dataclass(frozen=True, slots=True)
class ModelPart:
    """A part of a model, in the order of a forward pass; several may have one label.

    Attributes:
        label: by which a person knows it.
        module: whose forward pass makes its activations.
        blocks: the modules in it that are compiled, each by itself.
    """

    label: str
    module: nn.Module
    blocks: tuple[nn.Module, ...]


@dataclass(frozen=True, slots=True)
class StepFlops:
    """Floating-point operations that a model needs, forward and backward.

    Attributes:
        tower: for a picture, in what turns pixels into patch tokens.
        image: for a picture, from its patch tokens on.
        token: for a position of text that is read, without attention among positions.
        pair: for a pair of positions of a sample, in attention.
        target: for a token of the loss.
    """

    tower: float
    image: float
    token: float
    pair: float
    target: float

    def of(self, counts: StreamCounts) -> float:
        """What the samples of a stream need, which are taken as equally long.

        Of `counts` the useful ones, without padding and blank pictures; of `counts.computed` with
        them.
        """
        pairs = counts.tokens**2 / max(1, counts.samples)
        return (
            self.tower * counts.encoded
            + self.image * counts.images
            + self.token * counts.tokens
            + self.pair * pairs
            + self.target * counts.targets
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The limits of a stream's micro-batches: what its largest one holds.

    Attributes:
        name: of the stream.
        sequences: B.
        tokens: of each sequence.
        images: of each sequence.
        documents: of each sequence; None without packing.
        is_features: patch tokens come in place of pixels.
        passes: micro-batches of the stream in a step, on a rank.
    """

    name: str
    sequences: int
    tokens: int
    images: int
    documents: int | None = None
    is_features: bool = False
    passes: int = 1

    def text(self) -> str:
        """The limits in words, for a person."""
        what = "features" if self.is_features else "images"
        return f"{self.sequences} x {self.tokens} tokens, {self.sequences * self.images} {what}"


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a model goes on from.

    Attributes:
        input_ids: of the text, with a media token for each picture.
        images: (n, 3, S, S) uint8, in the order of the media tokens.
    """

    input_ids: Sequence[int]
    images: Tensor


class TrainableModel(nn.Module):
    """A model of a family, as the trainer sees it. Whoever writes a family fills in all of it.

    `forward` is what a training pass goes through, wrapped or not; only `loss` calls it, so that
    its arguments are the family's own.

    Attributes:
        normalization: how uint8 pixels become what the model takes.
        outside_forward: names of methods that run parts of the model without its `forward`.
    """

    normalization: Normalization = UNCHANGED
    outside_forward: tuple[str, ...] = ()

    @property
    def image_size(self) -> int:
        """S."""
        raise NotImplementedError

    @property
    def feature_width(self) -> int:
        """D."""
        raise NotImplementedError

    def loss(self, batch: Batch, device: torch.device, through: nn.Module | None = None) -> Tensor:
        """The cross-entropy summed over a batch's targets.

        Every parameter that trains is in its graph, whatever the batch holds, since ranks wait for
        each other's gradients.

        Args:
            batch: on the CPU.
            device: to compute on; parameters may lie elsewhere.
            through: what is called in place of the model itself: the model, wrapped.

        Returns:
            0-d, at least float32; 0 for a batch without targets. Of a batch of several streams
            (`Batch.stream_sizes`) one sum a stream: (number of streams,).
        """
        raise NotImplementedError

    def shard_units(self) -> Iterator[ShardUnit]:
        """What is gathered together, in order of use, parts before what they are inside of.

        The last one is the model with what is left. Before and after sharding they are the same.
        """
        raise NotImplementedError

    def parts(self) -> Iterator[ModelPart]:
        """The parts that memory is told by, and that are compiled."""
        raise NotImplementedError

    def head(self) -> nn.Module:
        """The module at which logits begin: from here on memory is theirs and the loss's."""
        raise NotImplementedError

    def kept_names(self) -> list[str]:
        """Names in the state dict that a checkpoint holds: all that cannot be had elsewhere."""
        raise NotImplementedError

    def decays(self, name: str, parameter: nn.Parameter) -> bool:
        """Whether weight decay acts on a parameter that trains."""
        raise NotImplementedError

    def step_flops(self) -> StepFlops | None:
        """What a step needs; None where that cannot be told from the modules."""
        raise NotImplementedError

    def largest_batch(self, limits: Shape) -> Batch:
        """The batch within these limits that takes most, made up, on the CPU."""
        raise NotImplementedError

    def identity(self) -> dict[str, Any]:
        """What a checkpoint records of the model, and is checked against before it is loaded."""
        raise NotImplementedError

    def allow_packing(self, *, tries: bool = True) -> None:
        """Make ready for several documents in a sequence.

        Args:
            tries: find out how by running the model; else take what needs most memory, for a model
                without values.

        Raises:
            UserError: the model cannot keep them apart.
        """
        raise NotImplementedError

    def continue_prompts(
        self, prompts: Sequence[Prompt], *, max_new_tokens: int, num_beams: int = 1
    ) -> list[list[int]]:
        """The ids that the model writes behind each prompt.

        Args:
            prompts: at least one.
            max_new_tokens: ids to write at most.
            num_beams: of the search; 1 is greedy.
        """
        raise NotImplementedError

    def score(
        self, prompts: Sequence[Prompt], candidates: Sequence[Sequence[Sequence[int]]]
    ) -> list[list[float]]:
        """How likely the model finds each of some texts behind each prompt.

        Args:
            prompts: of which each has candidates of its own.
            candidates: ids of the texts, at least one for each prompt, none of them empty.

        Returns:
            The logarithm of each candidate's probability, in nats.
        """
        raise NotImplementedError

    def pictures(self, batch: Batch, device: torch.device) -> Tensor | None:
        """A batch's pictures as the model takes them, float32 (N, 3, S, S) on the device.

        None where there are none or features stand for them.
        """
        if batch.pixels is None:
            return None
        mirrored = batch.mirrored
        return self.normalization.applied(
            to_device(batch.pixels, device),
            mirrored=None if mirrored is None else to_device(mirrored, device),
        )


class Family(Protocol[OptionsT]):
    """A family of models, as it is asked before there are weights.

    Attributes:
        name: by which the table of families has it.
        parts: options that say what a model is built of; an export records them.
        levers: changes of the family's own options that save memory, cheapest first.
        exports: forms of weights beside our own, by name.
    """

    name: str
    parts: tuple[str, ...]
    levers: tuple[Lever, ...]
    exports: Mapping[str, ExportFormat]

    def image_size(self, options: OptionsT) -> int:
        """Pixels of the side of the square that a model takes, from configs alone.

        Raises:
            UserError: the options name none.
        """
        ...

    def feature_identity(self, options: OptionsT) -> str:
        """Equal where precomputed features are those of the same encoder (`TowerSpec.identity`).

        Raises:
            UserError: it cannot be known, or the family takes no features.
        """
        ...

    def tokenizer(self, options: OptionsT) -> Any:
        """The tokenizer, transformers' own, with the media tokens.

        Raises:
            UserError: there is none of this name.
        """
        ...

    def text_layout(self, tokenizer: MediaTokenizer, options: OptionsT) -> TextLayout:
        """How a prepared document becomes what is read and what is to be written."""
        ...

    def build(self, options: OptionsT, how: How) -> TrainableModel:
        """The model of a run. With rows to spread, every rank calls this at the same time.

        Raises:
            UserError: its parts do not fit each other, or the weights to start from.
        """
        ...

    def resumed(self, options: OptionsT, before: Before, *, is_told: bool) -> OptionsT:
        """The options that a run goes on with.

        Args:
            options: of this start.
            before: what was saved.
            is_told: whether this rank says what was changed.

        Raises:
            UserError: these options are not those of the saved model.
        """
        ...

    def load(self, saved: Saved, *, offline: bool) -> tuple[TrainableModel, Any]:
        """(a trained model on the CPU, in eval mode; its tokenizer).

        Raises:
            UserError: a part is missing, or does not fit.
        """
        ...

    def export(
        self,
        model: TrainableModel,
        tokenizer: Any,
        folder: str,
        *,
        format: str,
        merge: bool,
        parts: Mapping[str, Any],
    ) -> int:
        """Write a trained model in one of `exports`, or in our own form with adapters merged.

        Args:
            model: that `load` gave; of no use afterwards.
            tokenizer: whose files go beside the weights.
            folder: to write into.
            format: a name of `exports`, or `safetensors`.
            merge: write the language model too, with the adapters in it.
            parts: what the header of our own form says of them.

        Returns:
            How many adapters were merged.

        Raises:
            UserError: `merge` without adapters, or adapters where the form has no place for them.
        """
        ...
