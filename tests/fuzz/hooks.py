"""What the fuzzer needs to know of Proximity: an identity that lasts, ids that exist, and what it saw."""

import atexit
import collections
import json
import os
import random
import threading
import time
import urllib.request

import schemathesis

URL = os.environ["FUZZ_URL"]
USERNAME = os.environ["FUZZ_USERNAME"]
PASSWORD = os.environ["FUZZ_PASSWORD"]
SUMMARY = os.environ["FUZZ_SUMMARY"]

# Seeded as the run is. Which ids exist depends on what the server has answered, so two runs with one
# seed ask for the same things until the first of these choices differs.
chance = random.Random(int(os.environ["FUZZ_SEED"]))
lock = threading.Lock()
seen = collections.defaultdict(collections.Counter)
ids = collections.defaultdict(list)
token = refresh = None


def ask(method, path, body=None, bearer=None):
    """One call beside the fuzzer's own; the parsed answer."""
    headers = {"Content-Type": "application/json"}
    if bearer:
        headers["Authorization"] = f"Bearer {bearer}"
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(URL + path, data=data, headers=headers, method=method)
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as answer:
        return json.load(answer)


def sign_in():
    """A session for the one administrator."""
    global token, refresh
    answer = ask("POST", "/api/auth/login", {"username": USERNAME, "password": PASSWORD})
    token, refresh = answer["access"], answer["refresh"]


sign_in()
# The only account that may not be changed: without it nothing else can be reached.
ME = str(ask("GET", "/api/auth/user", bearer=token)["id"])


@schemathesis.auth()
class Session:
    """The present session; one that the fuzzer ended is followed by another."""

    def get(self, case, context):
        return None if token is None else {"token": token}

    def set(self, case, data, context):
        case.headers = case.headers or {}
        case.headers["Authorization"] = f"Bearer {token}"


# Where an id of this kind stands in a path, and where ids of that kind are learnt.
KINDS = {
    "/api/apps/{id}": "app",
    "/api/operations/{id}": "operation",
    "/api/proxmox/hosts/{id}": "host",
    "/api/users/{id}": "user",
    "/api/auth/tokens/{id}": "token",
    "/api/auth/sessions/{id}": "session",
    "/api/backup-schedules/{id}": "schedule",
    "/api/catalog/{id}": "catalog",
}
LISTS = {
    "apps": "app",
    "operations": "operation",
    "users": "user",
    "tokens": "token",
    "sessions": "session",
    "schedules": "schedule",
    "applications": "catalog",
    "backups": "backup",
}


def learn(kind, value):
    value = str(value)
    if kind and value not in ids[kind]:
        ids[kind].append(value)
        del ids[kind][:-40]


def learn_from(path, body):
    """Remembers which ids an answer names."""
    if isinstance(body, list) and path.startswith("/api/proxmox/hosts"):
        for host in body:
            learn("host", host.get("id"))
    if not isinstance(body, dict):
        return
    for name, kind in LISTS.items():
        for entry in body.get(name) or []:
            if isinstance(entry, dict) and "id" in entry:
                learn(kind, entry["id"])
                if kind == "backup" and "application_id" in entry:
                    learn("backup of", f"{entry['application_id']} {entry['id']}")
    if path == "/api/apps" and "id" in body:
        learn("app", body["id"])
    operation = body.get("operation")
    if isinstance(operation, str):
        learn("operation", operation)
    elif isinstance(operation, dict) and "id" in operation:
        learn("operation", operation["id"])


def kind_of(path):
    return next((kind for start, kind in KINDS.items() if path.startswith(start)), None)


def word(length=8):
    return "".join(chance.choice("abcdefghijklmnopqrstuvwxyz0123456789") for _ in range(length))


# Bodies that mean something, for the calls whose random ones hardly ever do.
BODIES = {
    "POST /api/apps": lambda: {
        "catalog_id": chance.choice(ids["catalog"]),
        "hostname": f"fuzz-{word()}",
        "environment": {"FUZZ": word()},
    },
    "POST /api/apps/{id}/action": lambda: {
        "action": chance.choice(["start", "STOP", "restart", "delete"]),
        "force": chance.random() < 0.5,
    },
    "POST /api/apps/{id}/clone": lambda: {"new_hostname": f"copy-{word()}", "allow_downtime": True},
    "POST /api/apps/{id}/backups": lambda: {
        "backup_type": chance.choice(["snapshot", "suspend", "stop"]),
        "compression": chance.choice(["zstd", "gzip", "lzo"]),
    },
    "POST /api/backup-schedules": lambda: {
        "application_id": chance.choice(ids["app"]),
        "cron": "0 2 * * *",
        "keep_last": chance.randrange(1, 9),
    },
    "PUT /api/backup-schedules/{id}": lambda: {"cron": "30 3 * * 1", "keep_daily": 7},
    "POST /api/users": lambda: {"username": f"user{word()}", "password": word(20)},
    "PATCH /api/users/{id}": lambda: {"is_staff": False, "disabled": chance.random() < 0.3},
    "POST /api/auth/registration": lambda: {"username": f"new{word()}", "password": word(20)},
    "POST /api/auth/login": lambda: {"username": USERNAME, "password": PASSWORD},
    "POST /api/auth/token/verify": lambda: {"token": token},
    "POST /api/auth/token/refresh": lambda: {"refresh": refresh},
    "POST /api/auth/password/change": lambda: {
        "old_password": PASSWORD,
        "new_password1": PASSWORD,
        "new_password2": PASSWORD,
    },
    "POST /api/auth/tokens": lambda: {"name": word(), "scopes": ["read"], "expires_in_days": 1},
    "PUT /api/proxmox/hosts/{id}": lambda: {"name": chance.choice(["demo", "lab", word()])},
    "POST /api/operations/{id}/abandon": lambda: {"note": word()},
    "POST /api/core/settings/resources": lambda: {
        "default_cpu_cores": chance.randrange(1, 5),
        "default_memory_mb": 512,
        "default_disk_gb": 4,
        "default_swap_mb": 0,
    },
}


