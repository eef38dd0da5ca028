"""What Streamlit leaves to JavaScript: listening to a Plotly figure, and scrolling to the top.

``listen`` hears which point of a figure that st.plotly_chart drew is clicked, and where the figure is looked at from.

Streamlit forwards neither clicks in 3D nor the camera, and forgets the camera whenever a figure changes. This component draws
nothing: it finds the figure in the page, reports a click on a point as ``picked`` (its customdata), and the view as ``view``.
``plotly_click`` is not sent in 3D under software rendering, so there a click is a pointer let go over a point without a drag.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import streamlit as st

_JS = """
export default function({ data, setTriggerValue, setStateValue }) {
  let plot = null, over = null, down = null, timer = null, wait = null;
  const hover = (e) => { over = e.points[0].customdata ?? null; };
  const unhover = () => { over = null; };
  const press = (e) => { down = { x: e.clientX, y: e.clientY, over }; };
  const release = (e) => {
    if (!down || Math.hypot(e.clientX - down.x, e.clientY - down.y) > 5) { down = null; return; }
    const before = down.over;
    down = null;
    clearTimeout(wait);
    wait = setTimeout(() => { const row = over ?? before; if (row != null) setTriggerValue("picked", row); }, 80);
  };
  const click = (e) => { const row = e.points[0].customdata; if (row != null) setTriggerValue("picked", row); };
  const relayout = (e) => {
    const camera = e["scene.camera"];
    if (camera) setStateValue("view", { camera });
    else if (e["xaxis.autorange"]) setStateValue("view", {});
    else if ("xaxis.range[0]" in e || "yaxis.range[0]" in e) {
      const { xaxis, yaxis } = plot._fullLayout;
      setStateValue("view", { x: [...xaxis.range], y: [...yaxis.range] });
    }
  };
  const detach = () => {
    if (!plot) return;
    plot.removeListener?.("plotly_hover", hover);
    plot.removeListener?.("plotly_unhover", unhover);
    plot.removeListener?.("plotly_click", click);
    plot.removeListener?.("plotly_relayout", relayout);
    plot.removeEventListener("pointerdown", press, true);
    window.removeEventListener("pointerup", release, true);
    plot = null;
  };
  const attach = () => {
    const found = document.querySelector(`.st-key-${data.container} .js-plotly-plot`);
    if (found && found !== plot && found.on) {
      detach();
      plot = found;
      plot.on("plotly_relayout", relayout);
      if (data.space) {
        plot.on("plotly_hover", hover);
        plot.on("plotly_unhover", unhover);
        plot.addEventListener("pointerdown", press, true);
        window.addEventListener("pointerup", release, true);
      } else plot.on("plotly_click", click);
    }
  };
  attach();
  timer = setInterval(attach, 200);
  if (window.innerWidth < data.narrow) setStateValue("narrow", true);
  return () => { clearInterval(timer); clearTimeout(wait); detach(); };
}
"""

_listener = st.components.v2.component("cfrec_plot_listener", js=_JS)


def listen(key: str, container: str, *, space: bool, on_pick: Callable[[], None], on_narrow: Callable[[], None]) -> Any:
    """Listen to the figure in the container of that key.

    ``st.session_state[key]`` then has ``picked`` (a row, in the run that a click causes), ``view`` and ``narrow`` (a phone's width).
    """
    return _listener(
        key=key,
        data={"container": container, "space": space, "narrow": 700},
        on_picked_change=on_pick,
        on_view_change=lambda: None,
        on_narrow_change=on_narrow,
        height=1,
    )


_TOP_JS = """
export default function({ data, parentElement }) {
  const { dataset } = parentElement.host ?? parentElement;
  if (dataset.shown !== undefined && dataset.shown !== data.shown) document.querySelector('[data-testid="stMain"]')?.scrollTo({ top: 0 });
  dataset.shown = data.shown;
}
"""

_top = st.components.v2.component("cfrec_to_top", js=_TOP_JS)


def to_top(key: str, shown: object) -> None:
    """Scroll to the top of the page when something else is ``shown`` than before: Streamlit leaves the visitor where they clicked."""
    _top(key=key, data={"shown": str(shown)}, height=1)
