"""What `mmdata train` and `mmdata generate` can be told; OpenFlamingo's names where it has one.

Only the standard library is imported here, so that the command line shows its help without
loading torch. OpenFlamingo's flags that make no sense here are in `REFUSED`, each with what to use
instead; they paste in and get an answer, not a stack of usage text.
"""

from dataclasses import dataclass, field
from typing import Literal

from flamingo.telemetry.names import SERVICES
from flamingo.train.options.adapters import AdapterOptions, check_adapters
from flamingo.train.options.combinations import check_combinations
from flamingo.train.options.streams import check_streams
from mmdata.errors import UserError

Rule = Literal["auto", "interleaved", "caption"]
Schedule = Literal["constant", "linear", "cosine"]
Precision = Literal["fp32", "bf16-mixed", "bf16", "fp16-mixed", "amp_bf16", "amp_bfloat16"]

#: OpenFlamingo's flags (and values) that are not taken -> what to do instead.
REFUSED: dict[str, str] = {
    "horovod": "was never functional in OpenFlamingo; use --nproc-per-node, torchrun or srun",
    "fsdp": "use --parallel fsdp",
    "fsdp_use_orig_params": "is always so with --parallel fsdp; leave it out",
    "fsdp_sharding_strategy": "use --parallel fsdp for full, --parallel hsdp for hybrid",
    "dist_url": "use --rdzv-endpoint HOST:PORT, or MASTER_ADDR and MASTER_PORT",
    "dist_backend": "is nccl on GPUs and gloo on CPUs; leave it out",
    "no_set_device_rank": "a rank takes the GPU of its LOCAL_RANK; leave it out",
    "save_checkpoints_to_wandb": "checkpoints are folders under --run-name; copy them",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Train(AdapterOptions):
    """Train a Flamingo model from shards: one process, or one a GPU."""

    lm_path: str
    """Language model: a folder, or a name on the hub."""
    run_name: str
    """Folder of the run: logs, checkpoints, plot. A run that is there already is resumed."""
    mmc4_shards: str | None = None
    """Interleaved shards: a folder, a glob or a {000..041} range."""
    laion_shards: str | None = None
    """Caption shards: the same, or img2dataset's tars."""
    stream: tuple[str, ...] = field(default=(), metadata={"repeat": True})
    """name=SHARDS: another stream to train on; repeat the option. SHARDS is a folder, a glob, a
    range, a manifest, a list (.txt), s3://… or pipe:COMMAND. `streams:` in a --config file."""
    stream_opt: tuple[str, ...] = field(default=(), metadata={"repeat": True})
    """name.key=value: an option of one stream, as batch_size, rule, min_similarity, lanes."""
    mix: str | None = None
    """name=share,…: one batch shared by all streams, in place of a batch of each."""
    batch_size: int | None = None
    """With --mix: samples of a micro-batch, of all streams. Default: their batches added up."""
    val_stream: tuple[str, ...] = field(default=(), metadata={"repeat": True})
    """name=SHARDS: a stream to measure the loss on, every sample once; repeat the option."""
    val_every: int | None = None
    """Steps between measurements; without it before the first step and at the end only."""
    dataset_resampled: bool = False
    """Draw shards with replacement, instead of reading each once an epoch."""
    max_bad_fraction: float = 0.01
    """Share of damaged samples above which the run stops (judged over 1,000 at least)."""
    cache_dir: str | None = None
    """Folder where shards of a store are kept while they are needed; for all ranks of a host."""
    cache_gb: float = 100.0
    """Size of that folder at most, in GB."""
    allow_new_batch_size: bool = False
    """Resume with another global batch: a new sequence of samples, from a fresh epoch on."""
    tokenizer_path: str | None = None
    """Tokenizer; the language model's folder when not given."""
    vision_encoder_path: str = "ViT-L-14"
    """open_clip model, or a folder with its config and weights."""
    vision_encoder_pretrained: str | None = "openai"
    """Weights of the vision encoder: a tag of open_clip, or a file."""
    cross_attn_every_n_layers: int = 1
    """Cross-attention stands before every n-th decoder block."""
    vision_tokens: Literal["pre_norm", "post_norm"] = "pre_norm"
    """Patch tokens before or after the tower's last norm (released models: before)."""
    vision_chunk: int = 64
    """Images that go through the vision tower at once."""
    freeze_lm_embeddings: bool = False
    """Keep the input rows of the two media tokens at their initial values (with a tied LM these are
    the output rows too). Without it they train, as in OpenFlamingo."""
    new_token_init: Literal["normal", "mean"] = "normal"
    """First values of those rows: N(0, 0.02) from the seed, or the mean of all rows."""
    train_output_rows: bool = False
    """Train the output rows of the media tokens too, where the LM does not tie them. OpenFlamingo
    never does; a run that began with them goes on with them."""
    init_from: str | None = None
    """Start from the weights alone of a run, a checkpoint, or a file of OpenFlamingo's."""
    resume_from_checkpoint: str | None = None
    """Go on from this checkpoint of ours, with optimizer and position."""
    batch_size_mmc4: int = 8
    """Documents of the interleaved stream in a micro-batch."""
    batch_size_laion: int = 8
    """Pairs of the caption stream in a micro-batch."""
    gradient_accumulation_steps: int = 1
    """Micro-batches of each stream in one optimizer step."""
    loss_multiplier_mmc4: float = 1.0
    """Weight of the interleaved stream's loss."""
    loss_multiplier_laion: float = 1.0
    """Weight of the caption stream's loss."""
    train_num_samples_mmc4: int | None = None
    """Documents in what counts as an epoch; with --num-epochs gives the run's length."""
    train_num_samples_laion: int | None = None
    """Pairs in what counts as an epoch; with --num-epochs gives the run's length."""
    num_epochs: int = 1
    """Epochs of the given numbers of samples."""
    max_steps: int | None = None
    """Optimizer steps of the run; overrides the epochs."""
    learning_rate: float = 1e-4
    """After the warm-up; sgd wants one about a hundred times as large as adamw."""
    lr_scheduler: Schedule = "constant"
    """After the warm-up; counts optimizer steps."""
    warmup_steps: int = 0
    """Optimizer steps from 0 to the full learning rate; shorter than the run."""
    weight_decay: float = 0.1
    """Of the gated cross-attention, and of matrices that --freeze leaves free; of nothing else."""
    clip_norm: float = 1.0
    """Global gradient norm is cut to this, once an optimizer step; 0: never."""
    max_skipped_steps: int = 10
    """Stop after so many steps in a row with a loss or gradient that is not finite."""
    precision: Precision = "fp32"
    """bf16-mixed (OpenFlamingo's amp_bf16): compute and frozen weights in bf16, fp32 what trains.
    bf16: everything, the optimizer's state too. fp16-mixed: like bf16-mixed, with a loss scale."""
    gradient_checkpointing: bool = False
    """Recompute blocks in the backward pass instead of keeping their activations."""
    checkpoint_policy: Literal["selective", "full"] | None = None
    """With --gradient-checkpointing: recompute whole blocks (full), or all in them but matrix
    products and attention (selective: little time, less memory saved). Default: full."""
    optimizer: Literal["adamw", "adamw8bit", "sgd"] = "adamw"
    """adamw8bit keeps its state in 8 bits (torchao); sgd keeps none, or one with --momentum."""
    momentum: float = 0.0
    """Of --optimizer sgd."""
    cpu_offload: Literal["optimizer", "params"] | None = None
    """Keep the optimizer's state in host memory and step there; or parameters, gradients and
    state (params, with fsdp and hsdp only)."""
    freeze: Literal["vision,lm", "vision", "lm", "none"] = "vision,lm"
    """Parts that do not train; none: full fine-tuning."""
    compile: bool = False
    """Compile each block (torch.compile), for ragged batches; the first step takes minutes."""
    mmc4_textsim_threshold: float = 0.24
    """Images whose similarity to their sentence is below are left out (0 to 1)."""
    mmc4_max_num_images: int = 6
    """Images of a document that are used, at most."""
    mmc4_min_num_images: int = 1
    """Documents with fewer images are left out."""
    mmc4_min_image_bytes: int = 11_000
    """Images whose file is smaller are left out, in bytes."""
    mmc4_max_tokens: int = 256
    """Tokens of a document."""
    laion_max_tokens: int = 32
    """Tokens of a caption."""
    mmc4_rule: Rule = "auto"
    """How the first stream is read: auto looks at the manifest, then at the first sample."""
    laion_rule: Rule = "auto"
    """How the second stream is read."""
    keep_single_image: float = 0.5
    """Share of documents with a single image that is used, drawn from (seed, epoch, key)."""
    surplus: Literal["drop", "argmax"] = "drop"
    """Images that outnumber the sentences: left out, or at their best sentence."""
    long_documents: Literal["truncate", "chunk"] = "truncate"
    """Documents of more tokens or images than fit: cut off, or cut into several samples."""
    pack: bool = False
    """Several samples in one sequence, each by itself; batch sizes then count sequences."""
    pack_tokens: int = 1024
    """Tokens of a sequence with --pack."""
    random_flip: bool = False
    """Mirror each image with probability 1/2; not where text is in the pictures."""
    exact_preprocess: bool = False
    """Pixels as open_clip's own transform gives them, bit for bit; half as fast."""
    mmc4_features: str | None = None
    """Folder that `mmdata features` wrote for the first stream: no decoding, no vision tower."""
    laion_features: str | None = None
    """The same for the second stream."""
    shuffle_shards: int = 8
    """Shards in the window that samples are shuffled in."""
    workers: int = 1
    """Threads that decode images; 0: none beside the trainer's own."""
    seed: int = 42
    """Of initial values, order and coins."""
    device: str = "auto"
    """cpu, cuda, or auto: a GPU where there is one."""
    parallel: Literal["auto", "ddp", "fsdp", "hsdp"] = "auto"
    """The model whole on each rank, sharded over all ranks, or over those of a host. auto: ddp."""
    shard_ranks: int | None = None
    """With --parallel hsdp: ranks that share one copy of the model. Default: those of a host."""
    dist_timeout: float = 600.0
    """Seconds that ranks wait for each other before the run stops."""
    nproc_per_node: str | None = None
    """Start so many ranks here: a number, gpu (one a GPU) or auto. Not under torchrun or srun."""
    nnodes: str = "1"
    """With --nproc-per-node: nodes that this command runs on, or LEAST:MOST."""
    rdzv_endpoint: str | None = None
    """With --nnodes: host:port of one of the nodes, the same on each."""
    max_restarts: int = 0
    """With --nproc-per-node: start all ranks again, from the last save, after one failed."""
    logging_steps: int = 10
    """Optimizer steps between lines of the console."""
    report_to: str = ""
    """Services that are told the run's values, beside its own files: tensorboard,wandb."""
    report_to_wandb: bool = False
    """OpenFlamingo's name for --report-to wandb."""
    wandb_project: str | None = None
    """Project at W&B; mmdata when not given."""
    wandb_entity: str | None = None
    """User or team at W&B; the one who is logged in when not given."""
    telemetry_seconds: float = 10.0
    """Between samples of GPU and host; 0: none."""
    save_steps: int | None = None
    """Optimizer steps between checkpoints; one is always written at the end."""
    save_epochs: int | None = None
    """Epochs (of --train-num-samples-…) between checkpoints."""
    keep_last: int | None = None
    """Remove all but the newest so many, and what the next two options keep."""
    keep_every: int | None = None
    """With --keep-last: checkpoints at a multiple of so many steps stay as well."""
    keep_best: str | None = None
    """Validation stream whose lowest loss is saved and named `best`; it stays as well."""
    delete_previous_checkpoint: bool = False
    """Keep only the newest checkpoint (OpenFlamingo's name for --keep-last 1)."""
    async_checkpoint: bool = True
    """Go on training while a checkpoint is written, from a copy in host memory."""
    offline: bool = False
    """No network at all, the vision tower included."""
    trust_remote_code: bool = False
    """Run code that comes with a model from the hub."""
    dry_run: bool = False
    """Write the first batches as an HTML page to the run's folder, and stop."""
    estimate: bool = False
    """Print what memory a rank takes, by category, and stop. Needs configs only: no weights, no
    shards, no GPU."""
    estimate_ranks: int | None = None
    """With --estimate: ranks that the run would have. Default: of --nproc-per-node, or one."""
    preflight: Literal["auto", "on", "off"] = "auto"
    """Before the data, one step of the largest batch there can be, of which nothing stays, so that
    memory runs out now or never. auto: on a GPU."""
    auto_batch_size: bool = False
    """Take the largest micro-batch that fits, and accumulate so that the batch of a step stays."""
    memory_budget: float | None = None
    """GB (1e9 bytes) that a rank may take. Default: what the GPU has."""
    memory_every: int | None = None
    """Optimizer steps between measurements of memory, beside the first two steps."""

    def __post_init__(self) -> None:
        for name in _AT_LEAST_ONE:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"{_flag(name)} {value}: expected at least 1")
        for name in _AT_LEAST_ZERO:
            if getattr(self, name) < 0:
                raise UserError(f"{_flag(name)} {getattr(self, name)}: expected at least 0")
        if self.mmc4_textsim_threshold > 1:
            guess = self.mmc4_textsim_threshold / 100
            raise UserError(
                f"--mmc4-textsim-threshold {self.mmc4_textsim_threshold:g}: similarities are 0 to "
                f"1: did you mean {guess:.2f}?"
            )
        if not 0 <= self.keep_single_image <= 1:
            raise UserError(f"--keep-single-image {self.keep_single_image}: expected 0 to 1")
        if self.init_from and self.resume_from_checkpoint:
            raise UserError("--init-from starts a run, --resume-from-checkpoint goes on: give one")
        if self.batch_size is not None and self.mix is None:
            raise UserError("--batch-size goes with --mix; use --batch-size-mmc4, --stream-opt, …")
        check_streams(self)
        check_adapters(self)
        _check_services(self.services)
        self._check_keeping()
        check_combinations(self)
        self._check_memory()

    def _check_keeping(self) -> None:
        if self.delete_previous_checkpoint and self.keep_last not in (None, 1):
            raise UserError(
                f"--delete-previous-checkpoint means --keep-last 1, not {self.keep_last}: give one"
            )
        if self.keep_every and not (self.keep_last or self.delete_previous_checkpoint):
            raise UserError("--keep-every goes with --keep-last; without it all checkpoints stay")
        measured = [one.partition("=")[0] for one in self.val_stream]
        if self.keep_best is not None and self.keep_best not in measured:
            told = ", ".join(measured) or "none is given"
            raise UserError(f"--keep-best {self.keep_best}: expected a --val-stream: {told}")

    def _check_memory(self) -> None:
        if self.estimate_ranks is not None and not self.estimate:
            raise UserError("--estimate-ranks goes with --estimate; use --nproc-per-node to train")
        if self.memory_budget is not None and self.memory_budget <= 0:
            raise UserError(f"--memory-budget {self.memory_budget:g}: expected GB above 0")
        if self.auto_batch_size and self.preflight == "off":
            raise UserError("--auto-batch-size tries what it takes by a preflight; leave out off")

    @property
    def services(self) -> tuple[str, ...]:
        """Services of --report-to and --report-to-wandb."""
        named = [name.strip() for name in self.report_to.split(",") if name.strip()]
        if self.report_to_wandb and "wandb" not in named:
            named.append("wandb")
        return tuple(named)


