"""Where tokenizer and LM come from: the hub or folders, with errors as one line."""

import logging
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
import transformers
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

from flamingo.modules.checkpoint_files import why_not_weights
from flamingo.modules.lm_files import find_weight_files
from mmdata.errors import UserError
from mmdata.training_view.model_names import refuse_missing_folder
from mmdata.training_view.tokenizer import load_tokenizer

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Hub:
    """An LM by name or folder, and what may be done to get it.

    Attributes:
        lang_encoder_path: name or folder.
        local_files_only: nothing is downloaded.
        trust_remote_code: whether the LM's own code may run.
        cache_dir: of downloads.
    """

    lang_encoder_path: str
    local_files_only: bool
    trust_remote_code: bool
    cache_dir: str | None

    def tokenizer(self, path: str) -> Any:
        """The tokenizer of a name or folder, with the media tokens."""
        return load_tokenizer(path, **self._options())

    def lm_config(self) -> Any:
        """The LM's config."""
        return self._load(AutoConfig)

    def language_model(self, dtype: torch.dtype, attn_implementation: str | None) -> nn.Module:
        """The LM with its weights, on the CPU.

        Args:
            dtype: of its weights.
            attn_implementation: transformers' name of a kernel; None for its choice.

        Raises:
            UserError: there is no LM of this name, or its weights cannot be read.
        """
        lm = self._load(AutoModelForCausalLM, dtype=dtype, attn_implementation=attn_implementation)
        return cast(nn.Module, lm)

    def empty_language_model(
        self, dtype: torch.dtype, attn_implementation: str | None
    ) -> nn.Module:
        """The LM without its weights, for parameters that are filled later.

        Args:
            dtype: of its weights.
            attn_implementation: transformers' name of a kernel; None for its choice.

        Raises:
            UserError: there is no LM of this name, or its weights are quantized.
        """
        config = self.lm_config()
        if getattr(config, "quantization_config", None) is not None:
            raise UserError(
                f"language model {self.lang_encoder_path}: expected plain weights, got quantized "
                "ones, which cannot be spread over ranks; train with --parallel ddp"
            )
        lm = AutoModelForCausalLM.from_config(
            config,
            dtype=dtype,
            attn_implementation=attn_implementation,
            trust_remote_code=self.trust_remote_code,
        )
        lm.config.name_or_path = self.lang_encoder_path
        try:
            lm.generation_config = self._load(GenerationConfig)
        except UserError:
            logger.debug("%s: no generation_config.json", self.lang_encoder_path)
        return cast(nn.Module, lm.eval())

    def weight_files(self) -> list[Path]:
        """Where the LM's weights lie; none where in no file of the usual names."""
        try:
            return find_weight_files(
                self.lang_encoder_path,
                local_files_only=self.local_files_only,
                cache_dir=self.cache_dir,
            )
        except OSError as error:
            raise self._refusal(error) from error

    def _options(self) -> dict[str, Any]:
        return {
            "local_files_only": self.local_files_only,
            "trust_remote_code": self.trust_remote_code,
            "cache_dir": self.cache_dir,
        }

    def _load(self, loader: Any, **options: Any) -> Any:
        """`from_pretrained`, with its errors as one line."""
        refuse_missing_folder(f"language model {self.lang_encoder_path}", self.lang_encoder_path)
        try:
            return loader.from_pretrained(self.lang_encoder_path, **self._options(), **options)
        except pickle.UnpicklingError as error:
            reason = why_not_weights(error)
            raise UserError(f"language model {self.lang_encoder_path}: {reason}") from error
        except (OSError, ValueError) as error:
            raise self._refusal(error) from error

    def _refusal(self, error: Exception) -> UserError:
        reason = str(error).strip().partition("\n")[0]
        return UserError(f"language model {self.lang_encoder_path}: {reason}")


def quiet_loading() -> None:
    """No bars of transformers' own between the lines of ours, nor torch's advice to torchao, which
    transformers loads where it is installed."""
    logging.getLogger("torch.utils._pytree").setLevel(logging.ERROR)
    transformers.utils.logging.disable_progress_bar()