def is_harmless(case):
    """Whether the run can go on after it; see `EXCLUDED` in tests/bin/fuzz for whole operations."""
    given = str((case.path_parameters or {}).get("id", ""))
    path, method = case.operation.path, case.method.upper()
    if given == ME and path.startswith("/api/users/{id}") and method in ("PATCH", "POST"):
        return False
    # The first host is the simulator: without it nothing can be deployed any more.
    if given == "1" and path == "/api/proxmox/hosts/{id}" and method == "PUT":
        return isinstance(case.body, dict) and set(case.body) <= {"name", "ssh_port"}
    return not (given == "1" and path == "/api/proxmox/hosts/{id}" and method == "DELETE")


@schemathesis.hook
def map_case(ctx, case):
    """Makes most of the valid cases mean something: ids that exist, bodies that fit together."""
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return case
    path = case.operation.path
    name = f"{case.operation.method.upper()} {path}"
    with lock:
        given = case.path_parameters or {}
        kind = kind_of(path)
        if "backup_id" in given and ids["backup of"] and chance.random() < 0.7:
            app, backup = chance.choice(ids["backup of"]).split()
            case.path_parameters = {**given, "id": app, "backup_id": backup}
        elif "id" in given and kind and ids[kind] and chance.random() < 0.7:
            case.path_parameters = {**given, "id": chance.choice(ids[kind])}
        elif "code" in given and chance.random() < 0.7:
            case.path_parameters = {**given, "code": "hostname.taken"}
        elif "category" in given and chance.random() < 0.7:
            case.path_parameters = {**given, "category": "Monitoring"}
        if path == "/api/apps/{id}/diff" and case.query and chance.random() < 0.7:
            case.query = {**case.query, "from": "1", "to": "40"}
        if name in BODIES and chance.random() < 0.7:
            case.body = BODIES[name]()
        if not is_harmless(case):
            case.path_parameters = {**given, "id": "9999"}
    return case


@schemathesis.hook
def filter_case(ctx, case):
    """Leaves out what would end the run."""
    return is_harmless(case)


@schemathesis.hook
def after_call(ctx, case, response):
    """Writes down what was answered, and signs in again when the session is over."""
    global PASSWORD
    name = f"{case.operation.method.upper()} {case.operation.path}"
    with lock:
        if case.method.upper() == case.operation.method.upper():
            seen[name][response.status_code] += 1
        if response.status_code < 300:
            try:
                learn_from(case.operation.path, response.json())
            except ValueError:
                pass
        sent = (response.request.headers or {}).get("Authorization")
        ends = case.operation.path in ("/api/auth/logout", "/api/auth/password/change") or (
            case.operation.path.startswith("/api/auth/sessions/")
        )
        if case.operation.path == "/api/auth/password/change" and response.status_code < 300:
            sent_body = json.loads(response.request.body)
            PASSWORD = sent_body["new_password1"]
        lost = response.status_code == 401 and sent == f"Bearer {token}"
        if lost or (ends and response.status_code < 300):
            sign_in()


def begin():
    """Something of each kind, so that there are ids from the first case on."""
    for path in ("/api/catalog", "/api/auth/sessions", "/api/proxmox/hosts"):
        learn_from(path, ask("GET", path, bearer=token))
    for number in range(6):
        app = {"catalog_id": "alpine", "hostname": f"first-{number}"}
        learn_from("/api/apps", ask("POST", "/api/apps", app, bearer=token))
        user = ask("POST", "/api/users", BODIES["POST /api/users"](), bearer=token)
        learn("user", user["id"])
    deadline = time.monotonic() + 60
    while any(app["status"] != "running" for app in ask("GET", "/api/apps", bearer=token)["apps"]):
        if time.monotonic() > deadline:
            raise SystemExit("the applications to begin with do not run")
        time.sleep(0.2)
    for app in list(ids["app"])[:3]:
        backup = ask("POST", f"/api/apps/{app}/backups", {"backup_type": "stop"}, bearer=token)
        learn("backup of", f"{app} {backup['id']}")
        body = BODIES["POST /api/backup-schedules"]()
        learn("schedule", ask("POST", "/api/backup-schedules", body, bearer=token)["id"])
        named = BODIES["POST /api/auth/tokens"]()
        learn("token", ask("POST", "/api/auth/tokens", named, bearer=token)["id"])


begin()


@atexit.register
def write():
    with open(SUMMARY, "w", encoding="utf-8") as file:
        json.dump({name: dict(counts) for name, counts in seen.items()}, file)
