"""What users and other programs are told of a job: status, conditions, Events."""
