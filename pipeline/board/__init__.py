"""One page that says how everything stands, and what it is made of."""
