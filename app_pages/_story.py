"""What a run is doing, in one sentence with numbers, rewritten each round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt

from app_pages._words import BASELINES, plural
from cfrec.trained import EpochMetrics

_LITTLE = 0.003  # stars: a round that gains less is flattening out


def tell_round(history: Sequence[EpochMetrics], baselines: Mapping[str, float]) -> str:
    """What the latest round did. Losses are squared stars; what is told is their root, the average miss."""
    if not history:
        return "The first round is under way. Before it, every guess is near the average rating."
    now = history[-1]
    best = min(history, key=lambda m: m.valid_loss)
    miss = sqrt(now.valid_loss)
    if best.epoch < now.epoch:
        return _tell_worse(history, best)
    if len(history) == 1:
        against = f"; {BASELINES['mean']} misses by {sqrt(baselines['mean']):.3f}" if "mean" in baselines else ""
        return f"**Learning.** After round 1 a guess misses by {miss:.3f} stars on average{against}."
    before = min(m.valid_loss for m in history[:-1])
    gain = sqrt(before) - miss
    if gain < _LITTLE:
        return f"**Flattening out.** Round {now.epoch} gained only {gain:.4f} stars: the average miss is {miss:.3f} stars."
    return f"**Still learning.** Round {now.epoch} brought the average miss from {sqrt(before):.3f} down to {miss:.3f} stars."


def _tell_worse(history: Sequence[EpochMetrics], best: EpochMetrics) -> str:
    now, at_best = history[-1], history[best.epoch - history[0].epoch]
    kept = f"keeping round {best.epoch} ({sqrt(best.valid_loss):.3f} stars)"
    if now.train_loss < at_best.train_loss:
        return (
            f"**From round {best.epoch + 1} it memorises:** on ratings it has seen the miss fell to {sqrt(now.train_loss):.3f} stars, "
            f"on those kept aside it rose to {sqrt(now.valid_loss):.3f}; {kept}."
        )
    return f"**A step back.** Round {now.epoch} misses by {sqrt(now.valid_loss):.3f} stars; {kept} so far."


def tell_end(outcome: str, history: Sequence[EpochMetrics], best_epoch: int, miss: float, baselines: Mapping[str, float]) -> str:
    """How a run ended, and what it is worth against guessing without learning."""
    rounds = plural(len(history), "round")
    if best_epoch == 0 and outcome != "diverged":
        return "**Nothing was learned:** no round was better than the random start."
    how = {
        "completed": f"**Done after {rounds}.**",
        "early_stopped": f"**Stopped by itself after {rounds}:** it was no longer getting better.",
        "stopped": f"**Stopped after {rounds}.**",
        "diverged": f"**It went off course after {rounds}:** its numbers grew without limit.",
    }[outcome]
    if best_epoch == 0:
        return f"{how} Nothing was learned."
    if baselines and not any(baselines.values()):
        return f"{how} Every rating is the same, so there are no stars to guess: who rated what is all that was learned."
    text = f"{how} Kept: round {best_epoch}, with an average miss of {miss:.3f} stars"
    gains = {BASELINES[name]: sqrt(loss) - miss for name, loss in baselines.items()}
    compared = [f"{abs(gain):.3f} {'better' if gain >= 0 else 'worse'} than {name}" for name, gain in gains.items()]
    return f"{text}: {' and '.join(compared)}." if compared else f"{text}."


def tell_advice(outcome: str, best_epoch: int, gentler: float) -> str:
    """What to try after a run that came to little; ``gentler`` is a smaller step size."""
    try_it = f"a smaller step size, such as {gentler:g}"
    if outcome == "diverged":
        return f"Each correction threw its numbers further than the one before. Try {try_it}."
    if best_epoch == 0:
        return f"No round was better than the random start. Try {try_it}."
    return f"It learned too little: always the same guess misses by less. Try more rounds, or {try_it}."
