"""The data of a job that is trained on this machine: found to be there before anything starts, and read in place."""

from pathlib import Path

from adapter_api.absent_data import remedy, remedy_of
from adapter_api.document import Document, InvalidDocument
from adapter_api.job import AdapterTrainingJob

ROOT = ("spec", "training", "data", "params", "data_root_path")


def on_this_machine(job: AdapterTrainingJob, document: Document) -> AdapterTrainingJob:
    """The job with no other source of data than the folder that it names, if it names one.

    Raises:
        InvalidDocument: it names a folder that is not there, or data that only a cluster has.
    """
    data = job.spec.data
    if data is None:
        params = job.spec.training.data.params
        if not Path(params.data_root_path).is_dir():
            here = Path(params.pairs_file_path).exists()
            told = remedy_of(params, table_is_here=here, other=", or spec.data.folder,")
            raise InvalidDocument([document.fault(ROOT, f"{params.data_root_path} is not a folder; {told}")])
        return job
    if data.folder is not None:
        if not Path(data.folder).is_dir():
            message = f"{data.folder} is not a folder; {remedy(data.folder)}"
            raise InvalidDocument([document.fault(("spec", "data", "folder"), message)])
        only = data.model_copy(update={"s3": None, "pvc": None})
        return job.model_copy(update={"spec": job.spec.model_copy(update={"data": only})})
    if data.pvc is not None:
        message = (
            "there are no PersistentVolumeClaims on this machine; name the folder in spec.data.folder, next to it, or in "
            "spec.training.data.params.data_root_path and remove spec.data"
        )
        raise InvalidDocument([document.fault(("spec", "data", "pvc"), message)])
    return job
