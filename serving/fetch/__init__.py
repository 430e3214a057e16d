"""Fetches the photo behind an address of somebody else's: bounded in bytes, time, hops and in where it may lead.

`client` fetches; `refusals` names every reason, and loads without the client's libraries.
"""
