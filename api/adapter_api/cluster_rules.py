"""PURE: a document -> the job that a cluster can run, which asks more than that it is valid."""

from adapter_api.document import Document, InvalidDocument, validate
from adapter_api.job import AdapterTrainingJob

HERE_ONLY = (
    "folder is on the machine of `atj run`, and no pod can see it; upload it (aws s3 sync FOLDER s3://BUCKET/PREFIX) and name "
    "that in s3.uri, or name a PersistentVolumeClaim in pvc"
)
"""Why data that are only on the user's machine are refused."""


def validate_for_cluster(document: Document) -> AdapterTrainingJob:
    """The job.

    Raises:
        InvalidDocument: it is not valid, or can only run on the user's machine.
    """
    job = validate(AdapterTrainingJob, document)
    if job.spec.data is not None and job.spec.data.is_here_only:
        raise InvalidDocument([document.fault(("spec", "data"), HERE_ONLY)])
    return job
