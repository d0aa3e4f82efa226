"""`--split`: one conversion into several folders, each a whole one with its own manifest.

Every split reads all inputs and writes the documents whose group hashes into its part: parsing is
done once a split, reading pictures once in all. What belongs elsewhere is counted (`other_splits`)
and no more; a record of which no group can be told, since it is broken, counts in the first split.
Shards are cut so that they hold about as many documents as without a split.
"""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from mmdata.errors import UserError
from mmdata.shards.naming import PLAN_NAME
from mmdata.sources.split import SplitRule, make_rules
from mmdata.storage.files import exists
from pipelines.conversion.job import ConversionJob
from pipelines.conversion.options import Conversion, parse_split
from pipelines.conversion.result import ConversionResult


@dataclass(frozen=True, slots=True)
class Part:
    """One folder of a conversion.

    Attributes:
        folder: that it is written to.
        share: of the documents, 0 to 1.
        rule: which documents; None: all of them.
        is_first: of the parts.
    """

    folder: str
    share: float = 1.0
    rule: SplitRule | None = None
    is_first: bool = True

    @property
    def name(self) -> str:
        """The name of the split; empty without one."""
        return self.rule.name if self.rule else ""

    def docs_per_shard(self, wanted: int) -> int:
        """Records in a shard of this part, so that about so many of them stay."""
        return math.ceil(wanted / self.share)


def parts_of(options: Conversion, output: str) -> list[Part]:
    """The folders that a conversion writes to.

    Raises:
        UserError: the output holds shards of a conversion without splits, or the other way round.
    """
    if options.split is None:
        return [Part(output)]
    if exists(os.path.join(output, PLAN_NAME)):
        raise UserError(
            f"{output}: holds a conversion without splits; choose another folder, or remove it"
        )
    shares = parse_split(options.split)
    rules = make_rules(shares, options.split_by or "id", options.split_seed)
    return [
        Part(os.path.join(output, rule.name), shares[rule.name], rule, is_first=number == 0)
        for number, rule in enumerate(rules)
    ]


def part_options(part: Part) -> dict[str, Any]:
    """The options that a part's bytes depend on, for the fingerprint."""
    rule = part.rule
    if rule is None:
        return {}
    return {
        "split": rule.name,
        "split_by": rule.by,
        "split_from": rule.low,
        "split_seed": rule.seed,
        "split_share": part.share,
    }


def job_of(job: ConversionJob, part: Part) -> ConversionJob:
    """The job for the documents of one part."""
    if part.rule is None:
        return job
    return replace(job, policy=replace(job.policy, split=part.rule))


def add_up(
    parts: Sequence[Part], results: Sequence[ConversionResult], output: str
) -> ConversionResult:
    """What all parts came to; with one part, that one."""
    first = results[0]
    if parts[0].rule is None:
        return first
    total = ConversionResult(first.plan, output, dry_run=first.dry_run, workers=first.workers)
    for part, result in zip(parts, results, strict=False):  # an interruption leaves parts out
        total.splits.append((part.name, result))
        total.tally.add(result.tally)
        total.failures += result.failures
        total.unfit += result.unfit
        total.interrupted |= result.interrupted
        total.limited |= result.limited
        for name in ("shards_written", "shards_kept", "shards_left", "seconds"):
            setattr(total, name, getattr(total, name) + getattr(result, name))
    total.complete = len(results) == len(parts) and all(result.complete for result in results)
    return total
