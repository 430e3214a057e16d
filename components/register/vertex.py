"""A new version in Vertex Model Registry, its bundle in Cloud Storage."""
