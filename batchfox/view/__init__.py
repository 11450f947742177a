"""`batchfox view`: a local page over the parts of an output."""
