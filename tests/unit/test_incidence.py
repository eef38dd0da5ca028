import pytest
import torch

from cfrec.incidence import orthogonal, sorted_entries, truncated_svd, who_rated_what


def random_pairs(n=12, m=9, n_pairs=50):
    pairs = torch.randperm(n * m, generator=torch.Generator().manual_seed(0))[:n_pairs]
    return pairs // m, pairs % m, (n, m)


def test_entries_multiply_as_the_matrix_they_are():
    rows, columns, shape = random_pairs()
    order, entries = sorted_entries(rows, columns, shape)
    values = torch.randn(len(rows))
    dense = torch.zeros(shape)
    dense[rows, columns] = values
    right = torch.randn(shape[1], 3)
    assert torch.allclose(entries.times(values[order], right), dense @ right, atol=1e-5)
    assert torch.allclose(entries.row_sums(values[order]), dense.sum(1), atol=1e-5)
    assert torch.equal(entries.counts, (dense != 0).sum(1))
    part = entries.part(slice(3, 7))
    first, last = int(entries.starts[3]), int(entries.starts[7])
    assert torch.allclose(part.times(values[order][first:last], right), dense[3:7] @ right, atol=1e-5)


def test_the_largest_singular_values_are_found():
    random = torch.Generator().manual_seed(1)
    left, right = (torch.linalg.qr(torch.randn(n, 8, generator=random))[0] for n in (40, 30))
    matrix = left @ torch.diag(torch.tensor([9.0, 7, 5, 3, 1, 0.5, 0.2, 0.1])) @ right.T
    u, values, v = truncated_svd(lambda x: matrix @ x, lambda x: matrix.T @ x, (40, 30), 4, random)
    assert values.tolist() == pytest.approx([9, 7, 5, 3], rel=1e-4)
    assert torch.allclose((u * values) @ v.T, (left[:, :4] * torch.tensor([9.0, 7, 5, 3])) @ right[:, :4].T, atol=1e-3)


def test_who_rated_what_by_dense_arithmetic():
    rows, columns, shape = random_pairs()
    _, users = sorted_entries(rows, columns, shape)
    _, movies = sorted_entries(columns, rows, shape[::-1])
    dense = torch.zeros(shape)
    dense[rows, columns] = 1
    a, b = (dense.sum(axis).clamp(min=1) ** -0.25 for axis in (1, 0))
    u, s, vt = torch.linalg.svd(a[:, None] * dense * b)
    wanted = u[:, :3] * s[:3] * a[:, None], vt[:3].T * s[:3] * b[:, None]
    found = who_rated_what(users, movies, 3, torch.Generator().manual_seed(0))
    for mine, theirs in zip(found, wanted, strict=True):
        assert torch.allclose(mine @ mine.T, theirs @ theirs.T, atol=1e-3)  # signs are free


def test_rows_become_orthogonal_columns_and_lengths():
    rows = torch.randn(50, 4, generator=torch.Generator().manual_seed(2)) @ torch.randn(4, 6) + 3
    directions, lengths = orthogonal(rows)
    assert directions.shape == (50, 4)
    assert torch.allclose(directions.T @ directions, torch.eye(4), atol=1e-4)
    assert float((directions * lengths).square().sum(1).mean()) == pytest.approx(1, rel=1e-3)
    assert orthogonal(torch.ones(5, 2))[0].shape == (5, 0)
