from math import pi, tan

import numpy as np
import pytest

from cfrec.labels import SPACE, apart, seen_from

FRONT = {"eye": {"x": 0, "y": -2, "z": 0}}
SIZE = (600.0, 500.0)


def boxes(points, lengths, offsets):
    """The middle of each title and half its size, as drawn: letters of 6.2 pixels in lines of 16."""
    return points + offsets, np.column_stack([np.array(lengths) * 3.1, np.full(len(points), 8)])


def n_overlaps(points, lengths, offsets):
    at, half = boxes(points, lengths, offsets)
    near = (np.abs(at[:, None] - at) < half[:, None] + half).all(axis=2)
    return int(np.triu(near, 1).sum())


def n_covered(points, lengths, offsets):
    at, half = boxes(points, lengths, offsets)
    return int((np.abs(at[:, None] - points) < half[:, None] + 3).all(axis=2).sum())


def test_a_camera_in_front_sees_right_as_right_and_up_as_up():
    half_height = SPACE[1] / 2
    unit = half_height / tan(pi / 8) / 2  # pixels of a side of the cube, two sides away from the eye
    seen = seen_from(np.array([[0, 0, 0], [0.5, 0, 0.5], [-0.5, 0, 0]]), FRONT)
    assert seen == pytest.approx(np.array([[0, 0], [unit / 2, -unit / 2], [-unit / 2, 0]]))
    near, far = seen_from(np.array([[0.5, -0.5, 0], [0.5, 0.5, 0]]), FRONT)[:, 0]
    assert (near, far) == pytest.approx((unit / 2 * 2 / 1.5, unit / 2 * 2 / 2.5))


def test_where_the_camera_looks_and_what_is_up_for_it_count():
    aside = FRONT | {"center": {"x": 0.5, "y": 0, "z": 0}}
    assert seen_from(np.array([[0.5, 0, 0]]), aside) == pytest.approx(np.zeros((1, 2)))
    lying = FRONT | {"up": {"x": 1, "y": 0, "z": 0}}
    ((right, down),) = seen_from(np.array([[0.5, 0, 0]]), lying)
    assert right == pytest.approx(0)
    assert down < 0


def test_what_lies_behind_the_camera_has_a_place_too():
    assert np.isfinite(seen_from(np.array([[0, -2, 0], [0.1, -3, 0.1]]), FRONT)).all()


def test_a_title_with_room_stands_above_its_point():
    points = np.array([[0.0, 0], [0, 100], [200, -100]])
    assert apart(points, [10, 20, 30], SIZE).tolist() == [[0, -18]] * 3
    assert apart(np.empty((0, 2)), [], SIZE).shape == (0, 2)


def test_titles_of_neighbours_make_room_for_each_other():
    points = np.array([[0.0, 0], [12, 0], [6, 8]])
    lengths = [20, 20, 20]
    offsets = apart(points, lengths, SIZE)
    assert (n_overlaps(points, lengths, offsets), n_covered(points, lengths, offsets)) == (0, 0)


def test_a_crowd_can_be_read():
    rng = np.random.default_rng(0)
    points, lengths = rng.normal(0, [70, 45], (40, 2)), rng.integers(8, 30, 40).tolist()
    above = np.tile([0.0, -18], (40, 1))
    assert n_overlaps(points, lengths, above) > 20  # what they would be without
    offsets = apart(points, lengths, SIZE)
    assert n_overlaps(points, lengths, offsets) == 0
    assert n_covered(points, lengths, offsets) <= 2
    at, half = boxes(points, lengths, offsets)
    assert (np.abs(at) + half <= np.array(SIZE) / 2).all()


def test_where_there_is_no_room_every_title_still_has_a_place():
    offsets = apart(np.zeros((100, 2)), [30] * 100, (50.0, 20.0))
    assert np.isfinite(offsets).all()
    assert np.abs(offsets).max() < 450
