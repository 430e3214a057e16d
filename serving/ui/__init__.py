"""The Streamlit user interface: a client of the HTTP API and of nothing else of this project."""
