"""The web: what stands between a socket and the detector - bounds, keys, bodies, routes, one shape of error."""
