"""The parts that pages in HTML are made of."""
