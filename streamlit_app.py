"""cfrec in the browser: `streamlit run streamlit_app.py`."""

from pathlib import Path

import streamlit as st

IMAGES = Path(__file__).parent / "app_pages" / "images"
PAGES = {  # file -> title
    "start": "Start",
    "train": "Train",
    "biases": "Good and bad films",
    "map": "Map",
    "similar": "Similar films",
    "models": "Models",
    "about": "How it works",
}


@st.cache_resource
def warm_up() -> object:
    """Once, after the first page is drawn: set the log up, clear away what a dead server left, begin to import what other pages need."""
    from app_pages._state import jobs
    from cfrec.logs import set_up
    from cfrec.warm import warm_up

    if st.runtime.exists():  # not in tests of single pages, whose log is pytest's
        set_up()
    jobs()
    return warm_up()


st.set_page_config(page_title="cfrec", page_icon=str(IMAGES / "icon.svg"), layout="wide")
st.logo(str(IMAGES / "logo.svg"), size="large")
page = st.navigation(
    [st.Page(f"app_pages/{name}.py", title=title, default=name == "start") for name, title in PAGES.items()], position="top"
)
try:
    page.run()
finally:  # a page may end itself early, and one waits for this
    warm_up()
