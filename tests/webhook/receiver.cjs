// A webhook receiver in another language, made of what its users have: the published library of Standard Webhooks, that
// of CloudEvents, and Node's own crypto for ed25519, which the former does not verify.
//
//   node receiver.cjs PATH=KEY…   listens on loopback and prints where; a call to PATH must be signed with KEY,
//                                 "whsec_…" or "whpk_…" (a public key)
//
// Each call that is taken is printed as JSON.
"use strict";

const crypto = require("node:crypto");
const http = require("node:http");
const { HTTP } = require("cloudevents");
const { Webhook } = require("standardwebhooks");

// What precedes the 32 bytes of an ed25519 public key in DER, as RFC 8410 has it.
const der = Buffer.from("302a300506032b6570032100", "hex");

function verifier(text) {
  if (!text.startsWith("whpk_")) {
    const webhook = new Webhook(text);
    return (body, headers) => webhook.verify(body, headers);
  }
  const raw = Buffer.from(text.slice("whpk_".length), "base64");
  const key = crypto.createPublicKey({ key: Buffer.concat([der, raw]), format: "der", type: "spki" });
  return (body, headers) => {
    const at = Number(headers["webhook-timestamp"]);
    if (!(Math.abs(Date.now() / 1000 - at) < 300)) throw new Error("signed at another time");
    const signed = Buffer.concat([Buffer.from(`${headers["webhook-id"]}.${at}.`), body]);
    const ours = headers["webhook-signature"].split(" ").filter((s) => s.startsWith("v1a,"));
    if (!ours.some((s) => crypto.verify(null, signed, key, Buffer.from(s.slice("v1a,".length), "base64")))) {
      throw new Error("no matching signature found");
    }
  };
}

const paths = new Map();
for (const argument of process.argv.slice(2)) {
  const end = argument.indexOf("=");
  paths.set(argument.slice(0, end), verifier(argument.slice(end + 1)));
}

const server = http.createServer(async (request, response) => {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  const body = Buffer.concat(chunks);
  try {
    paths.get(request.url)(body, request.headers);
  } catch (error) {
    response.writeHead(401).end(error.message);
    return;
  }
  const event = HTTP.toEvent({ headers: request.headers, body: body.toString() });
  event.validate();
  console.log(JSON.stringify({ path: request.url, webhook_id: request.headers["webhook-id"], event: event.toJSON() }));
  response.writeHead(204).end();
});
server.listen(0, "127.0.0.1", () => console.log(`listening http://127.0.0.1:${server.address().port}`));
