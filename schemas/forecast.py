"""What training would make of shards, as `mmdata validate --forecast` and `--peer` report it.

Part of the validation report (`schemas/validation.py`); a reader in another language finds both in
`schemas/json/validation.schema.json`. Shares are 0 to 1.
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from schemas.document import Count

Basis = Literal["tables", "documents", "sample"]
"""From the samples tables of all documents, from all documents, or from a sample of these."""
Share = Annotated[float, Meta(ge=0, le=1)]


class ForecastSettings(Struct, frozen=True, kw_only=True):
    """What a training run was taken to ask of documents; the names are the trainer's."""

    min_similarity: float
    min_image_bytes: int
    max_images: int
    min_images: int
    keep_single_image: Share
    surplus: Literal["drop", "argmax"]
    tokenizer: str | None
    max_tokens: Annotated[int | None, Meta(description="None: the text was not looked at")]
    batch_size: int


class TokenForecast(Struct, frozen=True, kw_only=True):
    """Tokens of the documents that are used."""

    total: Count
    per_document: float
    at_limit: Annotated[int, Meta(ge=0, description="documents of max_tokens tokens")]
    padding: Annotated[float, Meta(ge=0, le=1, description="mean share of a batch's tokens")]


class ThresholdForecast(Struct, frozen=True, kw_only=True):
    """What one similarity threshold would leave, before any text is cut."""

    min_similarity: float
    documents: Count
    images: Count
    share: Annotated[float, Meta(ge=0, le=1, description="of the documents looked at")]


class Forecast(Struct, frozen=True, kw_only=True):
    """What a training run would use of the shards, and by reason what it would not.

    `looked_at = used + sum(dropped)`, and of these documents
    `images = images_used + sum(images_dropped) + images_of_dropped_documents`. The coin for
    documents with one image is apart: `used` is before it.
    """

    rule: Literal["interleaved", "caption"]
    basis: Basis
    documents: Annotated[int, Meta(ge=0, description="in the shards")]
    looked_at: Count
    seed: Annotated[int | None, Meta(description="of the sample; None without one")]
    unsettled: Annotated[
        int,
        Meta(ge=0, description="documents that the tables cannot decide: taken as assigned before"),
    ]
    unsettled_small: Annotated[
        int, Meta(ge=0, description="those of them that lost images to min_image_bytes")
    ]
    settings: ForecastSettings
    used: Count
    dropped: dict[str, int]
    single_image: Annotated[int, Meta(ge=0, description="used documents with one image")]
    coin_drops: Annotated[float, Meta(ge=0, description="of these each epoch, on average")]
    images: Count
    images_used: Count
    images_dropped: Annotated[dict[str, int], Meta(description="of the documents that are used")]
    images_of_dropped_documents: Count
    images_per_document: float
    tokens: TokenForecast | None
    samples_per_epoch: Annotated[float, Meta(ge=0, description="after the coin, of all documents")]
    uncertainty: Annotated[
        float, Meta(ge=0, description="of samples_per_epoch: half of its 95% interval; 0: counted")
    ]
    steps_per_epoch: Count
    thresholds: list[ThresholdForecast]
    unread: Annotated[list[str], Meta(description="shards that could not be read, and why")]


class PeerForecast(Struct, frozen=True, kw_only=True):
    """What another project's loader would do with the same shards.

    `looked_at = used + sum(dropped)`.
    """

    peer: Literal["openflamingo"]
    rule: Literal["interleaved", "caption"] = "interleaved"
    basis: Basis
    documents: Count
    looked_at: Count
    seed: int | None
    used: Count
    dropped: dict[str, int]
    coin_drops: Annotated[float, Meta(ge=0, description="of `used` each epoch, on average")]
    images_used: Count
    images_dropped: dict[str, int]
    mispaired: Annotated[
        int, Meta(ge=0, description="used documents with a picture at another picture's sentence")
    ]
    extra_tags: Annotated[
        int, Meta(ge=0, description="used documents whose text holds a media tag as text")
    ]
    unread: list[str]
