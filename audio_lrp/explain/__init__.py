"""Recordings in, explanations out: pictures, sounds, tables and a page."""
