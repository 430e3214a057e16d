"""Puts a passed bundle into the model registry as challenger."""
