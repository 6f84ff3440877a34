#!/bin/sh
# versitygw 1.8.0 (posix backend): while an object is replaced, GetObject now and then answers with the content of the old
# object and the ETag of the new one, or the other way round. Whoever reads, changes and writes back with `If-Match: <that
# ETag>` then undoes a change that it has never seen, and is told that all went well: If-Match itself is honoured.
#
# Seen with boto3 1.44.5 on ext4: 207 of 2,391 reads, beside one writer. SeaweedFS 4.48: none of 2,292. Where ETags are the
# MD5 of the content, comparing them shows it; reading again helps. This script fails when no read is torn any more.
set -eu
folder=$(mktemp -d)
server=
trap 'test -z "$server" || kill "$server" 2>/dev/null || :; sleep 1; rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet boto3==1.44.5
GOBIN=$folder/bin go install github.com/versity/versitygw/cmd/versitygw@v1.8.0
mkdir -p "$folder/files/bucket" "$folder/sidecar"
port=$("$folder/venv/bin/python" -c 'import random; print(random.randrange(20000, 30000))')
ROOT_ACCESS_KEY=key ROOT_SECRET_KEY=secret "$folder/bin/versitygw" --port="127.0.0.1:$port" posix \
  --sidecar="$folder/sidecar" "$folder/files" >"$folder/log" 2>&1 &
server=$!
AWS_ACCESS_KEY_ID=key AWS_SECRET_ACCESS_KEY=secret AWS_DEFAULT_REGION=us-east-1 \
  "$folder/venv/bin/python" - "http://127.0.0.1:$port" <<'PYTHON'
import hashlib
import sys
import threading
import time

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

# By default botocore checks the CRC32 that is answered, which is of the other object as well, and raises.
store = boto3.client("s3", endpoint_url=sys.argv[1], config=Config(response_checksum_validation="when_required"))
for _ in range(100):
    try:
        store.put_object(Bucket="bucket", Key="document", Body=b"first")
        break
    except (ClientError, BotoCoreError):
        time.sleep(0.2)

end = time.monotonic() + 10
reads, torn = 0, 0


def replace():
    count = 0
    while time.monotonic() < end:
        count += 1
        store.put_object(Bucket="bucket", Key="document", Body=f"{count:0500d}".encode())


writer = threading.Thread(target=replace)
writer.start()
while time.monotonic() < end:
    answer = store.get_object(Bucket="bucket", Key="document")
    digest = hashlib.md5(answer["Body"].read()).hexdigest()
    reads, torn = reads + 1, torn + (answer["ETag"].strip('"') != digest)
writer.join()
print(f"{torn} of {reads} reads have the content of one object and the ETag of another")
assert torn, "content and ETag always belong together"
PYTHON
