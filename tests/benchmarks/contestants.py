"""One system's training, timed in a process of its own: what ``peers.py`` runs.

    python tests/benchmarks/contestants.py NAME RATINGS.npz EPOCHS

RATINGS.npz holds users, movies, stars (int32, int32, float32), n_users, n_movies, and n_train: so many of them come first, and are
trained on; the others are held out. Prints one line of JSON: seconds (from data in the system's own form to fitted), epoch (seconds of a
single one), before (seconds of importing and preparing), mse on the held-out ratings of predictions clipped to the scale (null where it
predicts no stars), epochs, gigabytes (at the most). NAME is ``cfrec:PRESET``, ``cfrec:torch`` or one of PEERS; EPOCHS 0 leaves the
preset's. An import that fails ends it with exit code 3: the peer is not installed.
"""

from __future__ import annotations

import json
import resource
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np


class Data(NamedTuple):
    """Ratings to learn from, and held out."""

    users: Any
    movies: Any
    stars: Any
    held_users: Any
    held_movies: Any
    held_stars: Any
    n_users: int
    n_movies: int


class Fitted(NamedTuple):
    """What a contestant did."""

    seconds: float
    predict: Callable[[Any, Any], Any] | None  # stars of users and movies
    epochs: int
    epoch_seconds: float | None = None  # the median epoch, where it is told; else the mean will do


def load(path: str) -> Data:
    a = np.load(path)
    n = int(a["n_train"])
    parts = [a[name][part] for part in (slice(n), slice(n, None)) for name in ("users", "movies", "stars")]
    return Data(*parts, int(a["n_users"]), int(a["n_movies"]))


def timed(function: Callable[[], Any]) -> float:
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def cornac(data: Data, epochs: int) -> Fitted:
    """Matrix factorisation by SGD in Cython: its compiled kernel, with the settings of its class's examples."""
    from cornac.models.mf.backend_cpu import fit_sgd

    random, k = np.random.default_rng(0), 50
    users, movies = (random.normal(0, 0.01, (n, k)).astype(np.float32) for n in (data.n_users, data.n_movies))
    user_bias, movie_bias = (np.zeros(n, np.float32) for n in (data.n_users, data.n_movies))
    mean = float(data.stars.mean())
    arrays = (data.users.astype(np.int64), data.movies.astype(np.int64), data.stars, users, movies, user_bias, movie_bias)
    seconds = timed(lambda: fit_sgd(*arrays, 0.01, 0.02, mean, epochs, 2, True, False, False))
    return Fitted(seconds, lambda u, m: mean + user_bias[u] + movie_bias[m] + np.einsum("nk,nk->n", users[u], movies[m]), epochs)


def lenskit(data: Data, epochs: int) -> Fitted:
    """Biased matrix factorisation by alternating least squares."""
    import pandas as pd
    from lenskit.als import BiasedMFScorer
    from lenskit.data import ItemList, RecQuery, from_interactions_df

    table = pd.DataFrame({"user_id": data.users, "item_id": data.movies, "rating": data.stars})
    dataset = from_interactions_df(table)
    model = BiasedMFScorer(embedding_size=50, epochs=epochs, regularization=0.1)
    seconds = timed(lambda: model.train(dataset))

    def predict(users: Any, movies: Any) -> Any:
        stars = np.full(len(users), np.nan)
        for user in np.unique(users):
            rows = np.flatnonzero(users == user)
            stars[rows] = model(RecQuery(user_id=user), ItemList(item_ids=movies[rows])).scores()
        return np.nan_to_num(stars, nan=data.stars.mean())

    return Fitted(seconds, predict, epochs)


def implicit(data: Data, epochs: int) -> Fitted:
    """Alternating least squares for implicit feedback, which predicts no stars: a measure of speed only."""
    import scipy.sparse
    from implicit.cpu.als import AlternatingLeastSquares

    matrix = scipy.sparse.csr_matrix((data.stars, (data.users, data.movies)), shape=(data.n_users, data.n_movies))
    model = AlternatingLeastSquares(factors=50, iterations=epochs, num_threads=2)
    return Fitted(timed(lambda: model.fit(matrix, show_progress=False)), None, epochs)


def surprise(data: Data, algorithm: Any) -> Fitted:
    import pandas as pd
    from surprise import Dataset, Reader

    table = pd.DataFrame({"user": data.users, "item": data.movies, "rating": data.stars})
    ratings = Dataset.load_from_df(table, Reader(rating_scale=(1, 5))).build_full_trainset()
    seconds = timed(lambda: algorithm.fit(ratings))
    return Fitted(seconds, lambda u, m: np.array([algorithm.predict(*pair).est for pair in zip(u, m, strict=True)]), algorithm.n_epochs)


def surprise_svd(data: Data, epochs: int) -> Fitted:
    from surprise import SVD

    return surprise(data, SVD(n_factors=50, n_epochs=epochs, random_state=0))


def surprise_svdpp(data: Data, epochs: int) -> Fitted:
    from surprise import SVDpp

    return surprise(data, SVDpp(n_epochs=epochs, random_state=0, cache_ratings=True))


