"""Makes a document that the server does not keep to, so that a run against it has to find that."""

import json
import sys

document = json.load(sys.stdin)
path = "/api/core/system/info"
operation = document["paths"][path]["get"]
schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
name = schema["$ref"].rsplit("/", 1)[1]
document["components"]["schemas"][name]["properties"]["version"] = {"type": "integer"}
document["paths"] = {path: {"get": operation}}
json.dump(document, sys.stdout)
