"""What the report and the view share: the request of an output row, its media, how pages are made safe."""
