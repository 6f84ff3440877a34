"""What stores, and what stands before them, answer, and what is told of it: the cause, and advice that fits it."""

from typing import Any

import pytest
from botocore.exceptions import ClientError, SSLError
from botocore.parsers import ResponseParserError

from adapter_agent.errors import (
    BucketMissing,
    CredentialsRefused,
    EndpointUnreachable,
    NotAStore,
    NotTrusted,
    ObjectMissing,
    PreconditionFailed,
    StorageError,
    Unsupported,
    WrongRegion,
)
from adapter_agent.storage.answers import explain
from adapter_api.progress import ExitCode

HTML = {"content-type": "text/html; charset=utf-8"}


def answer(
    status: int, code: str, message: str = "said", operation: str = "PutObject", headers: dict[str, str] | None = None
) -> ClientError:
    said: Any = {
        "Error": {"Code": code, "Message": message},
        "ResponseMetadata": {"HTTPStatusCode": status, "HTTPHeaders": headers or {}},
    }
    return ClientError(said, operation)


def tls(cause: str) -> SSLError:
    return SSLError(endpoint_url="https://store", error=OSError(cause))


def told(error: Exception, endpoint: str = "https://store") -> tuple[type[StorageError], str]:
    explained = explain(error, "s3://photos/run", endpoint, "photos")
    assert "\n" not in str(explained)
    return type(explained), str(explained)


@pytest.mark.parametrize(
    ("error", "kind", "advice"),
    [
        # Refused credentials, by the names that stores give them.
        (answer(404, "XAdminUserNotFound"), CredentialsRefused, "check AWS_ACCESS_KEY_ID"),
        (answer(403, "InvalidTokenId"), CredentialsRefused, "check AWS_SESSION_TOKEN"),
        (answer(400, "ExpiredTokenException"), CredentialsRefused, "renew them"),
        (answer(400, "400", "Bad Request", "HeadObject"), CredentialsRefused, "expired or are unknown; renew"),
        (answer(401, "401", "Unauthorized"), CredentialsRefused, "another kind of login"),
        # Rights that no further right on the bucket would help.
        (
            answer(403, "AccessDenied", "User is not authorized ... with an explicit deny in a resource-based policy"),
            CredentialsRefused,
            "look for a Deny",
        ),
        (
            answer(403, "AccessDenied", "not authorized to perform: kms:GenerateDataKey on resource: arn:aws:kms:x"),
            CredentialsRefused,
            "kms:GenerateDataKey and kms:Decrypt",
        ),
        (answer(400, "KMS.DisabledException"), CredentialsRefused, "serverSideEncryption.kmsKeyID"),
        (answer(403, "AccessDenied", "Bucket is requester pays bucket"), CredentialsRefused, "requesterPays: true"),
        # What the store does not know, with the field that helps.
        (answer(501, "NotImplemented", "If-None-Match is not implemented"), Unsupported, "conditionalWrites: false"),
        (
            answer(400, "InvalidArgument", "Unsupported header 'x-amz-checksum-sha256' received for this API call."),
            Unsupported,
            "checksums: MD5",
        ),
        (answer(501, "NotImplemented", operation="ListObjectsV2"), Unsupported, "ListObjectsV2"),
        (answer(501, "NotImplemented", "A header you provided"), Unsupported, "conditionalWrites: false"),
        (answer(405, "MethodNotAllowed", operation="UploadPartCopy"), Unsupported, "does not implement UploadPartCopy"),
        # What is no store, or not at this address.
        (answer(404, "404", "Not Found", "GetObject", HTML), NotAStore, "a web page answers"),
        (answer(200, "200", "?", "GetObject", HTML), NotAStore, "a web page answers"),
        (answer(502, "502", "Bad Gateway", headers=HTML), EndpointUnreachable, "does not reach it"),
        (answer(413, "413", "Request Entity Too Large", headers=HTML), StorageError, "client_max_body_size"),
        (answer(301, "301", headers={"location": "https://s3.new/x"}), NotAStore, "redirects to https://s3.new,"),
        (answer(301, "301", headers={"x-amz-bucket-region": "eu-west-1"}), WrongRegion, "region eu-west-1"),
        (answer(400, "400", "Client sent an HTTP request to an HTTPS server."), NotTrusted, "write https://"),
        (ResponseParserError("Unable to parse response"), NotAStore, "sends no XML"),
        # TLS.
        (
            tls("CERTIFICATE_VERIFY_FAILED self-signed"),
            NotTrusted,
            "AWS_CA_BUNDLE",
        ),
        (tls("certificate has expired"), NotTrusted, "renew it"),
        (tls("Hostname mismatch, certificate is"), NotTrusted, "another host"),
        (tls("WRONG_VERSION_NUMBER"), NotTrusted, "write http://"),
        # Trouble that passes.
        (answer(429, "TooManyRequests"), EndpointUnreachable, "overloaded"),
        (answer(503, "SlowDownWrite"), EndpointUnreachable, "overloaded"),
        (answer(503, "XMinioServerNotInitialized"), EndpointUnreachable, "overloaded"),
        (answer(304, "304", "Not Modified", "CompleteMultipartUpload"), PreconditionFailed, "exists already"),
        (answer(404, "404", "Not Found", "HeadObject"), ObjectMissing, "does not exist"),
        (ValueError("Invalid header value b'x\\n'"), StorageError, "Invalid header value"),
    ],
    ids=str,
)
def test_advice_fits_the_cause(error: Exception, kind: type[StorageError], advice: str) -> None:
    found, message = told(error)
    assert issubclass(found, kind)
    assert advice in message
    assert message.startswith("s3://photos/run at https://store: ")


@pytest.mark.parametrize("endpoint", ["https://photos.s3.example.com", "https://s3.example.com/photos"])
@pytest.mark.parametrize("code", ["NoSuchBucket", "SignatureDoesNotMatch"])
def test_an_endpoint_that_names_the_bucket_already_is_suspected_when_it_fails(endpoint: str, code: str) -> None:
    kind, message = told(answer(404 if code == "NoSuchBucket" else 403, code), endpoint)
    assert kind in {BucketMissing, CredentialsRefused}
    assert "seems to name bucket photos already" in message
    assert "seems to name" not in told(answer(404, "NoSuchBucket"), "https://s3.example.com")[1]


def test_what_a_person_must_mend_is_told_by_the_exit_code() -> None:
    for error in (answer(501, "NotImplemented"), answer(404, "404", headers=HTML), answer(404, "XAdminUserNotFound")):
        assert explain(error, "s3://photos/run", "https://store").exit_code is ExitCode.INVALID
