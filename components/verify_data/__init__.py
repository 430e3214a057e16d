"""Reads every image once: checks, reports and packs what passed."""
