"""What to train: the data, the recipe, the device, every setting; gives a run that is ready to start, or says what is missing."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, fields
from math import floor, log10
from typing import TYPE_CHECKING, Any

import streamlit as st

import cfrec
from app_pages import _state as state
from app_pages import _words as words
from app_pages._own_file import OWN, choose_own
from cfrec.config import PRESETS_EXPLAINED
from cfrec.datasets import DATASETS, Dataset, find_local
from cfrec.devices import list_devices
from cfrec.jobs import Load, TrainingJob
from cfrec.training import estimate_seconds
from cfrec.warm import is_warm

if TYPE_CHECKING:
    from streamlit.delta_generator import DeltaGenerator

_CHOSEN_ELSEWHERE = ("recipe", "device")  # fields of TrainConfig with a widget of their own


@dataclass(frozen=True)
class Data:
    """What can be trained on: what tells it from other data, its title, sizes, and how to get the ratings."""

    key: Hashable
    title: str
    n_users: int
    n_movies: int
    n_ratings: int
    load: Load


def choose_data(preview: DeltaGenerator) -> Data | None:
    """The data set to learn from; None until there is one. What a file of one's own says is shown in ``preview``."""
    releases = sorted(DATASETS, key=lambda name: DATASETS[name].n_ratings)
    releases.sort(key=lambda name: name != state.SHIPPED)
    name = st.selectbox(
        "Ratings to learn from", [*releases, OWN], format_func=_data_label, key="data", bind="query-params", filter_mode=None
    )
    return _own_data(preview) if name == OWN else _release(DATASETS[name])


def _data_label(name: str) -> str:
    if name == OWN:
        return "A file of your own"
    dataset = DATASETS[name]
    return f"{dataset.title} ({dataset.year})"


def _release(dataset: Dataset) -> Data:
    local = find_local(dataset.name) is not None
    where = "on this machine" if local else f"a download of {words.size(dataset.size)}, once"
    st.caption(f"{dataset.n_ratings:,} ratings by {dataset.n_users:,} people of {dataset.n_movies:,} films · {where}")
    if not local:
        st.caption(f"Licence: {dataset.licence}")
    return _data(dataset)


def _data(dataset: Dataset) -> Data:
    return Data(dataset.name, dataset.title, dataset.n_users, dataset.n_movies, dataset.n_ratings, loader(dataset.name))


def data_of(trained: cfrec.TrainedModel, chosen: Data | None) -> Data | None:
    """What a run learns from: a release, or else the file that is chosen, if it has the same name; None where it has not."""
    if dataset := DATASETS.get(trained.source.name):
        return _data(dataset)
    return chosen if chosen and chosen.title == trained.source.title else None


def loader(name: str) -> Load:
    """What gives the ratings of a release: those that are read already, or else from the disk or a download."""
    ratings = state.local_ratings(name)

    def load(on_progress: Callable[[int, int], None]) -> cfrec.Ratings:
        return ratings or cfrec.load_dataset(name, on_progress=on_progress)

    return load


def _own_data(preview: DeltaGenerator) -> Data | None:
    own = choose_own(preview)
    if own is None:
        return None
    key, ratings = own
    return Data(key, ratings.source.title, ratings.n_users, ratings.n_movies, len(ratings), lambda _: ratings)


def may_be_seen(job: TrainingJob) -> bool:
    """Whether this visitor may see the ratings that a run learned from: those of a release, or of the file that they chose."""
    return job.data in DATASETS or job.data == (OWN, st.session_state.get("_own"))


def choose_config() -> cfrec.TrainConfig:
    """The settings. Raises ConfigError for those that do not go together."""
    names = list(cfrec.TrainConfig.preset_names())
    recipe = st.radio(
        "Recipe",
        names,
        format_func=str.capitalize,
        captions=[f"{PRESETS_EXPLAINED[name][0].upper()}{PRESETS_EXPLAINED[name][1:]}" for name in names],
        key="recipe",
        bind="query-params",
    )
    device = choose_device()
    preset = cfrec.TrainConfig.preset(recipe)
    settings = [field for field in fields(preset) if field.name not in _CHOSEN_ELSEWHERE]
    keys = {_key(field.name) for field in settings}
    values: dict[str, object] = {}
    with st.expander("Advanced: every setting", icon=":material/tune:", key="advanced", on_change="rerun") as advanced:
        # left out until it is opened, unless something in it was chosen before: to draw it takes a third of the page's time
        if advanced.open or not keys.isdisjoint(st.query_params) or not keys.isdisjoint(st.session_state):
            st.caption("Settings that you change stay with their recipe, and are in this page's address.")
            values = {field.name: _setting(field.name, getattr(preset, field.name), field.metadata) for field in settings}
    config = cfrec.TrainConfig.preset(recipe, device=device, **values)
    changed = [words.SETTINGS[name] for name in values if values[name] != getattr(preset, name)]
    if changed:
        st.caption(f"Changed from the recipe: {', '.join(changed)}.")
    return config


def _key(name: str) -> str:
    """Key of the widget for a field of TrainConfig: each recipe has its own."""
    return f"{name}_{st.session_state['recipe']}"


def _setting(name: str, default: object, limits: Mapping[str, Any]) -> object:
    """A widget for one field of TrainConfig."""
    key, label, explained = _key(name), words.SETTINGS[name], words.setting_help(name)
    if isinstance(default, bool):
        return st.toggle(label, default, help=explained, key=key, bind="query-params")
    if isinstance(default, str):
        options = limits["options"]
        return st.selectbox(
            label, options, options.index(default), format_func=words.setting_value, help=explained, key=key, bind="query-params"
        )
    kind = type(default)
    low, high = kind(limits["low"]), kind(limits["high"])
    step = 1 if kind is int else 10.0 ** floor(log10(default)) if default else 0.01
    number_format = None if kind is int else "%g"
    try:
        return kind(st.number_input(label, low, high, default, step, number_format, help=explained, key=key, bind="query-params"))
    except OverflowError as error:  # infinity, in the address
        raise cfrec.CfrecError(f"The address of this page gives “{label}” no number. Open the page afresh, without it.") from error


def choose_device() -> str:
    """The device to train on; those that are missing are shown with the reason."""
    devices = list_devices()
    labels = {"auto": "Automatic"} | {device.name: device.label for device in devices[::-1]}
    captions = {"auto": "The one that suits the recipe best"}
    captions |= {device.name: "Ready" if device.available else f"Not available: {device.reason}" for device in devices}
    return st.radio(
        "Device",
        list(labels),
        format_func=labels.__getitem__,
        captions=[captions[name] for name in labels],
        key="device",
        bind="query-params",
        help="Where the arithmetic is done. On a graphics card Quick and Balanced learn by adam, and come out a little different.",
    )


@st.cache_data(max_entries=200, show_spinner=False)
def seconds_needed(settings: dict[str, object], n_users: int, n_movies: int, n_train: int) -> float:
    """About how long a run would take here. Raises ConfigError, DeviceError."""
    return estimate_seconds(cfrec.TrainConfig.from_dict(settings), n_users, n_movies, n_train)


def wait_until_warm() -> None:
    """Show that the machine gets ready, and come back when it is: for the first seconds after the server started."""
    if is_warm():
        return

    @st.fragment(run_every=0.5)
    def come_back() -> None:
        # no skeleton: where it is drawn without a GPU, its shimmer takes a whole processor from what is waited for
        st.caption("Looking at what this machine can do … The very first time this takes some seconds longer.")
        if is_warm():
            st.rerun()

    come_back()
    st.stop()
