"""A hostile client: everything that has been seen to stop the server, from loopback addresses of its own."""
