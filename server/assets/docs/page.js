// Reads the OpenAPI document and lets a person try each call; text is only ever set as text.
"use strict";

const VERBS = ["get", "post", "put", "patch", "delete"];

function element(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (value !== undefined && value !== null) made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== undefined && child !== null));
  return made;
}

function cookie(name) {
  const found = document.cookie.split("; ").find((part) => part.startsWith(name + "="));
  return found ? decodeURIComponent(found.slice(name.length + 1)) : "";
}

function resolved(api, schema) {
  let depth = 0;
  while (schema && schema.$ref && depth++ < 20) {
    schema = schema.$ref.slice(2).split("/").reduce((at, key) => at && at[key], api);
  }
  return schema || {};
}

function kind(api, schema) {
  if (!schema) return "";
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.oneOf) return schema.oneOf.map((part) => kind(api, part)).join(" | ");
  const type = [].concat(schema.type || "any");
  return type.map((name) => (name === "array" ? kind(api, schema.items) + "[]" : name)).join(" | ");
}

// A body to begin with: examples where there are some, else an empty value of the right kind.
function example(api, schema, depth = 0) {
  schema = resolved(api, schema);
  if (schema.example !== undefined) return schema.example;
  if (schema.examples && schema.examples.length) return schema.examples[0];
  if (schema.oneOf) {
    const part = schema.oneOf.find((one) => one.type !== "null") || {};
    return depth > 5 ? null : example(api, part, depth + 1);
  }
  const type = [].concat(schema.type || [])[0];
  if (type === "object" && depth < 5) {
    const body = {};
    for (const [name, property] of Object.entries(schema.properties || {})) {
      if ((schema.required || []).includes(name)) body[name] = example(api, property, depth + 1);
    }
    return body;
  }
  return { object: {}, array: [], integer: 0, number: 0, boolean: false, string: "" }[type] ?? null;
}

function fields(api, schema) {
  const shape = resolved(api, schema);
  const parts = [shape].concat((shape.allOf || []).map((part) => resolved(api, part)));
  const rows = parts.flatMap((part) => Object.entries(part.properties || {}).map(([name, one]) => {
    const must = (part.required || []).includes(name) ? " (required)" : "";
    return element("tr", {},
      element("td", {}, element("code", {}, name), must),
      element("td", {}, element("code", {}, kind(api, one))),
      element("td", {}, one.description || resolved(api, one).description || ""));
  }));
  return rows.length ? element("table", {}, ...rows) : undefined;
}

function content(entry) {
  return Object.values((entry && entry.content) || {})[0];
}

async function send(verb, path, parameters, inputs, body, out) {
  let url = path;
  const query = new URLSearchParams();
  const headers = { accept: "application/json, text/*, */*" };
  parameters.forEach((parameter, at) => {
    const value = inputs[at].value;
    if (parameter.in === "path") {
      url = url.replace(`{${parameter.name}}`, encodeURIComponent(value));
    } else if (value !== "" && parameter.in === "query") {
      query.append(parameter.name, value);
    } else if (value !== "" && parameter.in === "header") {
      headers[parameter.name] = value;
    }
  });
  const bearer = document.getElementById("bearer").value.trim();
  if (bearer) headers.authorization = `Bearer ${bearer}`;
  if (verb !== "get") headers["x-csrftoken"] = cookie("csrftoken");
  if (body) headers["content-type"] = "application/json";
  const asked = query.toString();
  out.textContent = "…";
  try {
    const answer = await fetch(asked ? `${url}?${asked}` : url, {
      method: verb.toUpperCase(), headers, body: body || undefined, credentials: "same-origin",
    });
    let text = await answer.text();
    try { text = JSON.stringify(JSON.parse(text), null, 2); } catch { /* It is no JSON. */ }
    const told = ["etag", "location", "proximity-position", "retry-after", "x-request-id"]
      .filter((name) => answer.headers.get(name))
      .map((name) => `${name}: ${answer.headers.get(name)}`);
    out.textContent = [`${answer.status} ${answer.statusText}`, ...told, "", text].join("\n");
  } catch (error) {
    out.textContent = `no answer: ${error}`;
  }
}

function call(api, path, verb, operation) {
  const parameters = operation.parameters || [];
  const inputs = parameters.map((parameter) => element("input", {
    placeholder: `${kind(api, parameter.schema)}${parameter.required ? ", required" : ""}`,
  }));
  const wanted = content(operation.requestBody);
  const body = wanted && element("textarea", { spellcheck: "false" });
  if (body) body.value = JSON.stringify(example(api, wanted.schema), null, 2);
  const out = element("pre", { "aria-live": "polite" });
  const button = element("button", { type: "button" }, "Send");
  button.addEventListener("click", () =>
    send(verb, path, parameters, inputs, body && body.value.trim(), out));
  const answers = Object.entries(operation.responses || {}).map(([status, answer]) =>
    element("tr", {},
      element("td", {}, element("code", {}, status)),
      element("td", {}, answer.description || "", (content(answer) && status < 400)
        ? fields(api, resolved(api, content(answer).schema).items || content(answer).schema) : undefined)));
  return element("details", { "data-text": [path, verb, operation.summary,
    ...Object.values(operation.responses || {}).map((answer) => answer.description)].join(" ").toLowerCase() },
    element("summary", {},
      element("span", { class: "verb" }, verb.toUpperCase()),
      element("code", {}, path),
      element("span", { class: "about" }, operation.summary || "")),
    element("p", {}, operation.description || ""),
    parameters.length ? element("table", {}, ...parameters.map((parameter, at) =>
      element("tr", {},
        element("td", {}, element("code", {}, parameter.name), ` (${parameter.in})`),
        element("td", {}, parameter.description || "", inputs[at])))) : undefined,
    wanted ? element("h3", {}, "Body") : undefined,
    wanted ? fields(api, wanted.schema) : undefined,
    body, button, out,
    element("h3", {}, "Answers"),
    element("table", {}, ...answers));
}

async function start() {
  const about = document.getElementById("about");
  const main = document.getElementById("calls");
  let api;
  try {
    api = await (await fetch("/api/openapi.json")).json();
  } catch (error) {
    about.textContent = `The document could not be read: ${error}`;
    return;
  }
  about.textContent = api.info.description;
  const groups = new Map();
  for (const [path, item] of Object.entries(api.paths)) {
    for (const verb of VERBS.filter((verb) => item[verb])) {
      const tag = (item[verb].tags || ["other"])[0];
      if (!groups.has(tag)) groups.set(tag, []);
      groups.get(tag).push(call(api, path, verb, item[verb]));
    }
  }
  for (const [tag, calls] of groups) {
    main.append(element("section", {}, element("h2", {}, tag), ...calls));
  }
  document.getElementById("find").addEventListener("input", (event) => {
    const wanted = event.target.value.toLowerCase();
    for (const one of main.querySelectorAll("details")) {
      one.hidden = !one.dataset.text.includes(wanted);
    }
  });
}

start();