_AT_LEAST_ONE = (
    "cross_attn_every_n_layers",
    "vision_chunk",
    "batch_size_mmc4",
    "batch_size_laion",
    "batch_size",
    "val_every",
    "gradient_accumulation_steps",
    "train_num_samples_mmc4",
    "train_num_samples_laion",
    "num_epochs",
    "max_steps",
    "mmc4_max_num_images",
    "mmc4_min_num_images",
    "mmc4_max_tokens",
    "laion_max_tokens",
    "pack_tokens",
    "shuffle_shards",
    "shard_ranks",
    "estimate_ranks",
    "memory_every",
    "dist_timeout",
    "logging_steps",
    "save_steps",
    "save_epochs",
    "keep_last",
    "keep_every",
    "max_skipped_steps",
)
_AT_LEAST_ZERO = (
    "loss_multiplier_mmc4",
    "loss_multiplier_laion",
    "learning_rate",
    "warmup_steps",
    "weight_decay",
    "clip_norm",
    "workers",
    "mmc4_min_image_bytes",
    "cache_gb",
    "telemetry_seconds",
    "max_restarts",
    "momentum",
)


def _check_services(names: tuple[str, ...]) -> None:
    for name in names:
        if name not in SERVICES:
            raise UserError(f"--report-to {name}: expected {' or '.join(SERVICES)}")


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
