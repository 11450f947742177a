"""`batchfox schedule --print`: what makes somebody else's scheduler run a job as ours would."""
