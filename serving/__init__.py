"""The product: the detector (a pure library) and the HTTP server around it. Imports nothing from the floors above."""

from serving.platform.settings import quieten_libraries

quieten_libraries()
