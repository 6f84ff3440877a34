"""An S3 bucket as it really behaves: requests, answers, patience, transfers."""
