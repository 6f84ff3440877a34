"""The operator: watches AdapterTrainingJobs, decides, and applies what a cluster needs to train them."""
