"""The loss of an LM's targets where its head would make logits.

It is hooks on the head that do it, so any LM that makes its logits by a linear layer and leaves
them as they are can be asked, and weights that are spread over ranks are whole when they are used.
Which function computes it is a choice of the run: `chunked_loss`, or that of others.

Dimensions: n targets, V vocabulary rows, D width of the model, r rows of our own.
"""

import importlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from flamingo.modules.chunked_loss import ReplacedRows, chunked_loss, targets_of_chunk
from flamingo.modules.compute import compute_type
from flamingo.modules.language_model import embedding_and_head, text_config
from flamingo.modules.loss import (
    IGNORED,
    LossReduction,
    by_group,
    next_token_loss,
    next_tokens,
    reduced,
)
from mmdata.errors import UserError

#: (loss, number of targets, logits).
Result = tuple[Tensor | None, Tensor | None, Tensor | None]
LossKernel = Literal["auto", "plain", "chunked", "torch", "liger"]
#: By which configs of transformers say that logits are changed behind the head.
_CHANGED_BY = (
    "final_logit_softcapping",
    "logit_scale",
    "logits_scaling",
    "lm_head_multiplier",
)


class HeadLoss:
    """Makes an LM's head give the loss instead of logits, while it is asked for."""

    def __init__(
        self,
        lang_encoder: nn.Module,
        kernel: LossKernel = "auto",
        own_rows: Callable[[], ReplacedRows | None] = lambda: None,
    ) -> None:
        """Args:
            lang_encoder: whose head it is; hooks of others on it are to be there already.
            kernel: how the loss is computed. plain: from all logits, outside of here; chunked: by
                `chunked_loss`; torch, liger: by these, whose functions work by the same idea.
                auto: chunked where it saves memory, that is where there are targets for more than
                one chunk, and the LM can be asked; else plain.
            own_rows: asked in each pass.

        Raises:
            UserError: the LM does not leave its logits as a linear layer makes them, or the kernel
                is not installed.
        """
        head = embedding_and_head(lang_encoder)[1]
        self._kernel, self._head, self._own_rows = kernel, head, own_rows
        self._is_plain = kernel == "plain"
        if why := _why_not(lang_encoder, head):
            if kernel not in ("auto", "plain"):
                raise UserError(f"--loss-kernel {kernel}: {why}; use --loss-kernel plain")
            self._is_plain = True
        self._name = type(lang_encoder).__name__
        self._compute = _load(kernel)
        self._targets: Tensor | None = None
        self._groups: Sequence[int] | None = None
        self._hidden: Tensor | None = None
        self._loss: Tensor | None = None
        head.register_forward_pre_hook(self._take_hidden)
        head.register_forward_hook(self._give_loss)

    def is_asked_for(self, num_targets: int) -> bool:
        """Whether the loss of so many targets is to be computed here."""
        if self._is_plain:
            return False
        return self._kernel != "auto" or num_targets > targets_of_chunk(self._head.weight.shape[0])

    @contextmanager
    def asked(
        self,
        labels: Tensor | None,
        target_positions: Tensor | None,
        reduction: LossReduction,
        groups: Sequence[int] | None = None,
    ) -> Iterator[Callable[[Tensor], Result]]:
        """While this lasts, the LM is called; it yields what makes the loss of the LM's logits.

        Without labels there is none, and without target positions all logits are wanted. Where
        there are many, the head is given its input at these positions, (n, D), and computes the
        loss itself.

        Args:
            labels: (B, L), not shifted; -100 is no target.
            target_positions: (n,) of `find_target_positions`.
            reduction: of the loss.
            groups: target positions of each of some groups, in order, of which each has a loss of
                its own; they go with target positions, and the reduction is a sum.

        Yields:
            A function of what the LM calls its logits, to be called in here. It gives (loss,
            number of targets, logits), None for those that there are not. It raises a UserError if
            the head gave the loss, and the LM changed it.
        """
        if labels is None:
            yield lambda logits: (None, None, logits)
        elif target_positions is None or not self.is_asked_for(len(target_positions)):
            how: dict[str, Any] = {"reduction": reduction, "target_positions": target_positions}
            how["groups"] = groups
            yield lambda logits: (*next_token_loss(logits, labels, **how), logits)
        else:
            targets = self._targets = next_tokens(labels, target_positions)
            self._groups = groups
            try:
                yield lambda given: (*reduced(self._checked(given), targets, reduction), None)
            finally:
                self._targets = self._groups = self._hidden = self._loss = None

    def _checked(self, given: Tensor) -> Tensor:
        """The loss, from what the LM gave for its logits."""
        if given is not self._loss:
            raise UserError(
                f"--loss-kernel {self._kernel}: {self._name} changes its logits behind its head; "
                "use --loss-kernel plain"
            )
        return given

    def _take_hidden(self, _head: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """The head itself is given no position."""
        if self._targets is None:
            return None
        self._hidden = args[0]
        return (args[0][:0], *args[1:])

    def _give_loss(self, head: nn.Linear, _args: Any, _logits: Tensor) -> Tensor | None:
        if self._targets is None:
            return None
        hidden, self._hidden = self._hidden, None
        assert hidden is not None
        if self._kernel == "liger" and hidden.device.type == "cpu" and not _is_fake(hidden):
            raise UserError("--loss-kernel liger: runs on GPUs alone; use --loss-kernel chunked")
        own = self._own_rows()

        def loss_of(part: Tensor, targets: Tensor) -> Tensor:
            return self._compute(part, head.weight, head.bias, targets, own)

        self._loss = by_group(loss_of, hidden, self._targets, self._groups)
        return self._loss


def _is_fake(tensor: Tensor) -> bool:
    return isinstance(tensor, FakeTensor)


def _why_not(lang_encoder: nn.Module, head: nn.Module) -> str | None:
    """Why an LM's logits are not what its head makes of its input; None where nothing says so."""
    name = type(lang_encoder).__name__
    if type(head).forward is not nn.Linear.forward:
        return f"the head of {name} is a {type(head).__name__} and no plain linear layer"
    config = text_config(lang_encoder)
    changed = next((one for one in _CHANGED_BY if getattr(config, one, None) is not None), None)
    return changed and f"{name} changes its logits behind its head ({changed})"


# ---- kernels of others


def _load(kernel: LossKernel) -> Callable[..., Tensor]:
    """The function of a kernel, which takes the first arguments of `chunked_loss`.

    Raises:
        UserError: it is not installed.
    """
    if kernel == "torch":
        if not hasattr(nn, "LinearCrossEntropyOptions"):
            raise UserError("--loss-kernel torch: this torch has none; use --loss-kernel chunked")
        return _torch_loss
    if kernel == "liger":
        try:
            importlib.import_module("liger_kernel.transformers")
        except ImportError as error:
            raise UserError(
                "--loss-kernel liger: needs the package liger-kernel; install it, or use "
                "--loss-kernel chunked"
            ) from error
        return _liger_loss
    return chunked_loss


def _torch_loss(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    own_rows: ReplacedRows | None,
) -> Tensor:
    dtype = compute_type(hidden)
    found: Tensor = F.linear_cross_entropy(
        hidden.to(dtype),
        _with_own(weight, own_rows).to(dtype),
        targets,
        linear_bias=None if bias is None else bias.to(dtype),
        reduction="sum",
        ignore_index=IGNORED,
        options=nn.LinearCrossEntropyOptions(),
    )
    return found.to(torch.promote_types(dtype, torch.float32))


def _liger_loss(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    own_rows: ReplacedRows | None,
) -> Tensor:
    if _is_fake(hidden):  # its kernels need values; its chunks are of this size
        size = -(-len(hidden) // -(-len(weight) // hidden.shape[1]))
        chunk = 1 << max(0, size - 1).bit_length()
        return chunked_loss(hidden, weight, bias, targets, own_rows, chunk=chunk)
    liger: Any = importlib.import_module("liger_kernel.transformers")
    compute = liger.LigerFusedLinearCrossEntropyLoss(ignore_index=IGNORED, reduction="sum")
    dtype = compute_type(hidden)
    offset = None if bias is None else bias.to(dtype)
    found: Tensor = compute(
        _with_own(weight, own_rows).to(dtype), hidden.to(dtype), targets, offset
    )
    return found.to(torch.promote_types(dtype, torch.float32))


def _with_own(weight: Tensor, own_rows: ReplacedRows | None) -> Tensor:
    """(V, D) with our rows in place: a second matrix, as these kernels take one alone."""
    if own_rows is None:
        return weight
    parts: list[Tensor] = []
    behind = 0
    for number, one in sorted(enumerate(own_rows.ids), key=lambda pair: pair[1]):
        parts += [weight[behind:one], own_rows.rows[number : number + 1].to(weight.dtype)]
        behind = one + 1
    return torch.cat([*parts, weight[behind:]])
