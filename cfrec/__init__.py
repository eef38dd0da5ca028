"""cfrec: train a movie recommender on who rated what how, and see what it learned.

    ratings = cfrec.load_dataset("ml-100k")
    train, valid = ratings.split()
    trained = cfrec.train(train, valid)
    cfrec.similar_movies(trained, movie_id=50)

Importing it does not import torch: that waits until something is trained.
An argument of the wrong kind raises a CfrecError too: ModelError for a model, DataError for ratings, ConfigError for anything else.
"""

from cfrec.config import TrainConfig
from cfrec.errors import CfrecError
from cfrec.evaluation import cross_validate, evaluate
from cfrec.explore import mean_rating_histogram, movie_biases, predict_ratings, project_factors, similar_movies
from cfrec.parts import explain_prediction
from cfrec.ratings import Ratings
from cfrec.readers import load_dataset, read_ratings
from cfrec.recommend import recommend
from cfrec.search import search_movies
from cfrec.storage import delete_model, list_models, load_model, save_model
from cfrec.trained import EpochMetrics, TrainedModel
from cfrec.training import train

__version__ = "0.1.0"
__all__ = [
    "CfrecError",
    "EpochMetrics",
    "Ratings",
    "TrainConfig",
    "TrainedModel",
    "cross_validate",
    "delete_model",
    "evaluate",
    "explain_prediction",
    "list_models",
    "load_dataset",
    "load_model",
    "mean_rating_histogram",
    "movie_biases",
    "predict_ratings",
    "project_factors",
    "read_ratings",
    "recommend",
    "save_model",
    "search_movies",
    "similar_movies",
    "train",
]
