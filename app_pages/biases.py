import streamlit as st

st.title("biases")
