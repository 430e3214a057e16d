"""What everything stands on: errors, frozen models, cores. No web, no model, no cloud at import."""
