"""From counts to a forecast: what they mean for a run over all documents."""

import math

from mmdata.forecast.shard import Question
from mmdata.forecast.tally import TrainingTally, padding_share
from schemas.forecast import Basis, Forecast, ForecastSettings, ThresholdForecast, TokenForecast

_TWO_SIDED_95 = 1.96


def summarise(
    tally: TrainingTally,
    question: Question,
    *,
    basis: Basis,
    documents: int,
    batch_size: int,
    seed: int | None,
    thresholds: TrainingTally,
    unread: list[str],
) -> Forecast:
    """The forecast.

    Args:
        tally: of the documents that were looked at.
        question: that was asked.
        basis: how these were chosen.
        documents: in all shards.
        batch_size: samples, to count steps and padding.
        seed: of the sample.
        thresholds: counts to take the table over thresholds from.
        unread: shards that could not be read, and why.
    """
    coin_drops = tally.single_image * (1 - question.policy.keep_single_image)
    coin_drops = 0.0 if question.rule == "caption" else coin_drops
    share = (tally.used - coin_drops) / tally.looked_at if tally.looked_at else 0.0
    samples = share * documents
    error = math.sqrt(max(0.0, share * (1 - share)) / tally.looked_at) if tally.looked_at else 0.0
    return Forecast(
        rule=question.rule,
        basis=basis,
        documents=documents,
        looked_at=tally.looked_at,
        seed=seed,
        unsettled=tally.unsettled,
        unsettled_small=tally.unsettled_small,
        settings=_settings(question, batch_size),
        used=tally.used,
        dropped=_sorted(tally.dropped),
        single_image=tally.single_image,
        coin_drops=coin_drops,
        images=tally.images,
        images_used=tally.images_used,
        images_dropped=_sorted(tally.images_dropped),
        images_of_dropped_documents=tally.images_of_dropped,
        images_per_document=tally.images_used / tally.used if tally.used else 0.0,
        tokens=_tokens(tally, question.max_tokens, batch_size) if question.tokenizer else None,
        samples_per_epoch=samples,
        uncertainty=_TWO_SIDED_95 * error * documents if tally.looked_at < documents else 0.0,
        steps_per_epoch=math.ceil(samples / batch_size),
        thresholds=_thresholds(thresholds),
        unread=unread,
    )


def _settings(question: Question, batch_size: int) -> ForecastSettings:
    policy = question.policy
    return ForecastSettings(
        min_similarity=policy.min_similarity,
        min_image_bytes=policy.min_image_bytes,
        max_images=policy.max_images,
        min_images=policy.min_images,
        keep_single_image=policy.keep_single_image,
        surplus=policy.surplus,
        tokenizer=question.tokenizer,
        max_tokens=question.max_tokens if question.tokenizer else None,
        batch_size=batch_size,
    )


def _thresholds(tally: TrainingTally) -> list[ThresholdForecast]:
    return [
        ThresholdForecast(
            min_similarity=threshold, documents=kept, images=images, share=kept / tally.looked_at
        )
        for threshold, (kept, images) in sorted(tally.by_threshold.items())
    ]


def _tokens(tally: TrainingTally, max_tokens: int, batch_size: int) -> TokenForecast:
    total = sum(length * count for length, count in tally.lengths.items())
    return TokenForecast(
        total=total,
        per_document=total / tally.used if tally.used else 0.0,
        at_limit=tally.lengths[max_tokens],
        padding=padding_share(tally.lengths, batch_size),
    )


def _sorted(counts: dict[str, int]) -> dict[str, int]:
    """The most frequent first, equals by name."""
    return dict(sorted(counts.items(), key=lambda entry: (-entry[1], entry[0])))
