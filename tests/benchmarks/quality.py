"""How good each recipe is on MovieLens 100K: errors, how many guesses come near, calibration, five folds, and a split by time.

python tests/benchmarks/quality.py [PRESET ...]
"""

from __future__ import annotations

import statistics
import sys

from similar_quality import split_by_time

import cfrec
from cfrec.evaluation import cross_validate
from cfrec.metrics import calibration, prediction_errors, shares_within
from cfrec.ratings import Ratings

RECIPES = ("quick", "balanced", "accurate", "seed")


def figures(train: Ratings, valid: Ratings, recipe: str) -> tuple[dict[str, float], list[tuple[float, float, int]]]:
    """Errors and shares, and ten groups by prediction; of the last epoch: what is held out chooses nothing."""
    config = cfrec.TrainConfig.preset(recipe, device="cpu")
    trained = cfrec.train(train, valid, config)
    assert recipe == "seed" or trained.best_epoch == len(trained.history), f"the best epoch of {recipe} was not its last"
    predicted = trained.predict_rows(valid.user_idx, valid.movie_idx)
    return prediction_errors(predicted, valid.rating) | shares_within(predicted, valid.rating), calibration(predicted, valid.rating)


def main() -> None:
    recipes = sys.argv[1:] or RECIPES
    ratings = cfrec.load_dataset("ml-100k")
    groups = {}
    for heading, parts in {"random split, seed 42": ratings.split(), "earliest 80 % against the rest": split_by_time(ratings)}.items():
        print(f"\n| {heading} | MSE | RMSE | MAE | within ½ ★ | within 1 ★ |\n|---|---|---|---|---|---|")
        for recipe in recipes:
            errors, groups[recipe, heading] = figures(*parts, recipe)
            shares = " | ".join(f"{errors[name]:.1%}" for name in ("within_half", "within_one"))
            print(f"| {recipe} | {errors['mse']:.4f} | {errors['rmse']:.4f} | {errors['mae']:.4f} | {shares} |", flush=True)
    print("\nguessed → given, stars, in ten groups by guess")
    for (recipe, heading), tenths in groups.items():
        print(f"{recipe}, {heading}:", " ".join(f"{guess:.2f}→{given:.2f}" for guess, given, _ in tenths))
    print("\n| five folds | RMSE | of each fold |\n|---|---|---|")
    for recipe in recipes:
        folds = [fold["rmse"] for fold in cross_validate(ratings, cfrec.TrainConfig.preset(recipe, device="cpu"))]
        print(f"| {recipe} | {statistics.mean(folds):.4f} | {' '.join(f'{rmse:.4f}' for rmse in folds)} |", flush=True)


if __name__ == "__main__":
    main()
