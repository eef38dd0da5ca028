import streamlit as st

st.title("similar")
