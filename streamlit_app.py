"""cfrec in the browser: `streamlit run streamlit_app.py`."""

import streamlit as st

st.set_page_config(page_title="cfrec", layout="wide")
st.navigation([st.Page("app_pages/start.py", title="Start")], position="top").run()
