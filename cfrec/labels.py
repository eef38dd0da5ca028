"""Where titles stand on a map: beside their points as these are seen, and apart from one another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Places = npt.NDArray[np.float64]

SPACE, FLAT = (660.0, 590.0), (590.0, 520.0)  # pixels: width and height that a map in space and a flat one have on a laptop
_LETTER, _LINE = 6.2, 18.0  # pixels: the width of a letter, and the height of a line
_CLEAR = 7.0  # pixels between a point and any title
_RINGS = (9.0, 22.0, 38.0, 56.0, 76.0, 98.0, 122.0, 148.0, 176.0, 206.0, 240.0, 280.0, 320.0)  # pixels between a title and its own point
_FAR = 125.0  # pixels: to stand so far from its own point is as bad as to hide another
_TURNS = np.radians([0, 20, -20, 40, -40, 60, -60, 80, -80, 105, -105, 130, -130, 155, -155, 180])  # away from the direction outwards
_FIELD_OF_VIEW = np.pi / 4  # Plotly's
_NEAREST = 0.05  # what lies behind the camera, or at its eye, is taken for as near as this


def seen_from(places: Places, camera: Mapping[str, Any]) -> Places:
    """Where Plotly's camera sees points.

    Parameters
    ----------
    places : (n, 3) array
        In a cube with sides of 1 around the origin.
    camera : mapping
        ``eye``, ``center`` and ``up``, each with x, y and z; the latter two may be missing.

    Returns
    -------
    (n, 2) array
        Pixels rightwards and downwards from the middle of a map of the size SPACE.
    """
    eye, centre = _vector(camera["eye"]), _vector(camera.get("center", {}))
    forward = _unit(centre - eye)
    right = _unit(np.cross(forward, _vector(camera.get("up", {"z": 1}))))
    relative = places - eye
    scale = SPACE[1] / 2 / np.tan(_FIELD_OF_VIEW / 2) / np.maximum(relative @ forward, _NEAREST)
    return np.column_stack([relative @ right * scale, -(relative @ np.cross(right, forward)) * scale])


def _vector(coordinates: Mapping[str, float]) -> Places:
    return np.array([float(coordinates.get(side, 0)) for side in "xyz"])


def _unit(vector: Places) -> Places:
    length = float(np.linalg.norm(vector))
    return vector / length if length else np.array([1.0, 0.0, 0.0])


def apart(points: Places, lengths: Sequence[int], size: tuple[float, float]) -> Places:
    """Where the middle of each title stands, so that titles hide neither one another nor the points that they name.

    Those farthest out come first, each as near to its point as it finds room, outwards rather than inwards; one that finds none stands
    where it hides least.

    Parameters
    ----------
    points : (n, 2) array
        Pixels from the middle of the map.
    lengths : n numbers
        Letters of each title.
    size : (width, height)
        Of the map, in pixels.

    Returns
    -------
    (n, 2) array
        Pixels rightwards and downwards from the point to the middle of its title.
    """
    if not len(points):
        return np.empty((0, 2))
    outwards = points - np.median(points, axis=0)
    boxes = np.column_stack([np.array(lengths) * _LETTER / 2, np.full(len(points), _LINE / 2)])  # half of each title's width and height
    offsets, done = np.zeros_like(points), np.zeros(len(points), bool)
    for row in np.argsort(-np.hypot(*outwards.T), kind="stable"):
        choices, farness = _choices(outwards[row], boxes[row])
        at = points[row] + choices
        titles = _hidden(at, boxes[row] + boxes[done], (points + offsets)[done])
        named = _hidden(at, boxes[row] + _CLEAR, points)
        cut_off = (np.abs(at) > np.array(size) / 2 - boxes[row]).any(axis=1)
        offsets[row] = choices[np.argmin(4 * cut_off + 3 * titles + named + farness)]
        done[row] = True
    return offsets


def _hidden(at: Places, reach: Places, others: Places) -> Any:
    """How many others a title would hide, at each of several places."""
    return (np.abs(at[:, None] - others) < reach).all(axis=2).sum(axis=1)


def _choices(outwards: Places, box: Places) -> tuple[Places, Places]:
    """Places to try for a title, and how far each is: above its point, and in rings round it, first of all outwards."""
    angles = np.arctan2(outwards[1], outwards[0]) + _TURNS
    directions = np.column_stack([np.cos(angles), np.sin(angles)])
    rings = [directions * (box + ring) for ring in _RINGS]
    farness = np.repeat(np.array(_RINGS) / _FAR, len(_TURNS))
    return np.concatenate([[[0.0, -box[1] - _RINGS[0]]], *rings]), np.append(0.0, farness)
