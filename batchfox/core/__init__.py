"""The pure core: it decides, touches nothing, and knows no clock. `now` and randomness come in as arguments."""
