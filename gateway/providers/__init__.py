"""Places that serve models: `serving` asks one, in the client's dialect or translated."""
