// What the service sends, against the libraries of Standard Webhooks: this one's from npm, and that from PyPI where Python
// has it. Usage: node webhooks.mjs http://127.0.0.1:8080 TOKEN
//
// The service has to allow http to 127.0.0.1, and to verify organizations by itself.
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { createServer } from 'node:http'
import { fileURLToPath } from 'node:url'
import { Webhook } from 'standardwebhooks'

const [base, token] = process.argv.slice(2)

const received = []
const receiver = createServer((request, response) => {
  const chunks = []
  request.on('data', (chunk) => chunks.push(chunk))
  request.on('end', () => {
    received.push({ headers: request.headers, body: Buffer.concat(chunks).toString() })
    response.writeHead(204).end()
  })
})
await new Promise((done) => receiver.listen(0, '127.0.0.1', done))
const hook = `http://127.0.0.1:${receiver.address().port}/hook`

async function call(query, input) {
  const response = await fetch(`${base}/graphql`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', authorization: `Bearer ${token}` },
    body: JSON.stringify({ query, variables: { i: input } }),
  })
  const answer = await response.json()
  assert.equal(answer.errors, undefined, JSON.stringify(answer))
  return Object.values(answer.data)[0]
}

const slug = `hooks-${Date.now()}`
const created = await call(
  'mutation($i: CreateOrganizationInput!) { createOrganization(input: $i) { organization { id } } }',
  { name: 'Hooks', slug },
)
const organizationId = created.organization.id
const create =
  'mutation($i: CreateWebhookEndpointInput!) { createWebhookEndpoint(input: $i) { endpoint { id } secret errors { message } } }'
const { endpoint, secret } = await call(create, { organizationId, url: hook, events: ['member.*'] })
const other = await call(create, { organizationId, url: `${hook}/other`, events: ['project.*'] })
await call('mutation($i: InviteMemberInput!) { inviteMember(input: $i) { errors { message } } }', {
  organizationId, email: 'eve@example.com', roles: ['member'],
})

const deadline = Date.now() + 10_000
while (received.length < 1) {
  assert.ok(Date.now() < deadline, 'a webhook arrives')
  await new Promise((done) => setTimeout(done, 20))
}
const { headers, body } = received[0]

// As it came; then with one byte changed, under another secret, and six minutes late.
const webhook = new Webhook(secret)
assert.equal(webhook.verify(body, headers).type, 'member.invited')
assert.throws(() => webhook.verify(body.replace('eve@', 'eva@'), headers))
assert.throws(() => new Webhook(other.secret).verify(body, headers))
const late = new Date(Date.now() - 6 * 60_000)
const signed = webhook.sign(headers['webhook-id'], late, body)
const old = { ...headers, 'webhook-timestamp': String(Math.floor(late / 1000)), 'webhook-signature': signed }
assert.throws(() => webhook.verify(body, old))

// After a rotation both secrets verify.
const rotated = await call(
  'mutation($i: WebhookEndpointCommandInput!) { rotateWebhookSecret(input: $i) { secret errors { message } } }',
  { endpointId: endpoint.id },
)
await call('mutation($i: WebhookEndpointCommandInput!) { sendTestWebhook(input: $i) { errors { message } } }', {
  endpointId: endpoint.id,
})
while (received.length < 2) {
  assert.ok(Date.now() < deadline, 'a second webhook arrives')
  await new Promise((done) => setTimeout(done, 20))
}
for (const each of [secret, rotated.secret]) {
  assert.equal(new Webhook(each).verify(received[1].body, received[1].headers).type, 'webhook.tested')
}
receiver.close()
receiver.closeAllConnections()
console.log('webhooks: the library from npm takes what is sent, and nothing that was changed, late or signed by others')

const python = spawnSync('python3', [fileURLToPath(new URL('verify.py', import.meta.url))], {
  input: JSON.stringify({ headers, body, secret, other: other.secret }),
  encoding: 'utf8',
})
process.stdout.write(python.stdout)
process.stderr.write(python.stderr)
process.exit(python.status ?? 1)
