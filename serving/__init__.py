"""The product: the detector (a pure library) and the HTTP server around it. Imports nothing from the floors above."""
