"""Trains the projector of the pocket audio model: `python -m training.pocket`."""
