"""What to do next about a job: decided purely, from the job, what was observed, and the time."""
