// Reads the live feed of a running service with the clients `graphql-ws` and `graphql-sse`:
//
//     npm ci && node feed.mjs http://127.0.0.1:8080/graphql TOKEN
//
// Makes an organization, follows it over both, interrupts each and takes it up again, and compares what came with the
// audit trail. Exit code 0: all the same; 1: something is not; 2: it could not be run.

import net from 'node:net';

import { createClient as createSseClient } from 'graphql-sse';
import { createClient as createWsClient } from 'graphql-ws';
import WebSocket from 'ws';

import { follow } from './follow.mjs';

const TIMEOUT_MS = 30_000;
const EVENTS = 12;

const [url, token] = process.argv.slice(2);
if (!url || !token) {
  console.error('usage: node feed.mjs URL TOKEN   (such as http://127.0.0.1:8080/graphql, `tenancy token`)');
  process.exit(2);
}
setTimeout(() => {
  console.error('this takes too long: a feed says nothing');
  process.exit(1);
}, TIMEOUT_MS).unref();

const headers = { Authorization: `Bearer ${token}` };

async function call(query, variables) {
  const init = { method: 'POST', headers: { ...headers, 'content-type': 'application/json' } };
  const response = await fetch(url, { ...init, body: JSON.stringify({ query, variables }) });
  const { data, errors } = await response.json();
  if (errors) throw new Error(JSON.stringify(errors));
  return data;
}

const slug = `feed-${Date.now().toString(36)}`;
const created = await call(
  'mutation($i: CreateOrganizationInput!) { createOrganization(input: $i) { organization { id } position } }',
  { i: { name: 'Feed', slug } },
);
const { organization: { id }, position: start } = created.createOrganization;

async function rename(number) {
  const input = { organizationId: id, name: `Feed ${number}` };
  await call('mutation($i: UpdateOrganizationInput!) { updateOrganization(input: $i) { errors { message } } }', { i: input });
}

const query = `subscription($o: ID!, $a: Position) {
  auditEvents(organizationId: $o, after: $a) { position event { id } } }`;

// Reads so many events after a position; gives their ids, and where to go on.
async function read(client, after, count) {
  const ids = [];
  let position = after;
  const results = client.iterate({ query, variables: { o: id, a: after } });
  for await (const { data, errors } of results) {
    if (errors) throw new Error(JSON.stringify(errors));
    position = data.auditEvents.position;
    if (data.auditEvents.event) ids.push(data.auditEvents.event.id);
    if (ids.length >= count) break;
  }
  return { ids, position };
}

const clients = {
  'graphql-ws': () =>
    createWsClient({ url: `${url.replace(/^http/, 'ws')}/ws`, webSocketImpl: WebSocket, connectionParams: headers }),
  'graphql-sse': () => createSseClient({ url: `${url}/sse`, headers }),
};

const half = EVENTS / 2;
const reads = Object.entries(clients).map(async ([name, make]) => {
  const first = make();
  const { ids, position } = await read(first, start, half);
  first.dispose();
  const second = make();
  const rest = await read(second, position, EVENTS - half);
  second.dispose();
  return [name, [...ids, ...rest.ids]];
});
for (let number = 0; number < EVENTS; number += 1) await rename(number);

const trail = await call(
  'query($o: ID!) { organization(by: { id: $o }) { auditTrail(last: 100) { nodes { id action } } } }',
  { o: id },
);
const expected = trail.organization.auditTrail.nodes.slice(-EVENTS).map((node) => node.id);
for (const [name, ids] of await Promise.all(reads)) {
  const same = JSON.stringify(ids) === JSON.stringify(expected);
  console.log(`${name}: ${same ? 'all' : 'not all'} of ${EVENTS} events, once and in order`);
  if (!same) process.exitCode = 1;
}

// Across cuts: a proxy that ends every connection now and then, and the recipe of docs/clients.md.
const { port: target, hostname } = new URL(url);
const open = new Set();
const cuts = { ws: 0, sse: 0 };
const proxy = net.createServer((inner) => {
  const outer = net.connect(Number(target), hostname);
  const end = () => [inner, outer].forEach((socket) => socket.destroy());
  inner.once('data', (head) => {
    end.kind = head.includes('/ws') ? 'ws' : 'sse';
  });
  open.add(end);
  for (const socket of [inner, outer]) socket.on('error', end).on('close', end);
  inner.on('close', () => open.delete(end));
  inner.pipe(outer).pipe(inner);
});
await new Promise((listening) => proxy.listen(0, '127.0.0.1', listening));
const through = `http://127.0.0.1:${proxy.address().port}/graphql`;
const cutting = setInterval(() => {
  for (const end of open) {
    if (end.kind) cuts[end.kind] += 1;
    end();
  }
}, 150);

const resuming = {
  'graphql-ws': () =>
    createWsClient({
      url: `${through.replace(/^http/, 'ws')}/ws`,
      webSocketImpl: WebSocket,
      connectionParams: headers,
      retryAttempts: 0,
    }),
  'graphql-sse': () => createSseClient({ url: through, headers, retryAttempts: 0 }),
};
const before = await call('query($o: ID!) { organization(by: { id: $o }) { auditTrail(last: 1) { upTo } } }', { o: id });
const from = before.organization.auditTrail.upTo;
const followed = Object.entries(resuming).map(async ([name, make]) => {
  const client = make();
  const ids = [];
  for await (const { event } of follow(client, id, from)) {
    ids.push(event.id);
    if (ids.length >= EVENTS) break;
  }
  client.dispose();
  return [name, ids];
});
for (let number = 0; number < EVENTS; number += 1) {
  await rename(`again ${number}`);
  await new Promise((wait) => setTimeout(wait, 100));
}
const later = await call(
  'query($o: ID!) { organization(by: { id: $o }) { auditTrail(last: 100) { nodes { id } } } }',
  { o: id },
);
const wanted = later.organization.auditTrail.nodes.slice(-EVENTS).map((node) => node.id);
for (const [name, ids] of await Promise.all(followed)) {
  const same = JSON.stringify(ids) === JSON.stringify(wanted);
  console.log(`${name}: ${same ? 'all' : 'not all'} of ${EVENTS} events across cuts, once and in order`);
  if (!same) process.exitCode = 1;
}
clearInterval(cutting);
proxy.close();
if (cuts.ws < 2 || cuts.sse < 2) {
  console.error(`too few connections were cut: ${JSON.stringify(cuts)}`);
  process.exitCode = 1;
}

// What is refused is said in the way of each protocol.
const refused = { query, variables: { o: id, a: 'nonsense' } };
for (const [name, make] of Object.entries(clients)) {
  const client = make();
  let code;
  try {
    for await (const { errors } of client.iterate(refused)) code = errors?.[0].extensions.code;
  } catch (error) {
    code = error?.[0]?.extensions?.code ?? String(error);
  }
  client.dispose();
  console.log(`${name}: a position that is none is answered ${code}`);
  if (code !== 'BAD_USER_INPUT') process.exitCode = 1;
}
process.exit();
