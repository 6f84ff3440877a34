#!/bin/sh
# botocore 1.44.5: where the body of a refusal (an answer with a status of 300 or more) breaks off, boto3 raises urllib3's
# ProtocolError. It is neither a BotoCoreError nor a ClientError, which callers catch, and the request is not repeated, whatever
# `retries` says: the body of a refusal is read outside of what the SDK names and repeats. An answer that breaks off before its
# headers is repeated as often as it should be.
#
# Seen with a server on the loopback that announces 300 bytes with a 404, sends 10, and resets the connection. This script fails
# when the error is one of botocore's, or the request is repeated.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet boto3==1.44.5 botocore==1.44.5 urllib3==2.8.0
AWS_ACCESS_KEY_ID=key AWS_SECRET_ACCESS_KEY=secret AWS_DEFAULT_REGION=us-east-1 "$folder/venv/bin/python" - <<'PYTHON'
import socket
import struct
import threading

import boto3
import botocore
import urllib3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

RESET = struct.pack("ii", 1, 0)


def answering(reply):
    """A server that reads a request, sends `reply` and resets; its address, and a list that grows with each request."""
    listener, seen = socket.create_server(("127.0.0.1", 0)), []

    def serve():
        while True:
            connection, _ = listener.accept()
            while b"\r\n\r\n" not in connection.recv(65536):
                pass
            seen.append(1)
            connection.sendall(reply)
            threading.Event().wait(0.1)  # what was sent arrives before the reset
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            connection.close()

    threading.Thread(target=serve, daemon=True).start()
    return f"http://127.0.0.1:{listener.getsockname()[1]}", seen


def error_of(reply):
    """What boto3 raises, and how many requests it made; three are allowed."""
    address, seen = answering(reply)
    retries = {"total_max_attempts": 3, "mode": "standard"}
    store = boto3.client("s3", endpoint_url=address, config=Config(retries=retries, s3={"addressing_style": "path"}))
    try:
        store.get_object(Bucket="bucket", Key="key")
    except Exception as error:
        return error, len(seen)


print("botocore", botocore.__version__, "urllib3", urllib3.__version__)
error, requests = error_of(b"HTTP/1.1 404 Not Found\r\nContent-Length: 300\r\n\r\n<Error>123")
print(f"a refusal that breaks off: {type(error).__module__}.{type(error).__name__} after {requests} request")
assert isinstance(error, urllib3.exceptions.HTTPError) and not isinstance(error, (BotoCoreError, ClientError)), error
assert requests == 1
error, requests = error_of(b"")
print(f"no answer: {type(error).__name__} after {requests} requests")
assert isinstance(error, BotoCoreError) and requests == 3
PYTHON
