"""A real S3 server on the loopback (moto's): it checks signatures and rights, and can hang up in the middle of an object."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Mapping
from typing import Any, Self

import boto3
import httpx
from moto.core import DEFAULT_ACCOUNT_ID
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from moto.s3.models import s3_backends
from werkzeug.serving import make_server

REGION = "eu-central-1"
LIST, GET = "s3:ListBucket", "s3:GetObject"


class _Silent(MotoRequestHandler):
    def log_request(self, *_: Any) -> None:
        """Says nothing."""


class ObjectStore:
    """A server with a bucket `bills`; `asked`: its requests; `breaks_off`: keys of which it sends the first half."""

    def __init__(self) -> None:
        self._app = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True, request_handler=_Silent)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self.asked: list[str] = []
        self.breaks_off: set[str] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        self._ask_for_rights_after(10**9)
        self._iam = self._client("iam", {"AWS_ACCESS_KEY_ID": "root", "AWS_SECRET_ACCESS_KEY": "root"})
        owner = self.user("owner", "*")
        self._ask_for_rights_after(0)
        self._iam = self._client("iam", owner)
        place = {"LocationConstraint": REGION}
        self._client("s3", owner).create_bucket(Bucket="bills", CreateBucketConfiguration=place)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def put(self, key: str, body: bytes) -> None:
        """Into the store itself: a request with its signature costs 50 ms, and a second page needs a thousand."""
        s3_backends[DEFAULT_ACCOUNT_ID]["aws"].put_object("bills", key, body)

    def user(self, name: str, *rights: str) -> dict[str, str]:
        """A user of the store who may do this: the variables with the keys."""
        self._iam.create_user(UserName=name)
        statement = {"Effect": "Allow", "Action": list(rights), "Resource": "*"}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        self._iam.put_user_policy(UserName=name, PolicyName="s3", PolicyDocument=policy)
        key = self._iam.create_access_key(UserName=name)["AccessKey"]
        return {"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]}

    def _client(self, service: str, keys: Mapping[str, str]) -> Any:
        named = {name.lower(): value for name, value in keys.items()}
        return boto3.client(service, endpoint_url=self.url, region_name=REGION, **named)

    def _ask_for_rights_after(self, requests: int) -> None:
        answer = httpx.post(f"{self.url}/moto-api/reset-auth", content=str(requests).encode())
        answer.raise_for_status()

    def _answer(self, environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        method, path, query = (environ[name] for name in ("REQUEST_METHOD", "PATH_INFO", "QUERY_STRING"))
        self.asked.append(f"{method} {path}?{query}")
        answer = self._app(environ, start)
        if method == "GET" and path in self.breaks_off:
            body = b"".join(answer)
            return [body[: len(body) // 2]]
        return answer
