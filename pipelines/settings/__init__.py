"""Every knob as plain data, below all behaviour: what reads a section imports it from here, never the other way."""
