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

st.logo(str(IMAGES / "logo.svg"), size="large")
page = st.navigation(
    [st.Page(f"app_pages/{name}.py", title=title, default=name == "start") for name, title in PAGES.items()], position="top"
)
st.set_page_config(page_title=f"{page.title} · cfrec", page_icon=str(IMAGES / "icon.svg"), layout="wide")
try:
    page.run()
finally:  # a page may end itself early, and one waits for this
    from app_pages._state import set_out  # only now: to import it takes 0.4 s, in which the first page is already drawn

    set_out()
