"""The composition root: processes, their wiring, and the two ways to run (job and service)."""
