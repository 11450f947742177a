"""Looks over a job's rows without sending any: what `batchfox validate` says, and `run --dry-run` prints."""
