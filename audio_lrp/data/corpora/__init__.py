"""Corpora: their recordings, where these lie, what they are called, and how they are downloaded or made."""