def myfm(data: Data, epochs: int) -> Fitted:
    """A Bayesian factorisation machine of user and movie, by Gibbs sampling: as many samples as epochs."""
    import myfm
    import scipy.sparse

    def table(users: Any, movies: Any) -> Any:
        n = len(users)
        places = (np.tile(np.arange(n), 2), np.concatenate([users, data.n_users + movies]))
        return scipy.sparse.csr_matrix((np.ones(2 * n), places), shape=(n, data.n_users + data.n_movies))

    model, x = myfm.MyFMRegressor(rank=10, random_seed=0), table(data.users, data.movies)
    stars, groups = data.stars.astype(np.float64), [data.n_users, data.n_movies]
    seconds = timed(lambda: model.fit(x, stars, n_iter=epochs, n_kept_samples=epochs, group_shapes=groups))
    return Fitted(seconds, lambda u, m: model.predict(table(u, m)), epochs)


def post(data: Data, epochs: int) -> Fitted:
    """The loop of the post that cfrec implements: DataLoader, autograd, torch.optim.Adam, batches of 100."""
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    from cfrec.model import EmbeddingNet

    torch.manual_seed(0)
    net = EmbeddingNet(data.n_users, data.n_movies, 50)
    for table in net.parameters():
        torch.nn.init.normal_(table)
    optimiser = torch.optim.Adam(net.parameters(), lr=1.5e-3, weight_decay=3e-4)
    loss = torch.nn.MSELoss()
    pairs = torch.from_numpy(np.stack([data.users, data.movies], 1))
    batches = DataLoader(TensorDataset(pairs, torch.from_numpy(data.stars)), 100, shuffle=True)

    def fit() -> None:
        for _ in range(epochs):
            for x, y in batches:
                optimiser.zero_grad()
                loss(net(*x.T), y).backward()
                optimiser.step()

    seconds = timed(fit)
    return Fitted(seconds, lambda u, m: net(torch.from_numpy(u), torch.from_numpy(m)).detach().numpy(), epochs)


def autograd(data: Data, epochs: int) -> Fitted:
    """Plain torch as it is best written: whole tensors, batches of 8,192, autograd, fused Adam over the whole tables."""
    import torch

    from cfrec.model import EmbeddingNet

    net = EmbeddingNet(data.n_users, data.n_movies, 50, (0.0, 5.5), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for table in net.parameters():
            table.mul_(0.05)
    optimiser = torch.optim.Adam(net.parameters(), lr=0.01, fused=True)
    users, movies, stars = (torch.from_numpy(a) for a in (data.users, data.movies, data.stars))

    def fit() -> None:
        for _ in range(epochs):
            for rows in torch.randperm(len(stars)).split(8_192):
                optimiser.zero_grad()
                torch.nn.functional.mse_loss(net(users[rows], movies[rows]), stars[rows]).backward()
                optimiser.step()

    seconds = timed(fit)
    return Fitted(seconds, lambda u, m: net(torch.from_numpy(u), torch.from_numpy(m)).detach().numpy(), epochs)


PEERS: dict[str, Callable[[Data, int], Fitted]] = {
    f.__name__: f for f in (cornac, lenskit, implicit, surprise_svd, surprise_svdpp, myfm, post, autograd)
}


def cfrec(data: Data, preset: str, epochs: int) -> Fitted:
    """This project, through its library, with what the command line does."""
    import pandas as pd

    import cfrec
    from cfrec.ratings import Ratings, ReadReport, Source
    from cfrec.training import load_method

    source, movies = Source("benchmark", "Benchmark"), pd.DataFrame({"movie_id": np.arange(data.n_movies)})
    values = np.unique(data.stars)
    scale = (float(values[0]), float(values[-1]), float(np.diff(values).min()))
    train, valid = (
        Ratings(u, m, y, np.arange(data.n_users), movies, None, scale, source, ReadReport(len(y), len(y)))
        for u, m, y in ((data.users, data.movies, data.stars), (data.held_users, data.held_movies, data.held_stars))
    )
    changes = {"epochs": epochs} if epochs else {}
    torch_only = preset == "torch"
    config = cfrec.TrainConfig.preset("balanced" if torch_only else preset, device="cpu", **changes)
    config = config.for_adam() if torch_only else config
    load_method(config)
    trained: list[Any] = []
    seconds = timed(lambda: trained.append(cfrec.train(train, valid, config)))
    history = trained[0].history
    return Fitted(seconds, trained[0].predict_rows, len(history), statistics.median(m.seconds for m in history))


def main(name: str, path: str, epochs: int) -> None:
    data = load(path)
    started = time.perf_counter()
    try:
        fitted = cfrec(data, name.partition(":")[2], epochs) if name.startswith("cfrec:") else PEERS[name](data, epochs)
    except ImportError as error:
        print(error, file=sys.stderr)
        raise SystemExit(3) from None
    whole = time.perf_counter() - started
    mse = None
    if fitted.predict is not None:
        stars = np.asarray(fitted.predict(data.held_users, data.held_movies)).clip(data.stars.min(), data.stars.max())
        mse = float(np.square(stars - data.held_stars).mean(dtype=np.float64))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    epoch = fitted.epoch_seconds or fitted.seconds / fitted.epochs
    figures = {"seconds": fitted.seconds, "epoch": epoch, "before": whole - fitted.seconds, "mse": mse, "epochs": fitted.epochs}
    print(json.dumps(figures | {"gigabytes": peak}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
