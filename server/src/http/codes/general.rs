//! Codes of HTTP itself and of the server as a whole.

use super::{Code, code};

pub(super) const CODES: &[Code] = &[
    code(
        400,
        "body.malformed",
        "The body is not JSON",
        "The request's body could not be read as JSON, or it was cut off. Send one JSON value with `Content-Type: application/json`.",
    ),
    code(
        400,
        "query.malformed",
        "The query cannot be read",
        "A parameter of the query string is not of the kind that is expected there, e.g. a word where a number belongs, or it stands there twice. The detail names it.",
    ),
    code(
        400,
        "position.unknown",
        "That position is not in the log",
        "`min_position` or the `Proximity-Position` header names a position beyond the end of the log, of another incarnation of it, or is not a position at all. Send what an answer of this server gave you, or nothing.",
    ),
    code(
        400,
        "request.malformed",
        "The request cannot be read",
        "A header of the request is not what HTTP or this contract allows, e.g. an `Idempotency-Key` that is empty or longer than 255 characters. The detail names it.",
    ),
    code(
        404,
        "route.unknown",
        "There is no such path",
        "No call of the interface has this path. `/api/openapi.json` lists those that exist.",
    ),
    code(
        404,
        "not_found",
        "There is nothing under this id",
        "The thing does not exist, or it belongs to someone else: the answer is the same for both.",
    ),
    code(
        405,
        "method.not_allowed",
        "The path exists, but not with this method",
        "The `Allow` header lists the methods of this path.",
    ),
    code(
        406,
        "accept.unsatisfiable",
        "No acceptable form of the answer",
        "The `Accept` header allows no form that this call can answer in. Most calls answer `application/json`.",
    ),
    code(
        408,
        "request.timeout",
        "The body took too long",
        "The body of the request did not arrive within 30 seconds. Nothing was changed.",
    ),
    code(
        409,
        "state.conflict",
        "The state of things does not allow this",
        "What was asked for does not fit the present state. The detail says why; read the resource again and decide anew.",
    ),
    code(
        412,
        "precondition.failed",
        "It has changed meanwhile",
        "The `If-Match` header does not match the resource's present `ETag`. Read it again, and repeat the change if it is still wanted.",
    ),
    code(
        412,
        "plan.changed",
        "The plan can no longer be carried out",
        "`plan=` names what a dry run of the same request by the same caller answered as `plan_hash`, and something that the plan rests on is no longer so: a number was taken, a node is away, a setting or the application has changed. Nothing was done. Ask for another plan with `dry_run=true`.",
    ),
    code(
        413,
        "body.too_large",
        "The body is too large",
        "The body has more bytes than this server accepts for this call (`server.body_limit`, 1 MiB by default; 16 KiB for calls without identity).",
    ),
    code(
        415,
        "body.unsupported",
        "The body is of an unsupported type",
        "Send the body as `application/json`, in UTF-8, without `Content-Encoding`.",
    ),
    code(
        422,
        "value.invalid",
        "A value is not acceptable",
        "A value is missing, does not parse or is out of range. `errors` lists each one with a JSON pointer to it and what would be right.",
    ),
    code(
        422,
        "query.out_of_range",
        "A parameter is out of range",
        "A parameter of the query string lies outside its limits: `page` from 1, `per_page` from 1 to 100, `limit` from 1 to 1000.",
    ),
    code(
        422,
        "idempotency_key.reused",
        "The Idempotency-Key was used with another request",
        "A key stands for one request. Use a new key for a new request; send the same body to get the first answer again.",
    ),
    code(
        500,
        "internal",
        "Something went wrong on our side",
        "The cause stands in the server's log under the request id of this answer; tell it to whoever runs the server. If the request was meant to change something, read the state before trying again, or repeat it with the same `Idempotency-Key`.",
    ),
    code(
        501,
        "not_available",
        "This call is not available yet",
        "The call belongs to the interface, but this version of the server cannot do it.",
    ),
    code(
        503,
        "server.busy",
        "The server is at its limit",
        "More requests are being worked on than `server.max_requests` allows. Nothing was changed; try again after the seconds in `Retry-After`.",
    ),
    code(
        503,
        "store.busy",
        "The queue for writing is full",
        "Too many changes are waiting to be written. Nothing was changed; try again after the seconds in `Retry-After`.",
    ),
    code(
        503,
        "store.unavailable",
        "The event store is away",
        "The database cannot be reached or cannot write. Nothing was changed; try again after the seconds in `Retry-After`. `/readyz` tells when it is back.",
    ),
    code(
        503,
        "store.closed",
        "The server is shutting down",
        "Nothing was changed; try again, on another replica or once the server is back.",
    ),
    code(
        503,
        "store.contended",
        "Too many changes to the same thing",
        "Others kept changing the same thing at the same moment. Nothing was changed; try again.",
    ),
    code(
        409,
        "keys.in_use",
        "The key generation is in use, or is not known",
        "A generation of the master key can be destroyed once it was replaced and no secret is under it any more, and never comes back afterwards. `proximity keys status` shows the generations, `proximity keys rotate` replaces the one that seals.",
    ),
    code(
        409,
        "restore.nothing_to_confirm",
        "There is no restoration to confirm",
        "This installation was not restored from a backup, or that was confirmed already. `GET /api/core/restore` shows how it stands.",
    ),
    code(
        422,
        "dry_run.unsupported",
        "This call cannot be tried without effect",
        "`dry_run=true` is understood by calls that deploy, clone, adopt, delete or act on applications. Nothing was done: leave the parameter out to do it.",
    ),
    code(
        429,
        "stream.too_many",
        "Too many streams are open",
        "A user may have 16 live streams open at once, a server 2,000. Close one first, or try again after the seconds in `Retry-After`.",
    ),
];
