// What the browser tests expect to find: an organization of Ada's with more projects than a page, a new one, two that wait for
// verification, and somebody without organization. Prints what they are told of it, as lines for a shell.
// CONSOLE_SERVICE says where; CONSOLE_PROGRAM mints the tokens.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';

const service = process.env.CONSOLE_SERVICE ?? 'http://127.0.0.1:8080';
const mint = (...words) => execFileSync(process.env.CONSOLE_PROGRAM ?? 'tenancy', ['token', ...words]).toString().trim();
const ada = mint('--email', 'ada@example.com', '--name', 'Ada');
const operator = mint('--email', 'operator@example.com', '--operator');
const PROJECTS = 165;
/** How many mutations one document may have. */
const ALIASES = 30;

async function send(token, query, variables = {}) {
  const answer = await fetch(`${service}/graphql`, {
    method: 'POST',
    headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
    body: JSON.stringify({ query, variables }),
  });
  const { data, errors } = await answer.json();
  assert.equal(errors, undefined, JSON.stringify(errors));
  for (const payload of Object.values(data)) assert.deepEqual(payload.errors ?? [], []);
  return data;
}

async function waits(name, slug) {
  const id = await organization(name, slug);
  await send(
    ada,
    'mutation($o: ID!) { submitOrganizationForVerification(input: {organizationId: $o}) { errors { message } } }',
    { o: id },
  );
  return id;
}

async function organization(name, slug) {
  const create = 'mutation($i: CreateOrganizationInput!) { createOrganization(input: $i) { organization { id } errors { message } } }';
  return (await send(ada, create, { i: { name, slug } })).createOrganization.organization.id;
}

const acme = await waits('Acme Robotics', 'acme-robotics');
await organization('Fresh Ventures', 'fresh-ventures');
await send(
  operator,
  'mutation($o: ID!) { verifyOrganization(input: {organizationId: $o, reason: "known"}) { errors { message } } }',
  { o: acme },
);
for (let first = 1; first <= PROJECTS; first += ALIASES) {
  const numbers = Array.from({ length: Math.min(ALIASES, PROJECTS - first + 1) }, (_, at) => first + at);
  const create = (n) =>
    `p${n}: createProject(input: {organizationId: $o, name: "Project ${n}", slug: "project-${n}"}) { errors { message } }`;
  await send(ada, `mutation($o: ID!) { ${numbers.map(create).join(' ')} }`, { o: acme });
}
const waiting = ['Waiting North', 'Waiting South'];
for (const name of waiting) await waits(name, name.toLowerCase().replace(' ', '-'));
const user = async (token) => (await send(token, '{ viewer { user { id } } }')).viewer.user.id;
console.log(`export CONSOLE_WAITING='${waiting.join(',')}'`);
console.log(`export CONSOLE_OWNER=${await user(ada)}`);
console.log(`export CONSOLE_PERSON=${await user(mint('--email', 'nobody@example.com'))}`);
