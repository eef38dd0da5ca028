from dataclasses import replace

import numpy as np
import pytest

import cfrec
from cfrec.errors import ConfigError, DataError


def test_evaluate_gives_the_figures_of_the_training(trained, blocks):
    assert cfrec.evaluate(trained, blocks) == pytest.approx(trained.metrics)


def test_evaluate_needs_to_know_what_was_held_out(trained, blocks):
    with pytest.raises(DataError, match="held out"):
        cfrec.evaluate(replace(trained, split=None), blocks)
    with pytest.raises(DataError, match="other users or movies"):
        cfrec.evaluate(replace(trained, split=(0.2, 42), user_ids=trained.user_ids[:-1]), blocks)


def test_the_same_ratings_in_another_order_are_refused(trained, blocks):
    """Their held-out part would hold ratings the model learned from, and flatter it."""
    turned = blocks.take(np.arange(len(blocks))[::-1])
    with pytest.raises(DataError, match="not the ratings, in the order"):
        cfrec.evaluate(trained, turned)


def test_constant_ratings_can_be_cross_validated(blocks, block_config):
    constant = replace(blocks, rating=np.full_like(blocks.rating, 5.0), scale=(5.0, 5.0, 1.0))
    assert all(fold["mse"] < 1e-3 for fold in cfrec.cross_validate(constant, block_config, 2))


def test_a_fold_that_diverges_is_named(blocks, block_config):
    with pytest.raises(ConfigError, match="Fold 1: Training diverged"):
        cfrec.cross_validate(blocks, replace(block_config, learning_rate=10.0, schedule="constant"), 2)


def test_each_fold_is_trained_without_what_it_is_tested_on(blocks, block_config):
    seen = []
    folds = cfrec.cross_validate(blocks, block_config, 3, on_fold=lambda number, errors: seen.append((number, errors)))
    assert [number for number, _ in seen] == [1, 2, 3]
    assert [errors for _, errors in seen] == folds
    for (part, held_out), errors in zip(blocks.folds(3), folds, strict=True):
        assert errors["mse"] == pytest.approx(cfrec.train(part, held_out, block_config).history[-1].valid_loss)
        assert errors["rmse"] == pytest.approx(errors["mse"] ** 0.5)
